"""What `loopedge reroll` made of a file: the loops that it found against those that the model is written with."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["RIGHT", "Outcome", "reroll"]

COMMAND = ("-m", "loopedge", "reroll")
TIMEOUT_S = 120
ERRORS = {"float16": 5e-3, "dynamic-int8": 2e-2}
"""Allowed against the source by what the file went through; other files: `ERROR`."""
ERROR = 1e-5

RIGHT = ("whole", "peeled", "unchanged")
"""Kinds of outcome that leave nothing to be wished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one file.

    ``kind``: ``whole``: the loops that the model is written with; ``peeled``: those less what was peeled;
    ``other``: other loops, rightly computed; ``unchanged``: no loop, and there is none; ``refused``: no loop,
    and there is one; ``unloadable``: ONNX Runtime cannot load the source; ``wrong``: another result; ``failed``:
    anything else. ``nodes`` and ``bytes`` are before and after, ``error`` the largest difference to the source.
    """

    file: str
    kind: str
    loops: list[int] = field(default_factory=list)
    inner: list[list[int]] = field(default_factory=list)
    peeled: list[list[int]] = field(default_factory=list)
    nodes: list[int] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)
    error: float | None = None
    seconds: float = 0.0
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values without what is empty, and without what no run repeats."""
        kept = {name: value for name, value in asdict(self).items() if value not in ([], None)}
        if self.error is not None:
            kept["error"] = float(f"{self.error:.0e}")
        return kept


def reroll(
    path: Path, loops: tuple[int, ...], references: list[Path], options: tuple[str, ...] = ()
) -> Outcome:
    """Let the command re-roll a file in a process of its own, then compute both in another one.

    Args:
        path: The file.
        loops: Iterations of the loops that its model is written with.
        references: Inputs and PyTorch's outputs, ``.npz``.
        options: More words for the command.
    """
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "rolled.onnx"
        begun = time.perf_counter()
        done = _run([*COMMAND, path, "-o", target, "--json", *options])
        seconds = round(time.perf_counter() - begun, 2)
        if done is None:
            return Outcome(file=path.stem, kind="failed", reason=f"more than {TIMEOUT_S} s")
        if done.returncode or not target.exists():
            return _without_file(path, loops, done, seconds, references)
        result = json.loads(done.stdout)
        compared = _run(["-m", "benchmarks.reroll.processes.compute", path, target, *references])
        if compared is None or compared.returncode:
            reason = "no answer" if compared is None else _last_line(compared)
            return Outcome(file=path.stem, kind="wrong", seconds=seconds, reason=reason)
        sizes = [_size(path), _size(target)]
        return _with_file(path, loops, result, json.loads(compared.stdout), sizes, seconds)


def _with_file(
    path: Path,
    loops: tuple[int, ...],
    result: Mapping[str, Any],
    compared: Mapping[str, Any],
    sizes: list[int],
    seconds: float,
) -> Outcome:
    found = [loop["iterations"] for loop in result["loops"]]
    peeled = [
        [int(bool(loop["peeled_first"])), int(bool(loop["peeled_last"]))]
        for loop in result["loops"]
    ]
    allowed = ERRORS.get(path.stem.split(".")[-1], ERROR)
    if compared["error"] > allowed:
        kind = "wrong"
    elif found == list(loops):
        kind = "whole"
    elif [count + sum(ends) for count, ends in zip(found, peeled, strict=True)] == list(loops):
        kind = "peeled"
    else:
        kind = "other"
    return Outcome(
        file=path.stem,
        kind=kind,
        loops=found,
        inner=[[one["iterations"] for one in loop["inner"]] for loop in result["loops"]]
        if any(loop["inner"] for loop in result["loops"])
        else [],
        peeled=peeled if any(map(any, peeled)) else [],
        nodes=compared["nodes"],
        bytes=sizes,
        error=compared["error"],
        seconds=seconds,
    )


def _without_file(
    path: Path,
    loops: tuple[int, ...],
    done: "subprocess.CompletedProcess[str]",
    seconds: float,
    references: list[Path],
) -> Outcome:
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    reason = lines[0].removeprefix("error: ").replace(str(path), path.name) if lines else None
    compared = _run(["-m", "benchmarks.reroll.processes.compute", path, path, *references])
    nodes = []
    if compared is not None and not compared.returncode:
        nodes = json.loads(compared.stdout)["nodes"][:1]
    if not nodes:
        kind = "unloadable"
    elif done.returncode == 2 and reason:
        kind = "refused" if loops else "unchanged"
    else:
        kind = "failed"
        reason = f"exit code {done.returncode}: {reason or _last_line(done)}"
    return Outcome(
        file=path.stem,
        kind=kind,
        nodes=nodes,
        bytes=[_size(path)],
        seconds=seconds,
        reason=reason,
    )


def _run(words: list[Any]) -> "subprocess.CompletedProcess[str] | None":
    command = [sys.executable, *map(str, words)]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return None


def _last_line(done: "subprocess.CompletedProcess[str]") -> str:
    lines = done.stderr.strip().splitlines()
    return lines[-1][:200] if lines else f"exit code {done.returncode}"


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))
