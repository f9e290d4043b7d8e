// Runs a model at lengths 1 to 200 in random order, twice; prints what the memory grew by in the second round, in bytes.
// node lengths.mjs BUNDLE RUNTIME SEED

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [bundle, runtime, seed] = process.argv.slice(2);
const heaps = [];
const Memory = WebAssembly.Memory;
WebAssembly.Memory = class extends Memory {
  constructor(limits) {
    super(limits);
    heaps.push(this);
  }
};
const { importPackage } = await import(pathToFileURL(join(bundle, "node", "runtime.mjs")).href);
const { load } = await import(pathToFileURL(join(bundle, "javascript", "loopedge.mjs")).href);
const ort = await importPackage(runtime, bundle);
if (ort.env.wasm) ort.env.wasm.numThreads = 1;
const model = await load(ort, bundle);
const most = model.manifest.inputs[0].max_length;

/** Draw as a linear congruential generator does, so that a failure can be repeated. */
let drawn = Number(seed);
function draw(below) {
  drawn = (drawn * 1664525 + 1013904223) % 2 ** 32;
  return Math.floor((drawn / 2 ** 32) * below);
}

function shuffled() {
  const lengths = Array.from({ length: most }, (_, i) => i + 1);
  for (let i = most - 1; i > 0; i--) {
    const j = draw(i + 1);
    [lengths[i], lengths[j]] = [lengths[j], lengths[i]];
  }
  return lengths;
}

async function round() {
  for (const length of shuffled()) {
    const { outputs } = await model.run({ input_ids: Array.from({ length }, () => draw(64)) });
    if (outputs.logits.dims[1] !== length) throw new Error(`${length} positions in, ${outputs.logits.dims[1]} out`);
  }
}

/** The heap of WASM; else what belongs to this process and no file, without what JavaScript itself holds. */
function memory() {
  globalThis.gc();
  globalThis.gc();
  if (heaps.length) return Math.max(...heaps.map((heap) => heap.buffer.byteLength));
  const anonymous = 1024 * Number(/^RssAnon:\s+(\d+)/m.exec(readFileSync("/proc/self/status", "utf8"))[1]);
  const { heapTotal, external } = process.memoryUsage();
  return anonymous - heapTotal - external;
}

await round();
const before = memory();
await round();
console.log(JSON.stringify({ lengths: most, before, grown: memory() - before }));
