// Measures a model, and writes the report that `loopedge compare` reads: docs/profiling.md of loopedge.

import { arraysOf } from "./vectors.mjs";

const SCHEMA_VERSION = 3;
const WARM_UP = 3;
const TOKEN_NOTE = "A latency is that of one token behind the prompt of the first test vector.";
const SMALLEST = "CAg6NwoQCgF4EgF5IghJZGVudGl0eRIBZ1oPCgF4EgoKCAgBEgQKAggBYg8KAXkSCgoICAESBAoCCAFCBAoAEA0=";
/* An ONNX model of one Identity node. */

/** Start the runtime, so that what is measured later is the model's alone. */
export async function startRuntime(ort) {
  const bytes = Uint8Array.from(atob(SMALLEST), (letter) => letter.charCodeAt(0));
  await (await ort.InferenceSession.create(bytes, { logSeverityLevel: 4 })).release();
}

/**
 * Run the first test vector of a model many times, and return its part of the report.
 *
 * memory: figures that the caller measured. loops: runs another loop count than the vector says.
 */
export async function benchRun(model, { runs = 30, loops, threads = null, memory = {}, onRun } = {}) {
  const { manifest } = model;
  const vector = manifest.vectors[0];
  const inputs = await arraysOf(model.bundle, vector.inputs);
  delete inputs.loops;
  const expected = await arraysOf(model.bundle, vector.outputs);
  const latencies = [];
  let result = null;
  const nextTurn = () => (manifest.decoding ? textTurn(model, inputs, loops) : async () => model.run(inputs, { loops }));
  await warmUp(nextTurn, model.runtime.client);
  for (let turn = 0; turn < runs; turn++) {
    const runOnce = await nextTurn();
    const started = performance.now();
    result = await runOnce();
    latencies.push(performance.now() - started);
    onRun?.(turn + 1, runs);
  }
  const main = Object.values(inputs)[0].dims;
  const ran = result.loops ?? manifest.loops?.default ?? null;
  const asExported = loops === undefined || loops === manifest.loops?.default;
  return {
    name: model.model.file.split("/").at(-1),
    path: model.model.file,
    runtime: model.runtime.name,
    provider: model.providerName,
    form: model.model.form,
    quantization: model.model.scheme,
    memory: model.model.config["session.disable_prepacking"] === "1" ? "low" : "balanced",
    loops: ran,
    threads,
    batch: main[0] ?? 1,
    sequence: main[1] ?? null,
    processes: 1,
    file_bytes: bytesOf(model),
    weight_bytes: model.model.weight_bytes,
    load_seconds: model.loadSeconds,
    rss_load_bytes: null,
    anon_bytes: null,
    mapped_bytes: null,
    uss_bytes: null,
    rss_peak_bytes: null,
    baseline_bytes: null,
    heap_bytes: null,
    latency_ms: summary(latencies),
    output_error: asExported ? errorNorm(expected, result.outputs) : null,
    nodes: null,
    ...memory,
  };
}

/**
 * Run a model until it is as fast as it gets.
 *
 * WASM runs unoptimized code at first, many times slower; the engine compiles it meanwhile. So it runs until the best time has
 * stood for 20 runs and a second, 20 seconds at most.
 */
async function warmUp(nextTurn, client) {
  const begun = performance.now();
  let [best, bestAt, since] = [Infinity, begun, 0];
  for (let run = 0; ; run++) {
    const runOnce = await nextTurn();
    const started = performance.now();
    await runOnce();
    const now = performance.now();
    if (now - started < 0.9 * best) [best, bestAt, since] = [now - started, now, 0];
    else since += 1;
    const settled = client !== "web" || (since >= 20 && now - bestAt > 1000) || now - begun > 20000;
    if (run + 1 >= WARM_UP && settled) return;
  }
}

/** One token behind the prompt: what a model with a cache is for. The prompt itself is not timed. */
async function textTurn(model, inputs, loops) {
  const generator = model.generator({ loops });
  const ids = Array.from(inputs.input_ids.data, Number);
  const logits = await generator.prefill(ids);
  const outputs = { logits: { data: logits, dims: [1, 1, logits.length] } };
  return async () => {
    await generator.prefill(ids.slice(-1));
    return { outputs, loops: generator.loops };
  };
}

/** Return the report around runs. */
export function report(model, runs, { machine, notes = [] }) {
  return {
    schema_version: SCHEMA_VERSION,
    client: model.client,
    created: new Date().toISOString().replace(/\.\d+Z$/, "+00:00"),
    machine: { onnxruntime: model.runtime.version, loopedge: model.manifest.loopedge, ...machine },
    limits: [],
    runs,
    failures: [],
    notes: model.manifest.decoding ? [TOKEN_NOTE, ...notes] : notes,
  };
}

/** Quantiles as numpy has them: between two values they are interpolated. */
export function summary(latencies) {
  const sorted = [...latencies].sort((a, b) => a - b);
  const at = (share) => {
    const place = share * (sorted.length - 1);
    const [low, high] = [Math.floor(place), Math.ceil(place)];
    return sorted[low] + (sorted[high] - sorted[low]) * (place - low);
  };
  const mean = sorted.reduce((sum, value) => sum + value, 0) / sorted.length;
  return { p50: at(0.5), p95: at(0.95), p99: at(0.99), mean, min: sorted[0], runs: sorted.length };
}

function bytesOf(model) {
  const stated = new Map(model.manifest.files.map((file) => [file.path, file.bytes]));
  return [model.model.file, ...model.model.data.map((each) => each.file)].reduce((sum, path) => sum + stated.get(path), 0);
}

/** Norm of the difference to what should come out, in parts of its norm. */
function errorNorm(expected, outputs) {
  let signal = 0;
  let noise = 0;
  for (const [name, { data }] of Object.entries(expected)) {
    if (!outputs[name]) continue;
    for (let i = 0; i < data.length; i++) {
      signal += Number(data[i]) ** 2;
      noise += (Number(outputs[name].data[i]) - Number(data[i])) ** 2;
    }
  }
  return signal > 0 ? Math.sqrt(noise / signal) : null;
}
