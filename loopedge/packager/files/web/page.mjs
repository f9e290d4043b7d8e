// The page of a bundle: reads the manifest, opens the model, and shows what it is for.
//
// Parameters of the address: provider=webgpu, threads=2, model=ID.

import { startRuntime } from "../javascript/bench.mjs";
import { load, openBundle } from "../javascript/loopedge.mjs";
import { prepareChecks } from "./checks.mjs";
import { showForecast } from "./forecast.mjs";
import { heapBytes, importRuntime, importTokenizers, watchHeaps } from "./runtime.mjs";
import { showText } from "./text.mjs";
import { arraysOf } from "../javascript/vectors.mjs";

export const at = (id) => document.getElementById(id);
const asked = new URLSearchParams(location.search);
const MIB = 2 ** 20;

/** What the page holds, for the console and for tests. */
export const state = { model: null, forecast: null, generated: null, problem: null, loops: undefined };
globalThis.loopedgePage = state;

/** Show what went wrong, in one line; null takes it away. */
export function showProblem(error) {
  state.problem = error ? String(error.message ?? error) : null;
  at("problem").textContent = state.problem ?? "";
  at("problem").hidden = !error;
}

/** Return bytes as people read them. */
export function sizeText(bytes) {
  return bytes < MIB ? `${(bytes / 1024).toFixed(0)} KiB` : `${(bytes / MIB).toFixed(1)} MiB`;
}

/** Show how long a run took, and what the heap holds after it. */
export function showRun(milliseconds) {
  if (milliseconds !== null) at("ms").textContent = `${milliseconds < 10 ? milliseconds.toFixed(2) : milliseconds.toFixed(0)} ms`;
  const heap = heapBytes();
  at("heap").textContent = heap === null ? "–" : sizeText(heap);
}

function about({ manifest, model }) {
  const loops = manifest.loops;
  const words = [
    { loop: "one block in a loop", unrolled: "the loop written out", scan: "one block in a loop, with a cache" }[model.form] ?? "a model",
    loops?.trained ? `trained with ${loops.trained} loops` : null,
    model.scheme ? `quantized, ${model.scheme}` : "float32",
  ];
  return words.filter(Boolean).join(" · ");
}

function prepareLoops(model, rerun) {
  const { loops } = model.manifest;
  if (!loops?.dynamic || model.model.loops) return;
  const most = loops.most ?? Math.max(loops.range[1], 2 * (loops.default ?? 1));
  const slider = at("loops");
  Object.assign(slider, { min: 1, max: most, value: loops.default ?? loops.range[1] });
  state.loops = Number(slider.value);
  const show = () => {
    state.loops = Number(slider.value);
    at("loops-value").textContent = slider.value;
    const [least, last] = loops.range;
    const inside = state.loops >= least && state.loops <= last;
    at("loops-note").textContent = `1 to ${most}; the model was trained with ${least === last ? last : `${least} to ${last}`}`;
    at("loops-note").classList.toggle("bad", !inside);
  };
  slider.addEventListener("input", () => {
    show();
    rerun();
  });
  show();
  at("loops-box").hidden = most < 2;
}

async function showPlain(model) {
  const inputs = await arraysOf(model.bundle, model.manifest.vectors[0].inputs);
  at("plain").hidden = false;
  return async () => {
    const started = performance.now();
    const { outputs } = await model.run(inputs, { loops: inputs.loops ? undefined : state.loops });
    showRun(performance.now() - started);
    at("outputs").textContent = Object.entries(outputs)
      .map(([name, { dims, data }]) => `${name} (${dims.join(", ")}): ${Array.from(data.slice(0, 6), String).join(", ")}${data.length > 6 ? ", …" : ""}`)
      .join("\n");
  };
}

/** Run again as often as something changes, one run at a time, the last one always. */
function oneAtATime(run) {
  let [running, again] = [false, false];
  return async () => {
    again = true;
    if (running) return;
    running = true;
    while (again) {
      again = false;
      try {
        await run();
        showProblem(null);
      } catch (error) {
        showProblem(error);
      }
    }
    running = false;
  };
}

async function open() {
  const base = new URL("./", document.baseURI).href;
  const bundle = await openBundle(base);
  document.title = at("name").textContent = bundle.manifest.name;
  const provider = asked.get("provider") ?? "wasm";
  watchHeaps();
  const ort = await importRuntime(bundle, provider);
  const threads = Number(asked.get("threads") ?? 1);
  ort.env.wasm.numThreads = threads;
  await startRuntime(ort);
  const tokenizers = await importTokenizers(bundle);
  const model = await load(ort, base, { provider, threads, model: asked.get("model") ?? undefined, tokenizers });
  state.model = model;
  at("about").textContent = about(model);
  at("load").textContent = `${(model.loadSeconds * 1000).toFixed(0)} ms`;
  const stated = new Map(model.manifest.files.map((file) => [file.path, file.bytes]));
  at("size").textContent = sizeText([model.model.file, ...model.model.data.map((each) => each.file)].reduce((sum, path) => sum + stated.get(path), 0));
  const where = { wasm: `WebAssembly, ${threads} thread${threads > 1 ? "s" : ""}`, webgpu: "WebGPU" }[provider] ?? provider;
  at("runtime").textContent = `${model.runtime.name} ${model.runtime.version}, ${where}; bundle of loopedge ${model.manifest.loopedge}`;
  at("figures").hidden = at("checks").hidden = false;
  const show = model.manifest.decoding ? showText : model.table ? showForecast : showPlain;
  const rerun = oneAtATime(await show(model));
  prepareLoops(model, rerun);
  prepareChecks(model, threads);
  showRun(null);
  await rerun();
  await rerun(); // a first run takes longer than those that follow
}

open().catch((error) => {
  at("about").textContent = "The model is not open.";
  showProblem(error);
}).finally(() => (document.body.dataset.ready = "yes"));
