// Runs the test vectors of a bundle, and measures how far the outputs are from what they should be.

import { arrayOfBytes } from "./arrays.mjs";

/**
 * Yield, for each vector, { vector, check, limit, measured, passed }.
 *
 * A vector with a loop count that the model's form does not run is left out, and named in `onNote`.
 */
export async function* checkVectors(model, { onNote = () => {} } = {}) {
  for (const vector of model.manifest.vectors) {
    const inputs = await arraysOf(model.bundle, vector.inputs);
    const expected = await arraysOf(model.bundle, vector.outputs);
    const loops = inputs.loops ? Number(inputs.loops.data[0]) : undefined;
    if (loops !== undefined && (model.model.loops ?? loops) !== loops) {
      onNote(`vector ${vector.name} is left out: ${model.model.file} runs ${model.model.loops} loops, not ${loops}`);
      continue;
    }
    const found = await runVector(model, vector, inputs, expected, loops);
    const { kind, limit } = vector.check;
    const measured = measure(kind, expected, found);
    const passed = kind === "relative" ? measured <= limit : measured >= limit;
    yield { vector: vector.name, check: kind, limit, measured: Number.isFinite(measured) ? measured : null, passed };
  }
}

/** Return the arrays of a vector by name. */
export async function arraysOf(bundle, files) {
  const arrays = {};
  for (const file of files) arrays[file.name] = arrayOfBytes(await bundle.bytes(file.file), file);
  return arrays;
}

async function runVector(model, vector, inputs, expected, loops) {
  if (!model.manifest.decoding) return (await model.run(inputs, { loops })).outputs;
  const generator = model.generator({ loops });
  const ids = Array.from(inputs.input_ids.data, Number);
  if (!expected.completion) {
    const data = await generator.prefill(ids);
    return { logits: { data, dims: [1, 1, data.length] } };
  }
  const found = [];
  for await (const id of generator.stream(ids, { newTokens: expected.completion.data.length })) found.push(id);
  if (vector.text && !(await readsAlike(model, vector.text, ids, found))) found.length = 0;
  return { completion: { data: found, dims: [1, found.length] } };
}

/** Tell whether the tokenizer gives the same ids for the prompt and the same text for the completion. */
async function readsAlike(model, text, ids, found) {
  const tokenizer = await model.tokenizer();
  return String(tokenizer.encode(text.prompt)) === String(ids) && tokenizer.decode(found) === text.completion;
}

/** Return the largest relative error of all outputs, their SQNR in dB, or 1 where all are equal. */
export function measure(kind, expected, found) {
  const pairs = Object.entries(expected).map(([name, array]) => [array, found[name]]);
  if (pairs.some(([one, other]) => String(one.dims) !== String(other?.dims))) {
    return { relative: Infinity, sqnr: -Infinity, equal: 0 }[kind];
  }
  const numbers = pairs.map(([one, other]) => [Array.from(one.data, Number), Array.from(other.data, Number)]);
  if (kind === "equal") return Number(numbers.every(([one, other]) => one.every((value, i) => value === other[i])));
  if (kind === "relative") return Math.max(...numbers.map(([one, other]) => largestOf(differences(one, other)) / (largestOf(one) || 1)));
  const signal = numbers.reduce((sum, [one]) => sum + squares(one), 0);
  const noise = numbers.reduce((sum, [one, other]) => sum + squares(differences(one, other)), 0);
  return noise === 0 ? EXACT_DB : Math.min(EXACT_DB, 10 * Math.log10(signal / noise));
}

const EXACT_DB = 200;
const differences = (one, other) => one.map((value, i) => other[i] - value);
const largestOf = (values) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
const squares = (values) => values.reduce((sum, value) => sum + value * value, 0);
