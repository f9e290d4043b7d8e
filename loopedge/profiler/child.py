"""The measured process: numpy, onnxruntime and the standard library, so that nothing else counts.

Run as ``python -P -m loopedge.profiler.child REQUEST``; the request and all answers are one line of
JSON. After the first answer (what loading cost) it obeys commands on its standard input:
``{"runs": n}`` answers with n latencies, ``{"memory": true}`` with the memory by now, ``{"save": path}``
writes the outputs of one run as ``.npz``, ``{"resident": files}`` answers with the growth of resident pages
by kind of mapping, ``{"reset_peak": true}`` and ``{"trim": true}`` do what they say, and ``{"copy": bytes}``
answers with the seconds that copies of a buffer took. It runs under any ONNX Runtime: benchmarks/reach starts it in
environments that hold nothing else.
"""

import json
import os
import sys
import time
from dataclasses import asdict
from typing import Any

from loopedge.profiler.memory import SMAPS, Memory, read_memory, read_resident, reset_peak

__all__: list[str] = []

COPIES = 8


def main() -> int:
    """Serve one request."""
    request = json.loads(sys.argv[1])
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, set(cores[-request["threads"] :]))
    try:
        _serve(request)
    except Exception as error:  # becomes one line of the parent's error
        reason = str(error).strip().splitlines() or [type(error).__name__]
        _answer({"error": reason[0], "kind": type(error).__name__})
        return 1
    return 0


def _serve(request: dict[str, Any]) -> None:
    import numpy as np
    import onnxruntime as ort

    from loopedge.session_options import open_session, return_free_memory, session_options

    with np.load(request["inputs"], allow_pickle=False) as stored:
        inputs = {name: stored[name] for name in stored.files}
    if request["provider"] == "CUDAExecutionProvider" and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    options = session_options(request["threads"], request["memory"], model=request["model"])
    if request.get("trace"):
        options.enable_profiling = True
        options.profile_file_prefix = request["trace"]
    if request.get("optimized"):
        options.optimized_model_filepath = request["optimized"]
    pages = read_resident([]) if SMAPS.exists() else None
    reset_peak()
    baseline = read_memory()
    started = time.perf_counter()
    session = open_session(request["model"], options, request["provider"], request["memory"])
    load_seconds = time.perf_counter() - started
    _answer(
        {
            "load_seconds": load_seconds,
            "provider": session.get_providers()[0],
            "memory": _growth(baseline),
            "baseline": asdict(baseline),
        }
    )
    for line in sys.stdin:
        command = json.loads(line)
        if "runs" in command:
            latencies_ms = []
            for _ in range(command["runs"]):
                started = time.perf_counter()
                session.run(None, inputs)
                latencies_ms.append((time.perf_counter() - started) * 1000)
            _answer({"latencies_ms": latencies_ms})
        elif command.get("save"):
            names = [output.name for output in session.get_outputs()]
            np.savez(command["save"], **dict(zip(names, session.run(names, inputs), strict=True)))
            _answer({"saved": command["save"]})
        elif command.get("memory"):
            _answer({"memory": _growth(baseline)})
        elif command.get("trace"):
            _answer({"trace": session.end_profiling()})
        elif command.get("resident"):
            now = asdict(read_resident(command["resident"]))
            before = asdict(pages) if pages is not None else dict.fromkeys(now, 0)
            _answer({"resident": {name: value - before[name] for name, value in now.items()}})
        elif command.get("reset_peak"):
            reset_peak()
            _answer({"reset_peak": True})
        elif command.get("trim"):
            return_free_memory()
            _answer({"trim": True})
        elif command.get("copy"):
            _answer({"seconds": _copy(command["copy"], request["threads"])})


def _copy(size: int, threads: int) -> list[float]:
    """Time copies of a buffer of so many bytes, a part of it by each thread."""
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    source, target = np.ones(size // 8), np.empty(size // 8)
    parts = list(zip(np.array_split(source, threads), np.array_split(target, threads), strict=True))
    seconds = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(COPIES):
            started = time.perf_counter()
            list(pool.map(lambda part: np.copyto(part[1], part[0]), parts))
            seconds.append(time.perf_counter() - started)
    return seconds[1:]  # the first touches the target's pages


def _growth(baseline: Memory) -> dict[str, int]:
    """Return the bytes on top of the process with the runtime imported and nothing loaded."""
    now, before = asdict(read_memory()), asdict(baseline)
    before["peak_bytes"] = before["rss_bytes"]
    return {name: value - before[name] for name, value in now.items()}


def _answer(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
