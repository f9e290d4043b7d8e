// Text from a model with a cache of keys and values: docs/artifact.md of loopedge, "The generate file".

import { ARRAY_TYPES, sizeOf } from "./arrays.mjs";
import { BundleError } from "./bundle.mjs";
import { normal } from "./inputs.mjs";

const GROWTH = { node: 256, web: 64 };
/* Positions that a cache grows by. WASM copies the cache in and out at each token, so it is kept short there. */

/** One text and its cache. It is for one caller at a time. */
export class Generator {
  constructor(ort, session, { manifest, model, loops, inPlace }) {
    this._ort = ort;
    this._session = session;
    this._inPlace = inPlace;
    this._ids = manifest.inputs.find((port) => port.role === "ids");
    this._lengths = manifest.inputs.find((port) => port.role === "lengths")?.name ?? "lengths";
    this._logits = manifest.outputs.find((port) => port.role === "logits")?.name ?? "logits";
    this._slots = manifest.decoding.slots;
    this._noise = manifest.inputs.filter((port) => port.role === "noise");
    this._chosen = manifest.loops?.dynamic ? loops : null;
    this._endIds = new Set(manifest.tokenizer?.end_ids ?? []);
    this._file = model.file;
    this.context = manifest.decoding.context;
    this.loops = loops;
    this._busy = false;
    this.reset();
  }

  /** Forget the text. */
  reset() {
    this.length = 0;
    this._capacity = 0;
    this._cache = null;
    this.ended = null;
  }

  /** Put ids behind the text; return the logits of what follows, float32 (vocabulary). */
  async prefill(ids) {
    this._check(ids);
    if (this._busy) throw new BundleError("this generator is already running", "make another one: model.generator()");
    this._busy = true;
    try {
      return await this._run(ids);
    } finally {
      this._busy = false;
    }
  }

  /**
   * Put a prompt behind the text and yield the most likely ids that follow, one by one.
   *
   * `ended` says afterwards why there are no more: "end", "new_tokens" or "context". The id that was yielded last is not in the cache.
   */
  async *stream(ids, { newTokens, endIds } = {}) {
    const ends = endIds ? new Set(endIds) : this._endIds;
    if (newTokens !== undefined && !(Number.isInteger(newTokens) && newTokens >= 0)) {
      throw new BundleError(`newTokens is ${newTokens}, a whole number of at least 0 is needed`);
    }
    this.ended = null;
    let logits = await this.prefill(ids);
    for (let count = 1; newTokens === undefined || count <= newTokens; count++) {
      const id = mostLikely(logits);
      if (ends.has(id)) return void (this.ended = "end");
      yield id;
      if (count === newTokens) break;
      if (this.length >= this.context) return void (this.ended = "context");
      logits = await this.prefill([id]);
    }
    this.ended = "new_tokens";
  }

  /** Bytes of the buffers of the cache. */
  get cacheBytes() {
    return this._cache ? Object.values(this._cache).reduce((sum, tensor) => sum + tensor.data.byteLength, 0) : 0;
  }

  _check(ids) {
    if (!ids.length) throw new BundleError("the text is empty: there is nothing to go on from");
    const most = this._ids.vocabulary ?? Infinity;
    const wrong = ids.findIndex((id) => !(Number.isInteger(id) && id >= 0 && id < most));
    if (wrong >= 0) throw new BundleError(`token ${wrong + 1} is ${ids[wrong]}, the model takes ids from 0 to ${most - 1}`);
    if (this.length + ids.length > this.context) {
      const held = this.length ? ` after ${this.length} in the cache` : "";
      throw new BundleError(`the text has ${ids.length} tokens${held} and the context is ${this.context} positions`, "shorten the text");
    }
  }

  async _run(ids) {
    const { Tensor } = this._ort;
    this._makeRoom(this.length + ids.length);
    const type = ARRAY_TYPES[this._ids.dtype];
    const feeds = {
      [this._ids.name]: new Tensor(this._ids.dtype, type.from(ids, type === BigInt64Array ? BigInt : Number), [1, ids.length]),
      [this._lengths]: new Tensor("int32", Int32Array.of(this.length + ids.length), [1]),
    };
    const fetches = { [this._logits]: null };
    for (const port of this._noise) {
      const dims = port.shape.map((axis, place) => (typeof axis === "number" ? axis : place ? ids.length : 1));
      feeds[port.name] = new Tensor(port.dtype, ARRAY_TYPES[port.dtype].from({ length: sizeOf(dims) }, () => (port.deviation ?? 1) * normal()), dims);
    }
    for (const slot of this._slots) {
      feeds[slot.past ?? `past.${slot.name}`] = this._cache[slot.name];
      for (const present of presentsOf(slot)) fetches[present] = this._inPlace ? this._cache[slot.name] : null;
    }
    const outputs = await this._session.run(feeds, fetches);
    if (!this._inPlace) {
      for (const slot of this._slots) this._cache[slot.name] = outputs[presentsOf(slot).at(-1)];
    }
    const logits = outputs[this._logits].data.slice();
    if (!logits.every(Number.isFinite)) {
      this.reset();
      throw new BundleError(`${this._file} gives NaN or infinite logits; the text is forgotten`);
    }
    this.length += ids.length;
    return logits;
  }

  _makeRoom(needed) {
    if (needed <= this._capacity) return;
    const step = this._inPlace ? GROWTH.node : GROWTH.web;
    const capacity = Math.min(this.context, Math.ceil(needed / step) * step);
    const larger = {};
    for (const slot of this._slots) {
      const dims = this._dims(slot, capacity);
      const data = new ARRAY_TYPES[slot.dtype](sizeOf(dims));
      if (this._cache && this.length) copyPositions(this._cache[slot.name], data, dims, this.length);
      larger[slot.name] = new this._ort.Tensor(slot.dtype, data, dims);
    }
    this._cache = larger;
    this._capacity = capacity;
  }

  /** Of (loops, ..., batch, heads, positions, size) or (batch, heads, positions, size) fill in what is free. */
  _dims(slot, capacity) {
    const rank = slot.shape.length;
    return slot.shape.map((axis, place) => {
      if (typeof axis === "number") return axis;
      if (place === rank - 4) return 1;
      if (place === rank - 2) return capacity;
      if (place === 0 && (this._chosen ?? slot.loops ?? this.loops)) return this._chosen ?? slot.loops ?? this.loops;
      throw new BundleError(`slot ${slot.name} of the cache has an axis ${axis} of unknown size`);
    });
  }
}

/** Where all iterations share a slot there is one output for each of them. */
function presentsOf(slot) {
  return slot.presents ?? [`present.${slot.name}`];
}

function copyPositions(old, data, dims, used) {
  const [from, to] = [old.dims.at(-2), dims.at(-2)];
  const size = dims.at(-1);
  for (let block = 0; block < data.length / (to * size); block++) {
    data.set(old.data.subarray(block * from * size, (block * from + used) * size), block * to * size);
  }
}

/** Return the first of the largest. */
export function mostLikely(logits) {
  let best = 0;
  for (let id = 1; id < logits.length; id++) if (logits[id] > logits[best]) best = id;
  return best;
}
