"""Runs JavaScript in Node, with the packages of make test-clients."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

__all__ = ["ask_node", "run_node"]

SECONDS = 120
OPEN = """
import {{ pathToFileURL }} from "node:url";
const from = (path) => import(pathToFileURL("{bundle}/" + path).href);
const {{ load, openBundle }} = await from("javascript/loopedge.mjs");
const {{ importPackage }} = await from("node/runtime.mjs");
const ort = await importPackage("{runtime}", "{bundle}");
if (ort.env.wasm) ort.env.wasm.numThreads = 1;
const tokenizers = await importPackage("@huggingface/tokenizers", "{bundle}");
const open = (options) => load(ort, "{bundle}", {{ tokenizers, ...options }});
const refusal = async (call) => {{
  try {{
    await call();
  }} catch (error) {{
    return error.name === "BundleError" ? error.message : String(error.stack);
  }}
  return null;
}};
const given = {given};
const answer = (value) => process.stdout.write(JSON.stringify(value, (_, each) => (typeof each === "bigint" ? Number(each) : each)));
"""


def run_node(
    packages: Path, *words: str | Path, code: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run Node where its packages are; ``code`` is a module on its standard input."""
    start = ["node", "--expose-gc", *(["--input-type=module", "-"] if code is not None else [])]
    return subprocess.run(
        [*start, *map(str, words)], input=code, capture_output=True, text=True, timeout=SECONDS,
        check=False, cwd=packages.parent, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def ask_node(
    packages: Path, bundle: Path, code: str, *, runtime: str = "onnxruntime-node", given: Any = None
) -> Any:
    """Return what a piece of code answers: ``open()`` opens the bundle, ``refusal(call)`` is the message of what is thrown.

    The code ends with ``answer(value)``.
    """
    before = OPEN.format(bundle=bundle.as_posix(), runtime=runtime, given=json.dumps(given))
    done = run_node(packages, code=f"{before}\n{code}\nprocess.exit(0);")
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)
