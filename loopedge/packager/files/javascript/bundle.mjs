// The files of a bundle: read over HTTP or from a disk, and compared with what manifest.json says of them.

import { sha256 } from "./sha256.mjs";

export const SCHEMA_VERSION = 1;
export const MANIFEST_NAME = "manifest.json";

const ZEROS = "0".repeat(64);
const IN_NODE = typeof process !== "undefined" && Boolean(process.versions?.node);

/** What is wrong, in one line, and in `hint` what helps. */
export class BundleError extends Error {
  constructor(message, hint = null) {
    super(hint ? `${message}; ${hint}` : message);
    this.name = "BundleError";
    this.hint = hint;
  }
}

/** A bundle whose manifest was read and checked. */
export class Bundle {
  constructor(manifest, reader, verify) {
    this.manifest = manifest;
    this.verify = verify;
    this._reader = reader;
    this._stated = new Map(manifest.files.map((file) => [file.path, file]));
  }

  /** Return the bytes of a file; refuse it where they are not those of the manifest. */
  async bytes(path) {
    const stated = this._statement(path);
    const bytes = await this._reader.read(path);
    await this._compare(stated, bytes.length, () => sha256(bytes));
    return bytes;
  }

  /** Check a file that something else will read, piece by piece where it lies on a disk. */
  async check(path) {
    const stated = this._statement(path);
    if (!this._reader.size) return void (await this.bytes(path));
    await this._compare(stated, await this._reader.size(path), () => this._reader.digest(path));
  }

  /** Check every file of the bundle, whether a program will use it or not. */
  async checkAll() {
    for (const path of this._stated.keys()) await this.check(path);
  }

  /** Return where a file lies on the disk; null where it comes over HTTP. */
  diskPath(path) {
    this._statement(path);
    return this._reader.diskPath?.(path) ?? null;
  }

  /** Return the address of a file, for pages. */
  address(path) {
    return this._reader.address(path);
  }

  _statement(path) {
    const stated = this._stated.get(path);
    if (!stated) throw new BundleError(`${path} is not in the files of ${MANIFEST_NAME}`, AGAIN);
    return stated;
  }

  async _compare(stated, size, digest) {
    if (size !== stated.bytes) {
      throw new BundleError(`${stated.path} has ${size} bytes, ${MANIFEST_NAME} says ${stated.bytes}`, COPY);
    }
    if (this.verify === "full" && (await digest()) !== stated.sha256) {
      throw new BundleError(`${stated.path} was changed: its SHA-256 is not that of ${MANIFEST_NAME}`, COPY);
    }
  }
}

const COPY = "copy the bundle again, all of its files";
const AGAIN = "make the bundle again: loopedge package";

/**
 * Read and check the manifest of a bundle.
 *
 * base: address or folder of the bundle. verify: "full" compares sizes and SHA-256, "size" sizes alone.
 */
export async function openBundle(base, { verify = "full" } = {}) {
  if (verify !== "full" && verify !== "size") {
    throw new BundleError(`verify is ${JSON.stringify(verify)}, "full" or "size" is needed`);
  }
  const reader = await readerOf(base);
  const bytes = await reader.read(MANIFEST_NAME);
  const text = new TextDecoder().decode(bytes);
  let manifest;
  try {
    manifest = JSON.parse(text);
  } catch {
    throw new BundleError(`${MANIFEST_NAME} holds no JSON`, COPY);
  }
  const version = manifest?.schema_version;
  if (version !== SCHEMA_VERSION) {
    throw new BundleError(
      `${MANIFEST_NAME} has schema version ${JSON.stringify(version)}, this loader reads ${SCHEMA_VERSION}`,
      "take the loader that came with the bundle",
    );
  }
  if (verify === "full") {
    const blank = text.replace(`"${manifest.checksum}"`, `"${ZEROS}"`);
    if ((await sha256(new TextEncoder().encode(blank))) !== manifest.checksum) {
      throw new BundleError(`${MANIFEST_NAME} was changed: its SHA-256 is not the one that it says`, COPY);
    }
  }
  for (const path of manifest.files.map((file) => file.path)) {
    if (/^\/|\\|(^|\/)\.\.(\/|$)/.test(path)) throw new BundleError(`${path} leaves the bundle`, AGAIN);
  }
  return new Bundle(manifest, reader, verify);
}

async function readerOf(base) {
  const text = String(base);
  if (IN_NODE && !/^https?:/.test(text)) return diskReader(text);
  const slash = text === "" || text.endsWith("/") ? text : `${text}/`;
  const root = new URL(slash, globalThis.document?.baseURI ?? globalThis.location?.href);
  const address = (path) => new URL(path.split("/").map(encodeURIComponent).join("/"), root).href;
  return { address, read: (path) => fetched(address(path), path) };
}

async function fetched(address, path) {
  let response;
  try {
    response = await fetch(address);
  } catch {
    throw new BundleError(`${path} cannot be read`, "serve the folder over HTTP: python -m http.server");
  }
  if (!response.ok) throw new BundleError(`${path} cannot be read: the server answers ${response.status}`, COPY);
  return new Uint8Array(await response.arrayBuffer());
}

async function diskReader(base) {
  const [files, { join }, { fileURLToPath, pathToFileURL }, { createHash }] = await Promise.all([
    import("node:fs"), import("node:path"), import("node:url"), import("node:crypto"),
  ]);
  const root = base.startsWith("file:") ? fileURLToPath(base) : base;
  const diskPath = (path) => join(root, ...path.split("/"));
  const tried = async (path, read) => {
    try {
      return await read(diskPath(path));
    } catch (error) {
      throw new BundleError(`${path} cannot be read in ${root}: ${error.code ?? error.message}`, COPY);
    }
  };
  return {
    diskPath,
    address: (path) => pathToFileURL(diskPath(path)).href,
    read: (path) => tried(path, (full) => files.promises.readFile(full)),
    size: (path) => tried(path, async (full) => (await files.promises.stat(full)).size),
    digest: (path) =>
      tried(path, async (full) => {
        const hash = createHash("sha256");
        for await (const part of files.createReadStream(full, { highWaterMark: 1 << 18 })) hash.update(part);
        return hash.digest("hex");
      }),
  };
}
