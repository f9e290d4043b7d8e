// Arrays as ONNX Runtime takes them: a typed array and its dimensions.

import { BundleError } from "./bundle.mjs";

export const ARRAY_TYPES = {
  float32: Float32Array,
  float64: Float64Array,
  float16: Uint16Array, // the bits
  int64: BigInt64Array,
  int32: Int32Array,
  int8: Int8Array,
  uint8: Uint8Array,
  bool: Uint8Array,
};

export const isFloat = (dtype) => dtype === "float32" || dtype === "float64";
export const sizeOf = (dims) => dims.reduce((product, size) => product * size, 1);

/** Return raw little-endian bytes of a file as an array. */
export function arrayOfBytes(bytes, { name, dtype, shape }) {
  const type = ARRAY_TYPES[dtype];
  const needed = sizeOf(shape) * type.BYTES_PER_ELEMENT;
  if (bytes.length !== needed) throw new BundleError(`the array ${name} has ${bytes.length} bytes, ${needed} are needed`);
  return { data: new type(bytes.slice().buffer), dims: [...shape] };
}

/**
 * Return what a caller passes for an input as a typed array with dimensions.
 *
 * It may be a number, nested arrays (null is a missing value), a typed array, or { data, dims } as a tensor is. One window
 * or one text may come without the axis of the batch.
 */
export function toArray(value, port) {
  if (value?.dims && value.data) return { data: typed(flat(value.data), port), dims: [...value.dims] };
  if (ArrayBuffer.isView(value)) return { data: typed(value, port), dims: dimsOfFlat(value.length, port) };
  const dims = nestedDims(value, port.name);
  const data = typed(flat(value), port);
  if (dims.length < port.shape.length && dims.length && port.shape[0] === "batch") {
    if (dims.length === port.shape.length - 2 && port.shape.at(-1) === 1) dims.push(1); // one column
    if (dims.length === port.shape.length - 1) dims.unshift(1);
  }
  return { data, dims };
}

function flat(value) {
  if (ArrayBuffer.isView(value)) return value;
  return Array.isArray(value) ? value.flat(Infinity) : [value];
}

function nestedDims(value, name) {
  if (!Array.isArray(value)) return [];
  const first = nestedDims(value[0], name);
  for (const each of value) {
    if (String(nestedDims(each, name)) !== String(first)) throw new BundleError(`input ${name}: its rows differ in length`);
  }
  return [value.length, ...first];
}

function dimsOfFlat(length, port) {
  const dims = port.shape.map((axis) => (axis === "batch" ? 1 : axis));
  const open = dims.flatMap((axis, place) => (typeof axis === "number" ? [] : [place]));
  const known = sizeOf(dims.filter((axis) => typeof axis === "number"));
  if (open.length === 1 && length % known === 0) dims[open[0]] = length / known;
  else if (open.length || known !== length) {
    throw new BundleError(`input ${port.name} has ${length} numbers, the model takes ${shapeText(port.shape)}`, SAY_DIMS);
  }
  return dims;
}

const SAY_DIMS = "pass { data, dims }";

/** Return numbers in the type of an input: a whole number stays what it is, or is refused. */
function typed(values, port) {
  const { name, dtype } = port;
  const type = ARRAY_TYPES[dtype];
  if (values instanceof type) return values;
  if (isFloat(dtype)) {
    if (values instanceof BigInt64Array) throw new BundleError(`input ${name} holds int64, the model takes ${dtype}`);
    return type.from(values, (value) => (value === null || value === undefined ? NaN : number(value, name)));
  }
  if (dtype === "float16") throw new BundleError(`input ${name}: float16 is passed as a Uint16Array of its bits`);
  if (dtype === "int64") return BigInt64Array.from(values, (value) => BigInt(whole(value, name, 2 ** 53)));
  const [least, most] = { int32: [-(2 ** 31), 2 ** 31 - 1], int8: [-128, 127], uint8: [0, 255], bool: [0, 1] }[dtype];
  return type.from(values, (value) => {
    const found = Number(whole(value, name, 2 ** 53));
    if (found < least || found > most) throw new BundleError(`input ${name} holds ${found}, the model takes ${dtype}`);
    return found;
  });
}

function number(value, name) {
  if (typeof value === "number") return value;
  throw new BundleError(`input ${name} holds ${JSON.stringify(String(value))}, numbers are needed`);
}

function whole(value, name, limit) {
  if (typeof value === "bigint") return value;
  if (typeof value === "boolean") return Number(value);
  if (Number.isInteger(value) && Math.abs(value) <= limit) return value;
  throw new BundleError(`input ${name} holds ${String(value)}, whole numbers are needed`);
}

/** Return a shape as messages write it. */
export function shapeText(shape) {
  return `(${shape.join(", ")})`;
}
