// Finds ONNX Runtime beside the page: nothing is loaded from anywhere else.

const PACKAGE = "node_modules/onnxruntime-web/dist/";
const heaps = [];

/** Remember each WASM heap from here on, so that its size can be shown. */
export function watchHeaps() {
  const Memory = WebAssembly.Memory;
  WebAssembly.Memory = class extends Memory {
    constructor(limits) {
      super(limits);
      heaps.push(this);
    }
  };
}

/** Return the size of the WASM heap in bytes; null before there is one. */
export function heapBytes() {
  return heaps.length ? Math.max(...heaps.map((memory) => memory.buffer.byteLength)) : null;
}

/** Import ONNX Runtime for a provider: from the files of the bundle, from runtime/, or from an npm package beside the page. */
export async function importRuntime(bundle, provider) {
  const kind = provider === "webgpu" ? "webgpu" : "wasm";
  const files = [`ort.${kind}.min.mjs`, `ort.${kind}.bundle.min.mjs`];
  const own = bundle.manifest.clients.web?.runtime_files ?? [];
  const places = [
    ...own.filter((path) => files.includes(path.split("/").at(-1))),
    ...files.flatMap((file) => [`runtime/${file}`, `runtime/web/${file}`, PACKAGE + file]),
  ];
  for (const place of places) {
    const address = new URL(place, document.baseURI).href;
    const answer = await fetch(address, { method: "HEAD" }).catch(() => null);
    if (answer?.ok && /javascript/.test(answer.headers.get("content-type") ?? "javascript")) return import(address);
  }
  throw new Error(
    `ONNX Runtime is missing. In the folder of this page run: npm install onnxruntime-web@1.30.0 — or copy ${filesOf(kind).join(", ")} ` +
    "from that package's dist/ into runtime/.",
  );
}

function filesOf(kind) {
  const name = kind === "webgpu" ? "ort-wasm-simd-threaded.asyncify" : "ort-wasm-simd-threaded";
  return [`ort.${kind}.min.mjs`, `${name}.mjs`, `${name}.wasm`];
}

/** Import the tokenizers' library, where the model needs it; null where it is not there. */
export async function importTokenizers(bundle) {
  if (bundle.manifest.tokenizer?.kind !== "tokenizers") return null;
  const own = bundle.manifest.clients.web?.runtime_files ?? [];
  const file = "tokenizers.min.mjs";
  const places = [...own.filter((path) => path.endsWith(file)), `runtime/${file}`, `node_modules/@huggingface/tokenizers/dist/${file}`];
  for (const place of places) {
    const address = new URL(place, document.baseURI).href;
    const answer = await fetch(address, { method: "HEAD" }).catch(() => null);
    if (answer?.ok) return import(address);
  }
  throw new Error(
    "The tokenizer's library is missing. In the folder of this page run: npm install @huggingface/tokenizers@0.2.0 — or copy " +
    `${file} from that package's dist/ into runtime/.`,
  );
}
