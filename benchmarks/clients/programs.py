"""How the programs of a bundle are run: `verify` and `bench` of each client, in a process of their own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime

__all__ = ["CLIENTS", "Client", "Found", "missing_parts", "try_client"]

ROOT = Path(__file__).parents[2]
NODE_PACKAGES = ROOT / ".node-clients"
"""What make test-clients installs for Node."""
ARM64 = ROOT / ".all-clients"
"""What make test-clients-all installs: the library of ONNX Runtime for ARM64, and what an emulated processor reads."""

RUNS = 40
SECONDS = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What became of a bundle in a client.

    ``refused``: its reason; ``error``: the largest relative error of all test vectors, of a quantized model the lowest ratio
    of signal to noise, in dB; ``passed``: whether all vectors pass; ``memory_bytes``: anonymous memory after load, of WebAssembly
    its heap after the runs; ``min_ms``: the fastest inference.
    """

    refused: str | None = None
    error: float | None = None
    passed: bool = False
    memory_bytes: int | None = None
    min_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A client, and the words that start its programs; ``{bundle}`` stands for the folder.

    Args:
        title: As the table has it.
        verify: Of the program that runs the test vectors.
        bench: Of the one that measures; None: what it measures says nothing, as under emulation.
        build: Of what comes first.
        folder: Where they run.
        memory: The key of the report.
    """

    title: str
    verify: Sequence[str]
    bench: Sequence[str] | None
    build: Sequence[str] = ()
    folder: Path = ROOT
    memory: str = "anon_bytes"


def _runtime() -> Path:
    return Path(onnxruntime.__file__).parent / "capi"


def _make(out: str, library: Path, compiler: str) -> list[str]:
    settings = [f"ORT={library}", f"OUT={out}", f"CC={compiler}", "CFLAGS=-O2"]
    return ["make", "--silent", "--directory={bundle}/c", *settings]


def _node(program: str, runtime: str, *more: str) -> list[str]:
    script = f"{{bundle}}/node/{program}.mjs"
    return ["node", script, "--bundle", "{bundle}", "--runtime", runtime, *more]


def _browser(task: str, *more: str) -> list[str]:
    packages = str(NODE_PACKAGES / "node_modules")
    program = [sys.executable, "-m", "benchmarks.clients.browser", task, "{bundle}"]
    return [*program, "--packages", packages, *more]


_QEMU = ("qemu-aarch64", "-cpu", "neoverse-n1", "-L", str(ARM64 / "root"))
_RUNS = ("--runs", str(RUNS))

CLIENTS = (
    Client(
        title="Python",
        verify=(sys.executable, "{bundle}/python/verify.py", "--threads", "1"),
        bench=(sys.executable, "{bundle}/python/bench.py", "--threads", "1", *_RUNS),
    ),
    Client(
        title="C",
        build=_make("build", _runtime(), "cc"),
        verify=("{bundle}/c/build/verify", "{bundle}"),
        bench=("{bundle}/c/build/bench", "{bundle}", *_RUNS),
    ),
    Client(
        title="C, ARM64, emulated",
        build=_make("arm64", ARM64 / "arm64", "aarch64-linux-gnu-gcc"),
        verify=(*_QEMU, "{bundle}/c/arm64/verify", "{bundle}"),
        bench=None,
    ),
    Client(
        title="Node",
        verify=_node("verify", "onnxruntime-node"),
        bench=_node("bench", "onnxruntime-node", *_RUNS),
        folder=NODE_PACKAGES,
    ),
    Client(
        title="WebAssembly, in Node",
        verify=_node("verify", "onnxruntime-web"),
        bench=_node("bench", "onnxruntime-web", *_RUNS),
        folder=NODE_PACKAGES,
        memory="heap_bytes",
    ),
    Client(
        title="WebAssembly, in Chromium, two threads",
        verify=_browser("verify", "--threads", "2"),
        bench=_browser("bench", "--threads", "2"),
        memory="heap_bytes",
    ),
    Client(
        title="WebGPU in software, in Chromium",
        verify=_browser("verify", "--provider", "webgpu"),
        bench=None,
    ),
)


def missing_parts(clients: Sequence[Client]) -> list[str]:
    """Return what some clients need and is not installed, each with the command that installs it."""
    emulated = any(_QEMU[0] in client.verify for client in clients)
    tools = ["make", "cc", "node", *(["qemu-aarch64", "aarch64-linux-gnu-gcc"] if emulated else [])]
    found = [
        f"{tool} (make test-clients-all says from which package)"
        for tool in tools
        if shutil.which(tool) is None
    ]
    for folder, target in ((NODE_PACKAGES, "test-clients"), (ARM64, "test-clients-all")):
        if not folder.is_dir() and (emulated or folder != ARM64):
            found.append(f"{folder.name} (make {target})")
    return found


def try_client(client: Client, bundle: Path) -> Found:
    """Build, verify and measure; a client that does not load the model is no failure of this program."""
    if client.build:
        done = _run(client, client.build, bundle)
        if done.returncode:
            raise RuntimeError(f"{client.title}: {done.stderr}")
    done = _run(client, client.verify, bundle)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    if not lines:
        return Found(refused=(done.stderr.strip() or "no output").splitlines()[-1])
    relative = lines[0]["check"] == "relative"
    measured = [line["measured"] for line in lines]
    error = None if None in measured else (max if relative else min)(measured)
    found = Found(error=error, passed=all(line["passed"] for line in lines))
    if client.bench is None or not found.passed:
        return found
    done = _run(client, client.bench, bundle)
    if done.returncode:
        return Found(refused=done.stderr.strip().splitlines()[-1])
    run: dict[str, Any] = json.loads(done.stdout)["runs"][0]
    return Found(
        error=error,
        passed=True,
        memory_bytes=run[client.memory],
        min_ms=run["latency_ms"]["min"],
    )


def _run(client: Client, words: Sequence[str], bundle: Path) -> subprocess.CompletedProcess[str]:
    asked = [word.format(bundle=bundle) for word in words]
    folder = client.folder if client.folder.is_dir() else ROOT
    return subprocess.run(
        asked, cwd=folder, capture_output=True, text=True, check=False, timeout=SECONDS,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
