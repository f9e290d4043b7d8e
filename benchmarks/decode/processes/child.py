"""The measured process: loads one product and decodes on command; `benchmarks.decode.processes.process` asks."""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks.decode.processes.engines import ENGINES, Engine
from loopedge.profiler.child.process_memory import growth_since, read_memory, reset_peak


def main() -> int:
    """Load, then answer a line for every line."""
    request = json.loads(sys.argv[1])
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    try:
        engine = ENGINES[request["engine"]]()
        reset_peak()
        baseline = read_memory()
        begun = time.perf_counter()
        engine.open(request)
        answer: dict[str, Any] = {"load_seconds": time.perf_counter() - begun}
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    output.write(json.dumps(answer) + "\n")
    output.flush()
    if "error" in answer:
        return 1
    generator = np.random.default_rng(1)
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "memory":
            answer = growth_since(baseline)
        else:
            answer = _computed(engine, command, request["vocab_size"], generator)
        output.write(json.dumps(answer) + "\n")
        output.flush()
    return 0


def _computed(
    engine: Engine, command: Mapping[str, Any], vocab_size: int, generator: np.random.Generator
) -> dict[str, Any]:
    """Return what a command takes, in seconds, or where its logits were written to."""
    if command["do"] == "logits":
        ids = np.load(command["ids"])
        engine.reset()
        logits = []
        for start, end in command["chunks"]:
            logits.append(engine.append(ids[start:end]))
        np.save(command["to"], np.stack(logits))
        return {"saved": command["to"]}
    if command["do"] == "reset":
        engine.reset()
        return {}
    ids = generator.integers(0, vocab_size, command["positions"])
    if command["do"] == "prefill":
        return _timed(lambda: engine.append(ids))
    return _timed(lambda: [engine.append(ids[i : i + 1]) for i in range(len(ids))])


def _timed(work: Callable[[], Any]) -> dict[str, Any]:
    processor, wall = time.process_time(), time.perf_counter()
    work()
    return {"cpu": time.process_time() - processor, "wall": time.perf_counter() - wall}


if __name__ == "__main__":
    sys.exit(main())
