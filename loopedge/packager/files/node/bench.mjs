// Measures the model and prints the report that `loopedge compare` reads.
//
// node node/bench.mjs [FOLDER] [--runs 30] [--loops N,N] [--threads 1] [--runtime onnxruntime-node|onnxruntime-web] > device.json

import { readFileSync, writeFileSync } from "node:fs";
import os from "node:os";

import { benchRun, report, startRuntime } from "../javascript/bench.mjs";
import { load, openBundle } from "../javascript/loopedge.mjs";
import { bundleFolder, fail, importRuntime, readOptions } from "./runtime.mjs";

const asked = readOptions({
  runtime: { type: "string", default: "onnxruntime-node" },
  provider: { type: "string" },
  model: { type: "string" },
  runs: { type: "string", default: "30" },
  loops: { type: "string" },
  threads: { type: "string", default: "1" },
});
const heaps = watchHeaps();

/** Remember each WASM heap that is made. */
function watchHeaps() {
  const made = [];
  const Memory = WebAssembly.Memory;
  WebAssembly.Memory = class extends Memory {
    constructor(limits) {
      super(limits);
      made.push(this);
    }
  };
  return made;
}

/** Return what the kernel says of the memory of this process, in bytes; nothing where it has no /proc. */
function processMemory() {
  try {
    const status = readFileSync("/proc/self/status", "utf8");
    const rollup = readFileSync("/proc/self/smaps_rollup", "utf8");
    const kib = (text, key) => 1024 * Number(new RegExp(`^${key}:\\s+(\\d+)`, "m").exec(text)?.[1] ?? 0);
    return {
      rss: kib(status, "VmRSS"),
      anon: kib(status, "RssAnon"),
      mapped: kib(status, "RssFile"),
      unique: kib(rollup, "Private_Clean") + kib(rollup, "Private_Dirty"),
      peak: kib(status, "VmHWM"),
    };
  } catch {
    return null;
  }
}

function resetPeak() {
  try {
    writeFileSync("/proc/self/clear_refs", "5");
    return true;
  } catch {
    return false;
  }
}

function memoryFigures(before, loaded, after, peaks) {
  const heap = heaps.length ? Math.max(...heaps.map((memory) => memory.buffer.byteLength)) : null;
  if (!before) return { heap_bytes: heap };
  return {
    baseline_bytes: before.rss,
    rss_load_bytes: loaded.rss - before.rss,
    anon_bytes: loaded.anon - before.anon,
    mapped_bytes: loaded.mapped - before.mapped,
    uss_bytes: loaded.unique - before.unique,
    rss_peak_bytes: peaks ? after.peak - before.rss : null,
    heap_bytes: heap,
  };
}

function machine() {
  const cpu = os.cpus()[0]?.model?.trim() || null;
  return {
    cpu,
    cores: os.availableParallelism?.() ?? os.cpus().length,
    system: `${os.type()} ${os.machine?.() ?? os.arch()}`,
    memory_bytes: os.totalmem(),
    host: `node ${process.versions.node}`,
  };
}

try {
  const [runs, threads] = [Number(asked.runs), Number(asked.threads)];
  if (![runs, threads].every((count) => Number.isInteger(count) && count >= 1)) fail("--runs and --threads take whole numbers of at least 1");
  const counts = asked.loops ? asked.loops.split(",").map(Number) : [undefined];
  const folder = bundleFolder(asked.bundle);
  const ort = await importRuntime(asked.runtime, folder);
  if (ort.env.wasm) ort.env.wasm.numThreads = threads;
  await (await openBundle(folder)).checkAll(); // files are in the page cache then
  await startRuntime(ort);
  const options = { provider: asked.provider, model: asked.model, threads, verify: "size" };
  const peaks = resetPeak();
  const before = processMemory();
  const model = await load(ort, folder, options);
  const loaded = processMemory();
  const found = [];
  for (const loops of counts) {
    const run = await benchRun(model, { runs, loops, threads });
    found.push({ ...run, ...memoryFigures(before, loaded, processMemory(), peaks) });
  }
  const notes = counts.length > 1 ? ["All loop counts ran in one process: its peak and its heap are those of the counts so far."] : [];
  process.stdout.write(`${JSON.stringify(report(model, found, { machine: machine(), notes }), null, 1)}\n`);
  process.exit(0);
} catch (error) {
  fail(error.message);
}
