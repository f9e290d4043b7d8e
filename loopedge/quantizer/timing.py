"""Time the quantized model against its source: eight bits are not faster everywhere."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loopedge.graph.inputs import first_samples
from loopedge.runtime.latency import time_in_turns, time_ratios
from loopedge.runtime.session import Session

__all__ = ["session_runner", "time_against"]

SECONDS = 0.1
"""For each of the two models."""

FEWEST, MOST = 5, 150


def time_against(
    source: Path,
    quantized: Path,
    feeds: Mapping[str, npt.NDArray[Any]],
    *,
    threads: int | None = None,
) -> float:
    """Return the time of one inference of the quantized model, as a share of its source's.

    Args:
        source: The float artifact.
        quantized: The artifact to judge.
        feeds: Inputs. The first sample alone is run, where the graph says which axis holds samples.
        threads: Threads of ONNX Runtime.
    """
    sessions = [Session(path, threads=threads) for path in (source, quantized)]
    one = first_samples(feeds, sessions[0].axes, 1)
    runs = [session_runner(session, one) for session in sessions]
    warm = [max(run(2)[1], 1e-3) for run in runs]
    counts = [int(np.clip(1000 * SECONDS / ms, FEWEST, MOST)) for ms in warm]
    return time_ratios(time_in_turns(runs, counts))[1]


def session_runner(
    session: Session, feeds: Mapping[str, npt.NDArray[Any]]
) -> Callable[[int], list[float]]:
    """Return what runs a session so many times and gives the latencies in ms."""

    def run(count: int) -> list[float]:
        taken = []
        for _ in range(count):
            started = time.perf_counter()
            session.run(feeds)
            taken.append(1000 * (time.perf_counter() - started))
        return taken

    return run
