"""What another engine makes of a file: right, wrong, or refused; the engine runs in a process of its own."""

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.reach.kinds import Written
from loopedge.graph.agreement import TOLERANCE

__all__ = ["Answer", "answers"]

PROGRAM = Path(__file__).parent / "engines" / "compute.py"
MOST_LOST_DB = 1.0
"""Of a quantized file's signal-to-noise ratio: sums in another order move a few codes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """``refused`` is the engine's reason, or that it ended; ``error`` the largest one of a float file, relative.

    ``sqnr_db`` and ``expected_db`` are of a quantized file, against the float model: the engine's and ONNX Runtime's.
    """

    refused: str | None = None
    error: float | None = None
    sqnr_db: float | None = None
    expected_db: float | None = None

    @property
    def right(self) -> bool:
        """Whether it computed what ONNX Runtime does."""
        if self.error is not None:
            return self.error <= TOLERANCE
        return (
            self.sqnr_db is not None
            and self.expected_db is not None
            and self.sqnr_db >= self.expected_db - MOST_LOST_DB
        )

    def __str__(self) -> str:
        if self.refused is not None:
            return f"refused: {self.refused}"
        if self.error is not None:
            return f"{'right' if self.right else 'WRONG'}, {self.error:.0e}"
        return f"{'right' if self.right else 'WRONG'}, {self.sqnr_db:.1f} dB for {self.expected_db:.1f}"


def answers(engine: str, python: Path, files: Sequence[Written]) -> tuple[str, list[Answer]]:
    """Let an engine compute files, one process for all; another one where it ended.

    Args:
        engine: Of `benchmarks/reach/engines`, without ``_engine.py``.
        python: The interpreter of its environment.
        files: What `write_kind` gave.

    Returns:
        The engine's version and an answer for each file.

    Raises:
        RuntimeError: The engine does not start.
    """
    found: list[Answer] = []
    version = ""
    with tempfile.TemporaryDirectory() as folder:
        while len(found) < len(files):
            rest = files[len(found) :]
            version, lines, last = _run(engine, python, rest, Path(folder))
            found += [
                Answer(refused=line["refused"])
                if line["refused"]
                else _judge(file, Path(folder) / f"{i}.out.npz")
                for i, (file, line) in enumerate(zip(rest, lines, strict=False))
            ]
            if len(lines) < len(rest):
                found.append(Answer(refused=f"the process ended: {last}"))
    return version, found


def _run(
    engine: str, python: Path, files: Sequence[Written], folder: Path
) -> tuple[str, list[dict[str, Any]], str]:
    jobs = []
    for i, file in enumerate(files):
        np.savez(folder / f"{i}.in.npz", **file.feeds)  # type: ignore[arg-type]
        names = {"inputs": folder / f"{i}.in.npz", "outputs": folder / f"{i}.out.npz"}
        paths = {"model": str(file.path), **{key: str(path) for key, path in names.items()}}
        jobs.append({**paths, "names": list(file.expected)})
    (folder / "jobs.json").write_text(json.dumps(jobs), encoding="utf-8")
    words = [str(python), str(PROGRAM), engine, str(folder / "jobs.json")]
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    plain["RUST_BACKTRACE"] = "0"  # its reason, and no more
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=plain)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    if not lines:
        raise RuntimeError(f"{engine} does not start with {python}: {last}")
    return lines[0]["version"], lines[1:], last


def _judge(file: Written, outputs: Path) -> Answer:
    with np.load(outputs) as stored:
        given = dict(stored)
    for name, value in given.items():
        if name not in file.expected or value.shape != file.expected[name].shape:
            return Answer(refused=f"output {name} of shape {value.shape}")
    floats = [name for name, value in file.expected.items() if value.dtype.kind == "f"]
    if file.kind.quantize is None:
        return Answer(
            error=max(_relative(given[name], file.expected[name]) for name in file.expected)
        )
    one, two = (
        min(_sqnr_db(outputs[name], file.exact[name]) for name in floats)
        for outputs in (given, file.expected)
    )
    return Answer(sqnr_db=one, expected_db=two)


def _relative(given: NDArray[Any], expected: NDArray[Any]) -> float:
    difference = np.abs(given.astype(np.float64) - expected).max()
    return float(difference / (np.abs(expected).max() or 1))


def _sqnr_db(given: NDArray[Any], exact: NDArray[Any]) -> float:
    noise = float(np.square(given.astype(np.float64) - exact).sum())
    return float(10 * np.log10(np.square(exact.astype(np.float64)).sum() / max(noise, 1e-30)))
