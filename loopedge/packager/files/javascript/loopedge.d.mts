// Types of loopedge.mjs. They need no other package: `ort` is whatever has the shape of onnxruntime-web or onnxruntime-node.

export type Dtype = "float32" | "float64" | "float16" | "int64" | "int32" | "int8" | "uint8" | "bool";
export type TypedArray =
  | Float32Array
  | Float64Array
  | BigInt64Array
  | Int32Array
  | Int8Array
  | Uint8Array
  | Uint16Array;

/** The part of ONNX Runtime that the loader uses. */
export interface Ort {
  readonly InferenceSession: {
    create(path: string, options?: any): Promise<any>;
    create(bytes: Uint8Array, options?: any): Promise<any>;
  };
  readonly Tensor: new (type: any, data: any, dims?: readonly number[]) => any;
  readonly env: any;
}

/** A typed array and its dimensions; a tensor of ONNX Runtime is one. */
export interface ArrayWithDims {
  readonly data: TypedArray;
  readonly dims: readonly number[];
}

type Nested = number | bigint | boolean | null | readonly Nested[];

/** What an input may be: a number, nested arrays (null: missing), a typed array, or one with dimensions. */
export type InputValue = Nested | TypedArray | ArrayWithDims;

export interface LoadOptions {
  /** "full" (default) compares sizes and SHA-256 of the manifest and of every file that is used; "size" sizes alone. */
  verify?: "full" | "size";
  /** Execution provider: "wasm" or "webgpu" in a browser, "cpu" in Node; others that the runtime has. */
  provider?: string;
  /** The id of a model in the manifest; default: the one that it names for this client and provider. */
  model?: string;
  /** The client of the manifest; default: "node" for onnxruntime-node, else "web". */
  client?: "web" | "node";
  /** Threads inside an operator. In a browser more than one needs a page that is cross-origin isolated. */
  threads?: number;
  /** The namespace of @huggingface/tokenizers, for text models whose tokenizer is not bytes. */
  tokenizers?: unknown;
}

export interface RunOptions {
  /** How often the core runs, where that can be chosen. */
  loops?: number;
  /** The relative change that ends the loop early, where the model has such an end. */
  tolerance?: number;
}

export interface RunResult {
  outputs: Record<string, ArrayWithDims>;
  /** How often the core ran; null where the bundle does not say. */
  loops: number | null;
  /** What a person should know of this run. */
  notes: string[];
}

/** A table row: a value per column, null where it is missing; the value alone where there is one column. */
export type TableRow = number | null | readonly (number | null)[] | Float32Array | Float64Array;

export interface ForecastOptions extends RunOptions {
  /** The time of the last table row, as the table writes it. */
  lastTime?: string | number;
}

export interface Interval {
  /** Percent of the values that it should hold. */
  level: number;
  /** By step and target. */
  low: number[][];
  high: number[][];
}

/** Values that follow a window; or, of a model that tells labels, `label` and `probabilities`. */
export interface Forecast {
  targets?: string[];
  /** One for each step; null where the step or the writing of the times is not known. */
  times?: string[] | null;
  /** By step and target, in raw units. */
  values?: number[][];
  intervals?: Interval[];
  label?: string;
  probabilities?: Record<string, number>;
  loops: number | null;
  notes: string[];
}

export interface GenerateOptions {
  /** Tokens at most; default: as the manifest says. */
  newTokens?: number;
  loops?: number;
  /** Called with all of the text so far. */
  onText?: (text: string) => void;
  /** Ends the text when it is aborted. */
  signal?: AbortSignal;
}

export interface Generated {
  text: string;
  ids: number[];
  ended: "end" | "new_tokens" | "context" | "stopped";
  notes: string[];
}

/** One text and its cache, for one caller at a time. */
export class Generator {
  readonly context: number;
  readonly length: number;
  readonly loops: number | null;
  readonly cacheBytes: number;
  readonly notes: string[];
  /** Why the last stream ended. */
  ended: "end" | "new_tokens" | "context" | null;
  reset(): void;
  /** Put ids behind the text; returns the logits of what follows. */
  prefill(ids: readonly number[]): Promise<Float32Array>;
  /** Put a prompt behind the text and yield the most likely ids that follow. */
  stream(ids: readonly number[], options?: { newTokens?: number; endIds?: readonly number[] }): AsyncGenerator<number, void>;
}

export interface Tokenizer {
  encode(text: string): number[];
  decode(ids: readonly number[]): string;
}

/** The files of a bundle. */
export class Bundle {
  readonly manifest: Manifest;
  readonly verify: "full" | "size";
  /** The bytes of a file, compared with the manifest. */
  bytes(path: string): Promise<Uint8Array>;
  check(path: string): Promise<void>;
  checkAll(): Promise<void>;
  diskPath(path: string): string | null;
  address(path: string): string;
}

/** A model of a bundle, opened. */
export class Model {
  readonly bundle: Bundle;
  readonly manifest: Manifest;
  readonly model: ModelEntry;
  readonly session: any;
  readonly provider: string;
  readonly client: "web" | "node";
  readonly runtime: { name: string; client: "web" | "node"; version: string };
  /** Seconds that the session took to open. */
  readonly loadSeconds: number;
  readonly table: {
    targets: string[];
    columns: string[];
    context: number;
    leastContext: number;
    horizon: number;
    classes: string[];
    mean: number[];
  } | null;
  run(inputs: Record<string, InputValue>, options?: RunOptions): Promise<RunResult>;
  forecast(window: readonly TableRow[], options?: ForecastOptions): Promise<Forecast>;
  forecastAll(
    windows: readonly (readonly TableRow[])[],
    options?: RunOptions & { lastTimes?: readonly (string | number | undefined)[] },
  ): Promise<Forecast[]>;
  generator(options?: { loops?: number }): Generator;
  tokenizer(): Promise<Tokenizer>;
  generate(prompt: string, options?: GenerateOptions): Promise<Generated>;
  release(): Promise<void>;
}

export interface Port {
  name: string;
  role: string;
  dtype: Dtype;
  shape: (number | string)[];
  exact_length?: number | null;
  min_length?: number | null;
  max_length?: number | null;
  vocabulary?: number | null;
  deviation?: number | null;
  /** NaN and infinity pass. */
  any_value?: boolean;
}

export interface ModelEntry {
  id: string;
  file: string;
  format: "onnx" | "ort";
  form: "loop" | "unrolled" | "scan" | "tensorscatter" | null;
  opset: number | null;
  data: { location: string; file: string }[];
  config: Record<string, string>;
  memory_pattern: boolean;
  min_runtime: string | null;
  inputs?: string[];
  loops?: number | null;
  scheme: string | null;
  weight_bytes: number;
}

/** manifest.json. */
export interface Manifest {
  schema_version: number;
  loopedge: string;
  name: string;
  checksum: string;
  task: Record<string, any> | null;
  inputs: Port[];
  outputs: Port[];
  loops: { trained: number | null; range: [number, number]; default: number | null; dynamic: boolean; most: number | null } | null;
  tolerance: { default: number; least: number } | null;
  missing_values: boolean;
  tokenizer: { kind: "bytes" | "tokenizers"; file: string | null; end_ids: number[] } | null;
  decoding: { context: number; slots: Record<string, any>[]; new_tokens: number } | null;
  models: ModelEntry[];
  clients: Record<string, { model: string; providers: Record<string, string>; entry: string; runtime: string; runtime_files: string[] }>;
  engines: { engine: string; verdict: string; reason: string }[];
  vectors: { name: string; [key: string]: any }[];
  files: { path: string; bytes: number; sha256: string }[];
  notes: string[];
}

/** What is wrong, in one line; `hint` is what helps, which the message ends with. */
export class BundleError extends Error {
  readonly hint: string | null;
}

export const SCHEMA_VERSION: 1;

/** Read and check the manifest of a bundle, without opening a model. */
export function openBundle(base: string | URL, options?: { verify?: "full" | "size" }): Promise<Bundle>;

/** Open a bundle and a session of the model that this client takes. */
export function load(ort: Ort, base: string | URL, options?: LoadOptions): Promise<Model>;
