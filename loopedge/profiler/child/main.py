"""The measured process: numpy, one runtime and the standard library, so that nothing else counts.

Run as ``python -P -m loopedge.profiler.child.main REQUEST``; the request and all answers are one line of
JSON. After the first answer (what loading cost) it obeys commands on its standard input:
``{"runs": n}`` answers with n latencies, ``{"prompts": n}`` of a model that decodes with those of whole prompts, ``{"memory": true}`` with the memory by now, ``{"save": path}``
writes the outputs of one run as ``.npz``, ``{"resident": files}`` answers with the growth of resident
pages by kind of mapping, ``{"copy": bytes}`` with the seconds that the chunks of a copy took;
``{"reset_peak": true}`` and ``{"trim": true}`` do what they say. Asked to pause, it first answers when
only its runtime is there, and loads the model on the next line. It runs under any ONNX Runtime:
benchmarks/reach starts it in environments that hold nothing else.
"""

import contextlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from loopedge.options import naming_flags
from loopedge.profiler.child.answering import Answer, pin, set_up
from loopedge.profiler.child.process_memory import (
    SMAPS,
    Resident,
    growth_since,
    read_memory,
    read_resident,
    reset_peak,
)

__all__: list[str] = []

COPIES = 4


class Runtime(Protocol):
    """A model on fixed inputs; creating one imports the runtime and loads no model.

    ``assigned``: after loading, operators by execution provider, where the parent has to check them.
    """

    assigned: dict[str, dict[str, int]]

    def load(self) -> str:
        """Load the model; return what runs it."""

    def run(self) -> Any:
        """Run it once."""

    def prefill(self) -> Any:
        """Compute a whole prompt, where the model decodes."""

    def save(self, path: Path) -> None:
        """Run it once and write its outputs as ``.npz``."""

    def end_trace(self) -> str:
        """End tracing; return the path of the trace."""


def main() -> int:
    """Serve one request."""
    request = json.loads(sys.argv[1])
    answer = set_up(request.get("parent"))
    try:
        with naming_flags() if request.get("flags") else contextlib.nullcontext():
            _serve(request, answer)
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # becomes one line of the parent's error
        reason = str(error).strip().splitlines() or [type(error).__name__]
        hint = getattr(error, "hint", None)
        answer({"error": reason[0], "kind": type(error).__name__, "hint": hint})
        return 1
    return 0


def _runtime(request: dict[str, Any]) -> Runtime:
    if request.get("runtime") == "torch":
        from loopedge.profiler.child.torch_runtime import TorchRuntime

        return TorchRuntime(request)
    if request["provider"] == "CUDAExecutionProvider":
        from loopedge.profiler.child.cuda_runtime import CudaRuntime

        return CudaRuntime(request)
    if request.get("cache"):
        from loopedge.profiler.child.decode_runtime import DecodeRuntime

        return DecodeRuntime(request)
    from loopedge.profiler.child.ort_runtime import OrtRuntime

    return OrtRuntime(request)


def _serve(request: dict[str, Any], answer: Answer) -> None:
    runtime = _runtime(request)
    pin(request["threads"])
    if request.get("pause"):  # the parent looks at the device before the model is there
        answer({"ready": True})
        sys.stdin.readline()
    pages = read_resident([]) if SMAPS.exists() else None
    reset_peak()
    baseline = read_memory()
    started = time.perf_counter()
    provider = runtime.load()
    load_seconds = time.perf_counter() - started
    answer(
        {
            "load_seconds": load_seconds,
            "provider": provider,
            "assigned": runtime.assigned,
            "memory": growth_since(baseline),
            "baseline": asdict(baseline),
        }
    )
    for line in sys.stdin:
        command = json.loads(line)
        if "runs" in command:
            answer({"latencies_ms": _timed(runtime.run, command["runs"])})
        elif "prompts" in command:
            answer({"latencies_ms": _timed(runtime.prefill, command["prompts"])})
        elif command.get("save"):
            runtime.save(Path(command["save"]))
            answer({"saved": command["save"]})
        elif command.get("memory"):
            answer({"memory": growth_since(baseline)})
        elif command.get("trace"):
            answer({"trace": runtime.end_trace()})
        else:
            answer(_analyse(command, pages, request["threads"]))


def _timed(run: Callable[[], Any], runs: int) -> list[float]:
    """Return the latency of each run, in ms."""
    latencies_ms = []
    for _ in range(runs):
        started = time.perf_counter()
        run()
        latencies_ms.append((time.perf_counter() - started) * 1000)
    return latencies_ms


def _analyse(command: dict[str, Any], pages: Resident | None, threads: int) -> dict[str, Any]:
    """Obey a command that takes the memory apart, or measures the machine."""
    if "resident" in command:
        now = asdict(read_resident(command["resident"]))
        before = asdict(pages) if pages is not None else dict.fromkeys(now, 0)
        return {"resident": {name: value - before[name] for name, value in now.items()}}
    if "copy" in command:
        return {"seconds": _copy(command["copy"], command["chunk"], threads)}
    if "trim" in command:
        from loopedge.runtime.session_options import return_free_memory

        return_free_memory()
    elif "reset_peak" in command:
        reset_peak()
    else:
        raise ValueError(f"no command: {', '.join(command)}")
    return {"done": True}


def _copy(size: int, chunk: int, threads: int) -> list[float]:
    """Time the chunks of a copy of so many bytes, a part of each by every thread."""
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    source, target = np.ones((size // chunk, chunk // 8)), np.zeros((size // chunk, chunk // 8))
    seconds = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(COPIES):
            for row in range(len(source)):
                parts = zip(
                    np.array_split(source[row], threads),
                    np.array_split(target[row], threads),
                    strict=True,
                )
                started = time.perf_counter()
                list(pool.map(lambda part: np.copyto(part[1], part[0]), parts))
                seconds.append(time.perf_counter() - started)
    return seconds[len(source) :]  # the first copy touches the target's pages


if __name__ == "__main__":
    sys.exit(main())
