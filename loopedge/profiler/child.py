"""The measured process: numpy, onnxruntime and the standard library, so that nothing else counts.

Run as ``python -P -m loopedge.profiler.child REQUEST``; the request and all answers are one line of
JSON. After the first answer (what loading cost) it obeys commands on its standard input:
``{"runs": n}`` answers with n latencies, ``{"memory": true}`` with the memory by now, ``{"save": path}``
writes the outputs of one run as ``.npz``. It runs under any ONNX Runtime: benchmarks/reach starts it in
environments that hold nothing else.
"""

import json
import os
import sys
import time
from dataclasses import asdict
from typing import Any

from loopedge.profiler.memory import Memory, read_memory, reset_peak

__all__: list[str] = []


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

    from loopedge.session_options import open_session, session_options

    with np.load(request["inputs"], allow_pickle=False) as stored:
        inputs = {name: stored[name] for name in stored.files}
    if request["provider"] == "CUDAExecutionProvider" and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    options = session_options(request["threads"], request["memory"], model=request["model"])
    if request.get("trace"):
        options.enable_profiling = True
        options.profile_file_prefix = request["trace"]
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
