// What a program in TypeScript writes against the loader: tsc must accept it, and refuse what is marked.

import * as tokenizers from "@huggingface/tokenizers";
import * as node from "onnxruntime-node";
import * as web from "onnxruntime-web";

import { BundleError, load, openBundle, type Forecast, type Manifest } from "./javascript/loopedge.mjs";

const model = await load(web, "./", { verify: "size", provider: "webgpu", tokenizers });
await load(node, new URL("file:///bundle"), { threads: 1 });
const manifest: Manifest = (await openBundle("./")).manifest;
const forecast: Forecast = await model.forecast([1, null, 3], { loops: 2, lastTime: "2020-01" });
const first: number | undefined = forecast.values?.[0]?.[0];
const { outputs } = await model.run({ inputs: new Float32Array(3), ids: [[1n, 2n]] });
const dims: readonly number[] | undefined = outputs["outputs"]?.dims;
const generator = model.generator({ loops: 1 });
for await (const id of generator.stream([1, 2], { newTokens: 3 })) console.log(id.toFixed());
const written = await model.generate("The ", { onText: (text) => console.log(text.length) });
const ended: string = written.ended;
try {
  await model.release();
} catch (error) {
  if (error instanceof BundleError) console.log(error.hint, first, dims, manifest.name, ended);
}

// @ts-expect-error there is no such verification
await load(web, "./", { verify: "none" });
// @ts-expect-error a loop count is a number
await model.run({}, { loops: "3" });
// @ts-expect-error the namespace of the runtime comes first
await load("./");
