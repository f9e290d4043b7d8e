// Finds the runtime and the tokenizers' library: installed beside these files, or in the bundle.

import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";

const HERE = dirname(fileURLToPath(import.meta.url)); // Node before 20.11 has no import.meta.dirname

/** Return the namespace of a package: from where this file stands, from the bundle's runtime/, or from the working directory. */
export async function importPackage(name, bundle) {
  const folders = [HERE, join(bundle, "runtime"), process.cwd()];
  for (const folder of folders) {
    try {
      const found = createRequire(join(folder, "from.mjs")).resolve(name);
      const names = await import(pathToFileURL(found).href);
      return { ...names.default, ...names }; // of a CommonJS module the names may be those of its default alone
    } catch (error) {
      if (error.code !== "MODULE_NOT_FOUND") throw error;
    }
  }
  return null;
}

/** Return ONNX Runtime, or end the program with one line that says how to get it. */
export async function importRuntime(name, bundle) {
  const ort = await importPackage(name, bundle);
  if (!ort) fail(`${name} is not installed: run npm install --ignore-scripts in ${HERE}`);
  return ort;
}

/** End the program with one line. */
export function fail(message, status = 1) {
  process.stderr.write(`error: ${message}\n`);
  process.exit(status);
}

/** Return the options of the command line, and the folder that stands there as `bundle`; end with exit status 2 where one is wrong. */
export function readOptions(options) {
  try {
    const { values, positionals } = parseArgs({ options: { bundle: { type: "string" }, ...options }, allowPositionals: true });
    const folders = [values.bundle, ...positionals].filter((folder) => folder !== undefined);
    if (folders.length > 1) throw new Error(`one folder is taken, ${folders.length} are named`);
    return { ...values, bundle: folders[0] };
  } catch (error) {
    return fail(`${error.message.split(/\.\s/)[0]}; known are FOLDER, ${Object.keys(options).map((name) => `--${name}`).join(", ")}`, 2);
  }
}

/** Return the folder of the bundle: that above this file, or the one that was named. */
export function bundleFolder(named) {
  const folder = named ?? join(HERE, "..");
  if (!existsSync(join(folder, "manifest.json"))) fail(`${folder} is no bundle: it holds no manifest.json`);
  return folder;
}
