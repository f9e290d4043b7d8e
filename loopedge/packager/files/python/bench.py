"""Measure the model on this machine and print the report that `loopedge compare` reads: the JSON of `loopedge profile`.

Run from the bundle: python python/bench.py > device.json. What cannot be measured here is null.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import loopedge_bundle
import numpy as np
import onnxruntime as ort

SCHEMA_VERSION = 3
WARM_UP, RUNS = 3, 30
KIB = 1024


def main() -> int:
    """Print the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--provider", default=loopedge_bundle.CPU)
    parser.add_argument("--model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--loops", type=int)
    asked = parser.parse_args()
    before = memory()
    try:
        manifest = loopedge_bundle.read_manifest(asked.bundle)
        loopedge_bundle.check_files(asked.bundle, manifest)
        run = measured(manifest, asked, before)
    except loopedge_bundle.BundleError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    report = {
        "schema_version": SCHEMA_VERSION,
        "client": "python",
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(manifest["loopedge"]),
        "limits": [],
        "runs": [run],
        "failures": [],
        "notes": [],
    }
    print(json.dumps(report, indent=1))
    return 0


def measured(manifest: dict[str, Any], asked: Any, before: dict[str, int]) -> dict[str, Any]:
    """Return the report of one model; its inputs are those of the first test vector."""
    started = time.perf_counter()
    bundle = loopedge_bundle.load(
        asked.bundle,
        verify="size",
        provider=asked.provider,
        model=asked.model,
        threads=asked.threads,
    )
    load_seconds = time.perf_counter() - started
    loaded = memory()
    vector = manifest["vectors"][0]
    inputs = {
        each["name"]: loopedge_bundle.read_array(asked.bundle, each) for each in vector["inputs"]
    }
    outputs = {
        each["name"]: loopedge_bundle.read_array(asked.bundle, each) for each in vector["outputs"]
    }
    if asked.loops is not None:
        inputs["loops"] = np.array(asked.loops, np.int64)
    reset_peak()
    times = []
    for _ in range(WARM_UP + max(asked.runs, 1)):
        began = time.perf_counter()
        found = bundle.run_vector(inputs, outputs)
        times.append((time.perf_counter() - began) * 1000)
    ran = memory()
    model = bundle.model
    files = {each["path"]: each["bytes"] for each in manifest["files"]}
    shape = next((each.shape for each in inputs.values() if each.ndim >= 2), None)
    expected = None if asked.loops is not None else outputs
    return {
        "name": Path(model["file"]).name,
        "path": model["file"],
        "form": model["form"],
        "runtime": "onnxruntime",
        "provider": bundle.session.get_providers()[0],
        "quantization": model["scheme"],
        "memory": "low" if model["config"].get("session.disable_prepacking") == "1" else "balanced",
        "batch": None if shape is None else shape[0],
        "sequence": None if shape is None else shape[1],
        "loops": loops_of(manifest, model, inputs),
        "threads": asked.threads,
        "processes": 1,
        "file_bytes": sum(
            files[name] for name in (model["file"], *(d["file"] for d in model["data"]))
        ),
        "weight_bytes": model["weight_bytes"],
        "latency_ms": latency(times[WARM_UP:]),
        "load_seconds": load_seconds,
        "baseline_bytes": before.get("rss"),
        "rss_load_bytes": grown(before, loaded, "rss"),
        "anon_bytes": grown(before, loaded, "anon"),
        "mapped_bytes": grown(before, loaded, "mapped"),
        "uss_bytes": grown(before, loaded, "unique"),
        "rss_peak_bytes": None
        if "rss" not in before
        else max(ran["peak"], loaded["peak"]) - before["rss"],
        "output_error": None if expected is None else error_of(expected, found),
    }


def loops_of(manifest: dict[str, Any], model: dict[str, Any], inputs: dict[str, Any]) -> int | None:
    """Return how often the core ran."""
    if "loops" in inputs:
        return int(inputs["loops"].item())
    known = model["loops"] or (manifest["loops"] or {}).get("default")
    return None if known is None else int(known)


def latency(times: list[float]) -> dict[str, Any]:
    """Return what the times of runs say, in milliseconds."""
    p50, p95, p99 = (float(value) for value in np.percentile(times, [50, 95, 99]))
    return {
        "p50": p50,
        "p95": p95,
        "p99": p99,
        "mean": float(np.mean(times)),
        "min": min(times),
        "runs": len(times),
    }


def error_of(expected: dict[str, Any], found: dict[str, Any]) -> float:
    """Return the norm of the difference to the expected outputs, in parts of their norm."""
    off = sum(
        float(np.square(found[name].astype(np.float64) - array.astype(np.float64)).sum())
        for name, array in expected.items()
    )
    norm = sum(float(np.square(array.astype(np.float64)).sum()) for array in expected.values())
    return float(np.sqrt(off / norm)) if norm else float(np.sqrt(off))


def memory() -> dict[str, int]:
    """Return what the kernel says of the memory of this process, in bytes; nothing where it has no /proc."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        lines += Path("/proc/self/smaps_rollup").read_text().splitlines()
    except OSError:
        return {}
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith(" kB")}
    return {
        "rss": kib.get("VmRSS", 0) * KIB,
        "anon": kib.get("RssAnon", 0) * KIB,
        "mapped": kib.get("RssFile", 0) * KIB,
        "unique": (kib.get("Private_Clean", 0) + kib.get("Private_Dirty", 0)) * KIB,
        "peak": kib.get("VmHWM", 0) * KIB,
    }


def reset_peak() -> None:
    """Let the kernel count the peak anew, where it can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def grown(before: dict[str, int], after: dict[str, int], key: str) -> int | None:
    """Return how many bytes a figure has grown by; None where there is none."""
    return after[key] - before[key] if key in before and key in after else None


def machine(loopedge: str) -> dict[str, Any]:
    """Return what the report says of this machine: no name of it."""
    try:
        cores = len(os.sched_getaffinity(0))
        memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        cores, memory_bytes = os.cpu_count() or 1, None
    return {
        "cpu": cpu_name(),
        "cores": cores,
        "system": f"{platform.system()} {platform.machine()}",
        "memory_bytes": memory_bytes,
        "onnxruntime": ort.__version__,
        "host": f"Python {platform.python_version()}",
        "loopedge": loopedge,
    }


def cpu_name() -> str | None:
    """Return the model of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or None
    named = [
        line.split(":", 1)[1].strip() for line in lines if line.lower().startswith("model name")
    ]
    return named[0] if named else platform.processor() or None


if __name__ == "__main__":
    sys.exit(main())
