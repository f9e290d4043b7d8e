"""The measured process: numpy, one runtime and the standard library, so that nothing else counts.

It speaks as `loopedge.profiler.child.main` does. Run as ``python -P -m benchmarks.peers.child REQUEST``; the
request and all answers are one line of JSON. After the first answer (what loading cost) it obeys
commands on its standard input: ``{"runs": n}`` answers with n latencies of the first sample,
``{"memory": true}`` with the memory by now, ``{"save": path}`` writes the outputs of all samples as
``.npy``, and with ``"loops": n`` beside it for that loop count.
"""

import importlib
import json
import sys
import time
from dataclasses import asdict
from typing import Any

from loopedge.profiler.child.answering import Answer, pin, set_up
from loopedge.profiler.child.process_memory import growth_since, read_memory, reset_peak

__all__: list[str] = []


def main() -> int:
    """Serve one request."""
    request = json.loads(sys.argv[1])
    answer = set_up(request["parent"])
    try:
        _serve(request, answer)
    except Exception as error:  # becomes one line of the parent's error
        reason = str(error).strip().splitlines() or [""]
        answer({"error": f"{type(error).__name__}: {reason[0]}"})
        return 1
    return 0


def _serve(request: dict[str, Any], answer: Answer) -> None:
    import numpy as np

    runtime = importlib.import_module(f"benchmarks.peers.runtimes.{request['runtime']}_runtime")
    pin(1)
    samples = np.load(request["inputs"])  # (samples, 1, sequence)
    reset_peak()
    baseline = read_memory()
    started = time.perf_counter()
    model = runtime.Model(request["model"], **request["options"])
    load_seconds = time.perf_counter() - started
    answer(
        {
            "load_seconds": load_seconds,
            "memory": growth_since(baseline),
            "baseline": asdict(baseline),
        }
    )
    clock = time.process_time if request.get("busy") else time.perf_counter
    for line in sys.stdin:
        command = json.loads(line)
        if "runs" in command:
            latencies_ms = []
            for _ in range(command["runs"]):
                started = clock()
                model.run(samples[0])
                latencies_ms.append((clock() - started) * 1000)
            answer({"latencies_ms": latencies_ms})
        elif command.get("save"):
            if "loops" in command:
                model.set_loops(command["loops"])
            np.save(command["save"], np.stack([np.array(model.run(ids)) for ids in samples]))
            answer({"saved": command["save"]})
        elif command.get("memory"):
            answer({"memory": growth_since(baseline)})


if __name__ == "__main__":
    sys.exit(main())
