// Shows what a program does with the bundle: a forecast, a text, or plain outputs. node node/example.mjs

import { load } from "../javascript/loopedge.mjs";
import { arraysOf } from "../javascript/vectors.mjs";
import { bundleFolder, fail, importPackage, importRuntime } from "./runtime.mjs";

try {
  const folder = bundleFolder(process.argv[2]);
  const ort = await importRuntime("onnxruntime-node", folder);
  const model = await load(ort, folder, { tokenizers: await importPackage("@huggingface/tokenizers", folder) });
  if (model.manifest.tokenizer && model.manifest.decoding) {
    const prompt = process.argv[3] ?? model.manifest.vectors.find((vector) => vector.text)?.text.prompt ?? "The ";
    const { text, ended } = await model.generate(prompt);
    console.log(`${prompt}|${text}\n(ended: ${ended})`);
  } else if (model.table) {
    // Your own table rows, the oldest first: as many as the model's context, a value for each of these columns.
    const { inputs } = await arraysOf(model.bundle, model.manifest.vectors[0].inputs);
    const { columns } = model.table;
    const rows = Array.from({ length: inputs.dims[1] }, (_, i) => inputs.data.slice(i * columns.length, (i + 1) * columns.length));
    console.log(`columns: ${columns.join(", ")}; table rows: ${rows.length}`);
    console.log(JSON.stringify(await model.forecast(rows), null, 1));
  } else if (!model.manifest.decoding) {
    const { outputs } = await model.run(await arraysOf(model.bundle, model.manifest.vectors[0].inputs));
    for (const [name, { dims, data }] of Object.entries(outputs)) console.log(name, dims, data.slice(0, 8));
  } else {
    console.log(await model.generator().prefill([0]));
  }
} catch (error) {
  fail(error.message);
}
