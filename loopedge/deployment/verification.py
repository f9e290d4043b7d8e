"""Verify a file that was made from an artifact: it computes what its source computes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnxruntime as ort

from loopedge.artifact.artifact import Artifact
from loopedge.errors import InputError, VerificationError
from loopedge.files.targets import FileSize
from loopedge.graph.agreement import largest_error, worst
from loopedge.graph.inputs import default_sequence, inputs_to_check
from loopedge.graph.offsets import OutputOffsets
from loopedge.runtime.session import Session, untrained_inputs
from loopedge.runtime.session_options import session_options

__all__ = ["Difference", "Tolerance", "compare_with_source", "described_files"]

Array = npt.NDArray[Any]

FOREIGN_SEQUENCE = 8
"""Positions that a model of another tool is checked on: how many it takes is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How far the outputs of a written file are from those of its source."""

    max_abs_error: float
    max_rel_error: float
    cases: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """What a written file may differ by.

    Args:
        relative: Largest allowed max |y - ref| / max |ref|, what the graph adds last taken off ref.
        file: What the file is called in the message.
        hint: What to do where it differs by more.
    """

    relative: float
    file: str
    hint: str | None = None


def compare_with_source(
    source: Artifact,
    written: Path,
    tolerance: Tolerance,
    *,
    longest: int,
    memory: tuple[str | None, str | None] = (None, None),
    threads: int | None,
    optimized: bool = True,
    fixed: Mapping[str, int] | None = None,
) -> Difference:
    """Compare the outputs of both files on generated inputs; their sessions live one after the other.

    Args:
        source: The artifact that the file was made from.
        written: The file.
        tolerance: What it may differ by.
        longest: Positions of the longest inputs, at most; a foreign model gets `FOREIGN_SEQUENCE`.
        memory: Memory profiles of the source and of the file; None: as each says.
        threads: Threads of ONNX Runtime.
        optimized: Let ONNX Runtime optimize both graphs. Without, both run the same kernels: integers that are rounded
            from floats, which optimizers compute a little differently, are equal then.
        fixed: Inputs of the source that the file does not take, with the only value that it computes for.

    Raises:
        VerificationError: An output differs by more.
    """
    graph = source.graph
    positions = (
        FOREIGN_SEQUENCE
        if source.metadata.foreign_inputs
        else min(default_sequence(graph), longest)
    )
    checks = inputs_to_check(graph, positions, fixed=fixed)
    feeds = [check.feeds for check in checks]
    taken = [
        {name: array for name, array in each.items() if name not in (fixed or {})} for each in feeds
    ]

    def outputs(
        path: Path, each: list[dict[str, Array]], profile: str | None
    ) -> list[dict[str, Array]]:
        if not optimized:
            return _plain_outputs(path, each, threads)
        return _outputs(path, each, profile, threads)

    expected = outputs(source.path, feeds, memory[0])
    try:
        found = outputs(written, taken, memory[1])
    except InputError as refusal:
        raise VerificationError(
            f"{tolerance.file} does not run: {refusal.message}", hint=tolerance.hint
        ) from refusal
    errors, offsets = [], OutputOffsets(graph)
    for check, want, have in zip(checks, expected, found, strict=True):
        error = worst(
            largest_error(have[name], want[name], offsets.of(name, check.feeds)) for name in want
        )
        if not error.relative <= tolerance.relative:
            raise VerificationError(
                f"{tolerance.file} differs from {source.path} ({check.name}): relative error "
                f"{error.relative:.2e}, allowed {tolerance.relative:.0e}",
                measured=error.relative,
                allowed=tolerance.relative,
                hint=tolerance.hint,
            )
        errors.append(error)
    largest = worst(errors)
    return Difference(
        max_abs_error=largest.absolute, max_rel_error=largest.relative, cases=len(checks)
    )


def described_files(staged: Iterable[Path], folder: Path) -> list[FileSize]:
    """Return path and bytes of files that come into place at the end, as results tell of them.

    Args:
        staged: The files as they stand now.
        folder: Where they come to stand.
    """
    return [FileSize(path=str(folder / file.name), bytes=file.stat().st_size) for file in staged]


def _outputs(
    path: Path, feeds: list[dict[str, Array]], memory: str | None, threads: int | None
) -> list[dict[str, Array]]:
    session = Session(path, threads=threads, memory=memory)
    with untrained_inputs():
        return [session.run(each) for each in feeds]


def _plain_outputs(
    path: Path, feeds: list[dict[str, Array]], threads: int | None
) -> list[dict[str, Array]]:
    Session(path, threads=threads)  # it loads with optimizers too, or says why not
    options = session_options(threads, optimize=False)
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return [dict(zip(names, session.run(None, each), strict=True)) for each in feeds]
