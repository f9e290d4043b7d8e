// Checks every file of the bundle, then runs its test vectors: one line of JSON each, exit status 0 where all pass.
//
// node node/verify.mjs [FOLDER] [--runtime onnxruntime-node|onnxruntime-web] [--provider cpu] [--model ID]

import { load } from "../javascript/loopedge.mjs";
import { checkVectors } from "../javascript/vectors.mjs";
import { bundleFolder, fail, importPackage, importRuntime, readOptions } from "./runtime.mjs";

const asked = readOptions({
  runtime: { type: "string", default: "onnxruntime-node" },
  provider: { type: "string" },
  model: { type: "string" },
});

try {
  const folder = bundleFolder(asked.bundle);
  const ort = await importRuntime(asked.runtime, folder);
  const tokenizers = await importPackage("@huggingface/tokenizers", folder);
  if (ort.env.wasm) ort.env.wasm.numThreads = 1;
  const model = await load(ort, folder, { provider: asked.provider, model: asked.model, tokenizers });
  await model.bundle.checkAll();
  let failed = 0;
  for await (const line of checkVectors(model, { onNote: (note) => process.stderr.write(`note: ${note}\n`) })) {
    process.stdout.write(`${JSON.stringify(line)}\n`);
    failed += line.passed ? 0 : 1;
  }
  await model.release();
  process.exit(failed ? 1 : 0);
} catch (error) {
  fail(error.message);
}
