/**
 * Loads a bundle of loopedge in onnxruntime-web or onnxruntime-node.
 *
 *     import * as ort from "onnxruntime-web";              // or "onnxruntime-node"
 *     import { load } from "./javascript/loopedge.mjs";
 *
 *     const model = await load(ort, "./");                 // folder or address of the bundle
 *     const forecast = await model.forecast(rows);         // a model of tables: the last table rows, oldest first
 *     const { text } = await model.generate("The loop ");  // a model of text
 *     const { outputs } = await model.run({ inputs });     // any model
 *
 * Types: loopedge.d.mts.
 */

import { BundleError, openBundle } from "./bundle.mjs";
import { forecasts } from "./forecast.mjs";
import { Generator } from "./generation.mjs";
import { acceptInputs, chooseLoops, describedTable } from "./inputs.mjs";
import { openTokenizer } from "./tokenizer.mjs";

export { BundleError, SCHEMA_VERSION, openBundle } from "./bundle.mjs";
export { Generator } from "./generation.mjs";

const FULL_NAMES = { cpu: "CPUExecutionProvider", wasm: "CPUExecutionProvider", webgpu: "WebGpuExecutionProvider" };
const LOG_FATAL = 4; // what fails is thrown, once

/** Open a bundle and a session of the model that this client takes. */
export async function load(ort, base, options = {}) {
  const bundle = await openBundle(base, { verify: options.verify });
  const runtime = runtimeOf(ort);
  const choice = chooseModel(bundle.manifest, runtime, options);
  checkRuntime(choice.model, runtime);
  const { session, loadSeconds } = await openSession(ort, bundle, choice, options);
  return new Model({ ort, bundle, session, loadSeconds, runtime, tokenizers: options.tokenizers, ...choice });
}

/** Return which runtime a namespace is. */
export function runtimeOf(ort) {
  const versions = ort.env?.versions ?? {};
  if (versions.node) return { name: "onnxruntime-node", client: "node", version: versions.node };
  if (versions.web) return { name: "onnxruntime-web", client: "web", version: versions.web };
  throw new BundleError("load takes the namespace of ONNX Runtime first", 'import * as ort from "onnxruntime-web"');
}

/** Return the model of the manifest that a client and its execution provider take. */
export function chooseModel(manifest, runtime, options = {}) {
  const client = options.client ?? runtime.client;
  const entry = manifest.clients[client] ?? (options.model ? { model: options.model, providers: {} } : null);
  if (!entry) {
    throw new BundleError(`the bundle is for ${Object.keys(manifest.clients).join(", ")}, this is ${runtime.name}`,
      `make one: loopedge package MODEL --for ${client}`);
  }
  const provider = (options.provider ?? (runtime.client === "node" ? "cpu" : "wasm")).toLowerCase().replace("executionprovider", "");
  const id = options.model ?? entry.providers?.[provider] ?? entry.model;
  const model = manifest.models.find((each) => each.id === id);
  if (!model) throw new BundleError(`the bundle has no model ${id}; it has ${manifest.models.map((each) => each.id).join(", ")}`);
  if (provider === "webgpu" && model.form !== "unrolled") {
    throw new BundleError(`WebGPU computes no Loop, and ${model.file} is of the form ${model.form}`,
      "make the bundle with --provider webgpu, or load with provider: 'wasm'");
  }
  return { model, provider, client };
}

function checkRuntime(model, runtime) {
  const needed = model.min_runtime;
  if (!needed) return;
  const [major, minor] = needed.split(".").map(Number);
  const [found, foundMinor] = runtime.version.split(".").map(Number);
  if (found > major || (found === major && foundMinor >= minor)) return;
  throw new BundleError(`${model.file} needs ONNX Runtime ${needed}, this is ${runtime.name} ${runtime.version}`, `npm install ${runtime.name}@latest`);
}

async function openSession(ort, bundle, { model, provider }, options) {
  const settings = {
    executionProviders: [provider],
    enableMemPattern: model.memory_pattern ?? true,
    logSeverityLevel: LOG_FATAL,
    extra: { ...model.config },
  };
  if (options.threads) {
    if (ort.env?.wasm) ort.env.wasm.numThreads = options.threads;
    settings.intraOpNumThreads = options.threads;
  }
  const data = model.data ?? [];
  const onDisk = runtimeOf(ort).client === "node" && bundle.diskPath(model.file);
  if (onDisk) {
    // Weights stay mapped from the disk where they stand beside the model, under the name that it asks for.
    const folder = model.file.slice(0, model.file.lastIndexOf("/") + 1);
    for (const path of [model.file, ...data.map((each) => each.file)]) await bundle.check(path);
    const elsewhere = data.filter((each) => folder + each.location !== each.file);
    if (elsewhere.length) settings.externalData = await externalData(bundle, elsewhere);
    return opened(ort, model, onDisk, settings);
  }
  const bytes = await bundle.bytes(model.file);
  if (data.length) settings.externalData = await externalData(bundle, data);
  return opened(ort, model, bytes, settings);
}

async function externalData(bundle, data) {
  const found = [];
  for (const { location, file } of data) found.push({ path: location, data: await bundle.bytes(file) });
  return found;
}

async function opened(ort, model, source, settings) {
  const started = performance.now();
  try {
    const session = await ort.InferenceSession.create(source, settings);
    return { session, loadSeconds: (performance.now() - started) / 1000 };
  } catch (error) {
    throw new BundleError(`${model.file} cannot be opened: ${firstLine(error)}`);
  }
}

function firstLine(error) {
  return String(error?.message ?? error).split("\n")[0];
}

/** A model of a bundle, opened. */
export class Model {
  constructor({ ort, bundle, session, loadSeconds, runtime, model, provider, client, tokenizers }) {
    this.ort = ort;
    this.bundle = bundle;
    this.manifest = bundle.manifest;
    this.session = session;
    this.loadSeconds = loadSeconds;
    this.runtime = runtime;
    this.model = model;
    this.provider = provider;
    this.providerName = FULL_NAMES[provider] ?? provider;
    this.client = client;
    this._tokenizers = tokenizers;
    this._tokenizer = null;
  }

  /** What the manifest says of the windows that the model was trained on; null where it was no table. */
  get table() {
    return describedTable(this.manifest);
  }

  /**
   * Run the model on arrays: check them, fill in mask, padding, loop count and tolerance.
   *
   * Returns outputs by name as { data, dims }, the loop count that ran, and notes that a person should know.
   */
  async run(inputs, options = {}) {
    const { outputs, loops, notes } = await this._run(inputs, options);
    return { outputs, loops, notes };
  }

  /** Forecast what follows one window of table rows (rows, columns), or tell its label. */
  async forecast(window, options = {}) {
    const [found] = await this.forecastAll([window], { ...options, lastTimes: [options.lastTime] });
    return found;
  }

  /** The same of several windows of one length. */
  async forecastAll(windows, options = {}) {
    const port = this.manifest.inputs.find((each) => each.role === "values");
    if (!this.table || !port) throw new BundleError("the model was trained on no table: it forecasts none", "run it on arrays: model.run(...)");
    const width = this.table.columns.length;
    const rows = windows.map((window) => Array.from(window, (row) => (typeof row === "number" || row === null ? [row] : Array.from(row))));
    const wrong = rows.flat().find((row) => row.length !== width);
    if (wrong) throw new BundleError(`a table row has ${wrong.length} values, the model takes ${this.table.columns.join(", ")}`);
    const { arrays, outputs, loops, notes } = await this._run({ [port.name]: rows }, options);
    const output = outputs[this.manifest.outputs[0].name];
    return forecasts(this.manifest, arrays, output, options.lastTimes).map((found) => ({ ...found, loops, notes }));
  }

  async _run(inputs, options) {
    if (this.manifest.decoding) throw new BundleError(`${this.model.file} goes on from a cache`, "call model.generate or model.generator");
    const { arrays, loops, notes } = acceptInputs(this.manifest, this.model, inputs, options);
    const dtypes = Object.fromEntries(this.manifest.inputs.map((port) => [port.name, port.dtype]));
    const feeds = Object.fromEntries(
      Object.entries(arrays).map(([name, { data, dims }]) => [name, new this.ort.Tensor(dtypes[name], data, dims)]),
    );
    try {
      const outputs = await this.session.run(feeds);
      return { arrays, outputs, loops, notes };
    } catch (error) {
      throw new BundleError(`${this.model.file} failed to run: ${firstLine(error)}`);
    }
  }

  /** Return a generator of ids with a cache of its own; the session is shared. */
  generator({ loops } = {}) {
    if (!this.manifest.decoding) {
      throw new BundleError("the bundle holds no model with a cache", "loopedge to-generate model.onnx, then package that file");
    }
    const notes = [];
    const chosen = chooseLoops(this.manifest, this.model, [], {}, loops, notes);
    const found = new Generator(this.ort, this.session, {
      manifest: this.manifest, model: this.model, loops: chosen, inPlace: this.runtime.client === "node",
    });
    found.notes = notes;
    return found;
  }

  /** Return the tokenizer: encode(text) and decode(ids). */
  async tokenizer() {
    this._tokenizer ??= await openTokenizer(this.bundle, this._tokenizers);
    return this._tokenizer;
  }

  /**
   * Write on from a prompt, each token the most likely one.
   *
   * onText is called with the whole text that was written so far. Returns { text, ids, ended, notes }.
   */
  async generate(prompt, { newTokens = this.manifest.decoding?.new_tokens, loops, onText, signal } = {}) {
    const generator = this.generator({ loops });
    const tokenizer = await this.tokenizer();
    const ids = [];
    for await (const id of generator.stream(tokenizer.encode(prompt), { newTokens })) {
      ids.push(id);
      onText?.(tokenizer.decode(ids).replace(/\ufffd+$/, "")); // a character whose last bytes have not come yet
      if (signal?.aborted) break;
    }
    return { text: tokenizer.decode(ids), ids, ended: generator.ended ?? "stopped", notes: generator.notes };
  }

  /** Give the memory of the session back. */
  async release() {
    await this.session.release();
  }
}
