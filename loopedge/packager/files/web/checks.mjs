// The buttons below the model: its test vectors, and a report for `loopedge compare`.

import { benchRun, report } from "../javascript/bench.mjs";
import { checkVectors } from "../javascript/vectors.mjs";
import { fill } from "./forecast.mjs";
import { at, showProblem, showRun, state } from "./page.mjs";
import { heapBytes } from "./runtime.mjs";

/** Prepare the buttons. */
export function prepareChecks(model, threads) {
  at("verify").addEventListener("click", () => alone(() => verify(model)));
  at("bench").addEventListener("click", () => alone(() => bench(model, threads)));
}

async function alone(work) {
  for (const id of ["verify", "bench"]) at(id).disabled = true;
  try {
    showProblem(null);
    await work();
  } catch (error) {
    showProblem(error);
  }
  for (const id of ["verify", "bench"]) at(id).disabled = false;
}

/** The files that a browser may ask for: not the programs and runtimes of other clients. */
function webFiles({ files, clients }) {
  const others = new Set(Object.entries(clients).flatMap(([name, client]) => (name === "web" ? [] : client.runtime_files ?? [])));
  return files.map((file) => file.path).filter((path) => !/^(node|c|python)\//.test(path) && !others.has(path));
}

async function verify(model) {
  const files = webFiles(model.manifest);
  at("state").textContent = "files";
  for (const path of files) await model.bundle.check(path);
  const notes = [];
  state.verified = [];
  for await (const line of checkVectors(model, { onNote: (note) => notes.push(note) })) {
    state.verified.push(line);
    at("state").textContent = line.vector;
  }
  const failed = state.verified.filter((line) => !line.passed).length;
  fill("results", ["test vector", "check", "allowed", "measured", ""], state.verified.map((line) => [
    line.vector, { relative: "relative error", sqnr: "SQNR in dB", equal: "equal" }[line.check],
    shown(line.limit), shown(line.measured), line.passed ? "passed" : "failed",
  ]));
  for (const row of at("results").tBodies[0].rows) row.lastChild.className = row.lastChild.textContent === "passed" ? "good" : "bad";
  at("state").textContent = [`${files.length} files are as the manifest says`,
    failed ? `${failed} test vectors failed` : "all test vectors passed", ...notes].join("; ");
}

function shown(value) {
  return value === null ? "–" : Math.abs(value) < 0.01 && value !== 0 ? value.toExponential(1) : String(Number(value.toPrecision(4)));
}

async function bench(model, threads) {
  at("state").textContent = "the engine compiles the model";
  const run = await benchRun(model, {
    loops: state.loops,
    threads,
    onRun: (done, all) => (at("state").textContent = `run ${done} of ${all}`),
  });
  run.heap_bytes = heapBytes();
  state.report = report(model, [run], { machine: machine() });
  const { p50, p95, min, runs } = run.latency_ms;
  fill("results", ["runs", "median", "95 %", "fastest"], [[runs, ...[p50, p95, min].map((ms) => `${shown(ms)} ms`)]]);
  showRun(p50);
  const link = at("report");
  URL.revokeObjectURL(link.href);
  link.href = URL.createObjectURL(new Blob([JSON.stringify(state.report, null, 1)], { type: "application/json" }));
  link.hidden = false;
  at("state").textContent = "loopedge compare reads it beside the workstation's profile";
}

function machine() {
  const brands = navigator.userAgentData?.brands?.find(({ brand }) => /Chrom|Edge|Opera/.test(brand));
  const named = /(Firefox|Version|Chrome)\/([\d.]+)/.exec(navigator.userAgent);
  return {
    cpu: null,
    cores: navigator.hardwareConcurrency ?? null,
    system: navigator.platform || null,
    memory_bytes: null,
    host: brands ? `${brands.brand} ${brands.version}` : named ? `${named[1] === "Version" ? "Safari" : named[1]} ${named[2]}` : null,
  };
}
