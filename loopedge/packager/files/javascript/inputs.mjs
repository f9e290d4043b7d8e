// What the inputs of a model must be, and what is filled in, as `loopedge run` does.

import { isFloat, shapeText, sizeOf, toArray } from "./arrays.mjs";
import { BundleError } from "./bundle.mjs";

const LOOPS = { name: "loops", dtype: "int64", shape: [] };
const TABLES = new Set(["series", "series-labels"]);

/** Return the windows of a table that the model was trained on; null where it was trained on none. */
export function describedTable(manifest) {
  const task = manifest.task;
  if (!TABLES.has(task?.name)) return null;
  const targets = task.target === undefined ? task.targets ?? [] : [task.target];
  return {
    targets,
    columns: [...targets, ...(task.covariates ?? [])],
    context: task.context,
    leastContext: task.min_context || task.context,
    mean: task.mean,
    horizon: task.name === "series-labels" ? 0 : task.horizon ?? 0,
    classes: task.classes ?? [],
  };
}

/**
 * Check the inputs of a run, and fill in the mask, padding, loop count and tolerance.
 *
 * Returns arrays by name, the loop count that runs, and notes: what a person should know.
 */
export function acceptInputs(manifest, model, given, { loops, tolerance } = {}) {
  const taken = new Set(model.inputs?.length ? model.inputs : manifest.inputs.map((port) => port.name));
  const ports = manifest.inputs.filter((port) => taken.has(port.name));
  const names = ports.map((port) => port.name).join(", ");
  if (given.loops !== undefined && !taken.has("loops")) {
    const { loops: stated, ...rest } = given; // this form runs one count: another one is refused below
    [loops, given] = [loops ?? Number(toArray(stated, LOOPS).data[0]), rest];
  }
  const unknown = Object.keys(given).find((name) => !taken.has(name));
  if (unknown !== undefined) throw new BundleError(`there is no input ${unknown}; the model takes ${names}`);
  const notes = [];
  const arrays = {};
  for (const port of ports) {
    if (given[port.name] === undefined) continue;
    const array = toArray(given[port.name], port);
    checkShape(array, port);
    checkFinite(array, port, manifest);
    checkIds(array, port);
    arrays[port.name] = array;
  }
  const ran = chooseLoops(manifest, model, ports, arrays, loops, notes);
  chooseTolerance(manifest, ports, arrays, tolerance);
  fillMask(manifest, ports, arrays, notes);
  fillNoise(ports, arrays);
  const missing = ports.find((port) => !arrays[port.name]);
  if (missing) throw new BundleError(`input ${missing.name} is missing; the model takes ${names}`);
  checkSizes(ports, arrays);
  checkWindows(manifest, ports, arrays);
  for (const port of ports) checkLength(arrays[port.name], port);
  return { arrays, loops: ran, notes };
}

function checkShape({ data, dims }, port) {
  const fits = dims.length === port.shape.length && port.shape.every((axis, i) => typeof axis === "string" || axis === dims[i]);
  if (!fits) throw new BundleError(`input ${port.name} has shape ${shapeText(dims)}, the model takes ${shapeText(port.shape)}`);
  if (sizeOf(dims) !== data.length) {
    throw new BundleError(`input ${port.name} has ${data.length} values and the shape ${shapeText(dims)}`);
  }
  if (dims.includes(0)) throw new BundleError(`input ${port.name} is empty: shape ${shapeText(dims)}`);
}

function checkFinite({ data, dims }, port, manifest) {
  if (!isFloat(port.dtype) || port.any_value) return;
  const missing = manifest.missing_values && port.role === "values";
  const wrong = data.findIndex((value) => !Number.isFinite(value) && !(missing && Number.isNaN(value)));
  if (wrong < 0) return;
  const allowed = `finite numbers${missing ? " and missing values" : ""}`;
  const hint = Number.isNaN(data[wrong]) ? "fill missing values first" : null;
  throw new BundleError(`input ${port.name}: ${placeText(wrong, dims, manifest)} is ${data[wrong]}, the model takes ${allowed}`, hint);
}

function checkIds({ data, dims }, port) {
  const most = port.vocabulary;
  if (port.role !== "ids" || !most) return;
  const wrong = data.findIndex((id) => id < 0 || id >= most);
  if (wrong < 0) return;
  throw new BundleError(`input ${port.name}: ${placeText(wrong, dims)} is ${data[wrong]}, the model takes ids from 0 to ${most - 1}`);
}

/** Say where an element stands, counted from 1 as in a table. */
function placeText(index, dims, manifest) {
  if (!dims.length) return "it";
  const place = [];
  for (const size of [...dims].reverse()) {
    place.unshift(index % size);
    index = Math.floor(index / size);
  }
  const columns = (manifest && describedTable(manifest)?.columns) ?? [];
  const words = dims[0] === 1 ? [] : [`sample ${place[0] + 1}`];
  if (place.length > 1) words.push(`position ${place[1] + 1}`);
  if (place.length === 3) words.push(`column ${columns.length === dims[2] ? `'${columns[place[2]]}'` : place[2] + 1}`);
  return words.join(", ") || "sample 1";
}

/** Check a loop count against the manifest; return the one that runs. */
export function chooseLoops(manifest, model, ports, arrays, asked, notes) {
  const { loops } = manifest;
  const port = ports.find((each) => each.role === "loops");
  if (port && arrays[port.name]) {
    const stated = Number(arrays[port.name].data[0]);
    if (asked !== undefined && asked !== stated) throw new BundleError(`loops is ${asked}, the input ${port.name} says ${stated}`);
    asked = stated;
  }
  if (asked !== undefined && !(Number.isInteger(asked) && asked >= 1)) {
    throw new BundleError(`loops is ${asked}, a whole number of at least 1 is needed`);
  }
  const fixed = model.loops ?? (loops?.dynamic ? null : loops?.default ?? loops?.trained ?? null);
  if (!port && !(loops?.dynamic && manifest.decoding && fixed === null)) {
    if (asked !== undefined && asked !== fixed) {
      throw new BundleError(`${model.file} runs ${fixed ?? "a fixed number of"} loops, ${asked} were asked for`,
        "export the model with --dynamic-loops");
    }
    return fixed;
  }
  const chosen = asked ?? loops?.default;
  if (chosen === undefined || chosen === null) throw new BundleError("the model takes a loop count: pass loops");
  if (loops?.most && chosen > loops.most) throw new BundleError(`loops is ${chosen}, the model holds tables for ${loops.most}`);
  if (loops && (chosen < loops.range[0] || chosen > loops.range[1])) {
    const [least, most] = loops.range;
    notes.push(`${chosen} loop${chosen > 1 ? "s" : ""} asked for, the model was trained with ${least === most ? most : `${least} to ${most}`}`);
  }
  if (port) arrays[port.name] = toArray({ data: [chosen], dims: port.shape.map(() => 1) }, port);
  return chosen;
}

function chooseTolerance(manifest, ports, arrays, asked) {
  const port = ports.find((each) => each.role === "tolerance");
  if (!port) {
    if (asked !== undefined) throw new BundleError("the model ends its loop by no tolerance: leave it out");
    return;
  }
  const chosen = asked ?? (arrays[port.name] ? arrays[port.name].data[0] : manifest.tolerance?.default);
  const least = manifest.tolerance?.least ?? 0;
  if (!(Number.isFinite(chosen) && chosen >= least)) throw new BundleError(`tolerance is ${chosen}, at least ${least} is needed`);
  arrays[port.name] = toArray({ data: [chosen], dims: port.shape.map(() => 1) }, port);
}

/** Pad windows on the left to the context and mask the padding; without a table keep every position. */
function fillMask(manifest, ports, arrays, notes) {
  const mask = ports.find((port) => port.role === "mask");
  const main = ports.find((port) => (port.role === "values" || port.role === "ids") && arrays[port.name]);
  if (!mask || !main) return;
  const array = arrays[main.name];
  const [batch, length] = array.dims;
  const table = describedTable(manifest);
  const padded = table && array.dims.length === 3 ? Math.max(table.context - length, 0) : 0;
  if (arrays[mask.name]) {
    checkMask(arrays[mask.name], mask, batch, length);
    if (padded) arrays[mask.name] = padLeft(arrays[mask.name], padded, [0n]);
  } else {
    const kept = new BigInt64Array(batch * length).fill(1n);
    arrays[mask.name] = padLeft({ data: kept, dims: [batch, length] }, padded, [0n]);
    if (padded) notes.push(`${length} positions are padded on the left to the context of ${table.context}`);
  }
  if (mask.dtype !== "int64") arrays[mask.name] = toArray({ data: Array.from(arrays[mask.name].data, Number), dims: arrays[mask.name].dims }, mask);
  if (padded) arrays[main.name] = padLeft(array, padded, table.mean);
}

function checkMask({ data, dims }, port, batch, length) {
  if (dims[0] !== batch || dims[1] !== length) {
    throw new BundleError(`input ${port.name} has shape ${shapeText(dims)}, the positions that it masks ${shapeText([batch, length])}`);
  }
  const wrong = data.findIndex((value) => Number(value) !== 0 && Number(value) !== 1);
  if (wrong >= 0) throw new BundleError(`input ${port.name}: ${placeText(wrong, dims)} is ${data[wrong]}, a mask holds 1 where a position is kept and 0 where it is not`);
}

/** Put rows before each sample's own: axis 1 grows by `count`. */
function padLeft({ data, dims }, count, row) {
  if (!count) return { data, dims };
  const [batch, length] = dims;
  const width = sizeOf(dims.slice(2));
  const padded = new data.constructor(batch * (length + count) * width);
  for (let sample = 0; sample < batch; sample++) {
    const start = sample * (length + count) * width;
    for (let i = 0; i < count * width; i++) padded[start + i] = row[i % width];
    padded.set(data.subarray(sample * length * width, (sample + 1) * length * width), start + count * width);
  }
  return { data: padded, dims: [batch, length + count, ...dims.slice(2)] };
}

/** Draw the inputs that hold noise and were left out. */
function fillNoise(ports, arrays) {
  const sizes = namedSizes(ports, arrays);
  for (const port of ports) {
    if (port.role !== "noise" || arrays[port.name] || typeof port.deviation !== "number") continue;
    const dims = port.shape.map((axis) => sizes[axis] ?? axis);
    if (dims.some((axis) => typeof axis === "string")) throw new BundleError(`input ${port.name} is missing, and no other input says its shape`);
    const drawn = Array.from({ length: sizeOf(dims) }, () => port.deviation * normal());
    arrays[port.name] = toArray({ data: drawn, dims }, port);
  }
}

/** Draw from the standard normal distribution. */
export function normal() {
  return Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
}

function namedSizes(ports, arrays) {
  const sizes = {};
  for (const port of ports) {
    port.shape.forEach((axis, i) => {
      if (typeof axis === "string" && arrays[port.name]) sizes[axis] = arrays[port.name].dims[i];
    });
  }
  return sizes;
}

function checkSizes(ports, arrays) {
  const first = {};
  for (const port of ports) {
    port.shape.forEach((axis, i) => {
      if (typeof axis !== "string") return;
      const size = arrays[port.name].dims[i];
      first[axis] ??= { size, name: port.name };
      if (first[axis].size !== size) throw new BundleError(`input ${port.name} has ${size} along ${axis}, input ${first[axis].name} has ${first[axis].size}`);
    });
  }
}

function checkLength({ dims }, port) {
  const axis = port.shape.indexOf("sequence");
  if (axis < 0) return;
  const length = dims[axis];
  const positions = `input ${port.name} has ${length} position${length === 1 ? "" : "s"}`;
  if (port.exact_length && length !== port.exact_length) throw new BundleError(`${positions}, the model takes ${port.exact_length}`);
  if (port.max_length && length > port.max_length) throw new BundleError(`${positions}, the model takes at most ${port.max_length}`);
  if (port.min_length && length < port.min_length) throw new BundleError(`${positions}, the model takes at least ${port.min_length}`);
}

/** Refuse windows of a table that training never saw. */
function checkWindows(manifest, ports, arrays) {
  const table = describedTable(manifest);
  const main = ports.find((port) => port.role === "values");
  if (!table || !main || arrays[main.name].dims.length !== 3) return;
  const [batch, length] = arrays[main.name].dims;
  const port = ports.find((each) => each.role === "mask");
  if (!port) {
    if (length >= table.context) return;
    throw new BundleError(`input ${main.name} has ${length} position${length > 1 ? "s" : ""}, the model was trained on windows of ${table.context} table rows`,
      `pass the last ${table.context} table rows`);
  }
  const mask = arrays[port.name].data;
  for (let sample = 0; sample < batch; sample++) {
    const row = Array.from(mask.subarray(sample * length, (sample + 1) * length), Number);
    if (!row.at(-1)) throw new BundleError(`input ${port.name}: sample ${sample + 1} masks its last position, the model answers at that one`, "pad windows on the left");
    const kept = row.reduce((sum, value) => sum + value, 0);
    if (kept < table.leastContext) {
      throw new BundleError(`sample ${sample + 1} has ${kept} position${kept > 1 ? "s" : ""}, the model was trained on ${table.leastContext} table rows at least`);
    }
  }
}
