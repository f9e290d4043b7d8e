"""Compare a written artifact with PyTorch in ONNX Runtime: several batches, lengths, loop counts.

An untrained stack is the identity (its gates are zero) and would hide a wrong core, so the artifact
is also run with its timestep tables replaced by seeded random rows, against PyTorch with the same
rows.
"""

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from torch import Tensor

from loopedge.artifact.artifact import Artifact, write_scratch
from loopedge.errors import InputError, VerificationError
from loopedge.exporter.verification.cases import Case
from loopedge.exporter.verification.reference import Reference
from loopedge.exporter.verification.torch_side import Named, Tables, TorchSide
from loopedge.graph.agreement import TOLERANCE, LargestError, at_kept, largest_error, worst
from loopedge.graph.metadata import ITERATIONS_OUTPUT
from loopedge.graph.offsets import OutputOffsets
from loopedge.graph.weights import TABLE_PREFIX
from loopedge.options import option_name
from loopedge.runtime.session import Session, untrained_inputs

__all__ = ["ExportErrors", "verify_artifact"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportErrors:
    """The largest errors over all cases."""

    max_abs_error: float
    max_rel_error: float
    cases: int


def verify_artifact(
    written: Artifact,
    torch_side: TorchSide,
    cases: Sequence[Case],
    *,
    tolerance: float = TOLERANCE,
    load: Callable[[Path], Path] = Path,
) -> ExportErrors:
    """Run every case in ONNX Runtime and in PyTorch and compare.

    Args:
        written: The file, in the folder where it is made.
        torch_side: What it must agree with.
        cases: What to compare.
        tolerance: Largest allowed max |y - ref| / max |ref|, what the graph adds last taken off ref.
        load: Makes of each file the one that is loaded, in another format.

    Returns:
        The largest errors found.

    Raises:
        VerificationError: A case differs by more, or has values that are not finite elsewhere.
    """
    path, offsets = written.path, OutputOffsets(written.graph)
    errors: list[LargestError] = []
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".verify.") as folder:
        runs = {False: (torch_side.tables, _open(load(path)))}
        first = next((case for case in cases if case.random_rows), None)
        if first is not None and torch_side.tables:
            tables = torch_side.other_tables(first)
            randomised = Path(folder) / path.name
            _write_with_tables(written.fresh_graph(), randomised, tables)
            runs[True] = (tables, _open(load(randomised)))
        for seed, case in enumerate(cases):
            tables, session = runs[case.random_rows and bool(torch_side.tables)]
            named, reference = torch_side.prepare(case, seed, tables)
            count = torch_side.iterations(case)
            comparison = _Comparison(
                session=session,
                reference=reference,
                case=case,
                count=count,
                same_exits=math.isfinite(tolerance),
            )
            errors.append(comparison.run(named, torch_side, offsets))
            _check_error(errors[-1].relative, tolerance, reference, case, count)
    largest = worst(errors)
    return ExportErrors(
        max_abs_error=largest.absolute, max_rel_error=largest.relative, cases=len(cases)
    )


def _check_error(
    relative: float, tolerance: float, reference: Reference, case: Case, count: int
) -> None:
    """Refuse a relative error above the tolerance; say so where PyTorch's own rounding is as large."""
    if relative <= tolerance:
        return
    own = reference.own_error(count)
    amplified = own is not None and own > tolerance / 4
    raise VerificationError(
        f"the exported graph differs from PyTorch ({case}): "
        f"relative error {relative:.2e}, allowed {tolerance:.0e}"
        + (f"; PyTorch's own float32 is {own:.0e} from float64" if amplified else ""),
        measured=relative,
        allowed=tolerance,
        hint=f"the model amplifies rounding from loop to loop: train it, or fewer {option_name('loops')}"
        if amplified
        else "the core must compute the same in every iteration; docs/bring_your_own.md",
    )


def _open(path: Path) -> Session:
    try:
        return Session(path, threads=1)
    except InputError as error:  # not the user's file
        raise VerificationError(
            f"onnxruntime cannot load the exported graph: {_reason(error, path)}",
            hint=f"another {option_name('opset')} may decompose the operator",
        ) from error


def _reason(error: InputError, path: Path) -> str:
    """Return what onnxruntime says, without the path of a file that is gone by then."""
    text = error.message.replace(str(path), "the graph")
    return text.partition("cannot be loaded: ")[2] or text.partition("failed to run: ")[2] or text


@dataclass(frozen=True, slots=True, kw_only=True)
class _Comparison:
    """One case: a file in its session, PyTorch on the same inputs, and how often both iterate at most.

    ``same_exits``: batch rows shall stop where PyTorch's do.
    """

    session: Session
    reference: Reference
    case: Case
    count: int
    same_exits: bool

    def run(self, named: Named, torch_side: TorchSide, offsets: OutputOffsets) -> LargestError:
        """Return the largest errors of all outputs.

        Raises:
            VerificationError: The file does not run, stops elsewhere, or gives other shapes.
        """
        stop_below = self.reference.tolerance(self.case.stop, self.count)
        expected, ran = self.reference.run(self.count, stop_below)
        given = self._run_file(named, stop_below)
        if self.same_exits and ran is not None:
            self._check_exits(given[ITERATIONS_OUTPUT], ran)
        mask = None if torch_side.mask is None else named[torch_side.mask]
        feeds = {name: value.numpy() for name, value in named.items()}
        errors = []
        for name, want in zip(torch_side.output_names, expected, strict=True):
            kept = mask
            if name in torch_side.last_outputs:
                want, kept = want[:, -1:], None if mask is None else mask[:, -1:]
            offset = offsets.at_kept(name, want, feeds)
            errors.append(_compare(given[name], want, kept, f"{name} ({self.case})", offset))
        return worst(errors)

    def _check_exits(self, given: Array, expected: Array) -> None:
        if not np.array_equal(given, expected):
            raise VerificationError(
                f"the exported graph runs {given.tolist()} iterations at ({self.case}), "
                f"PyTorch {expected.tolist()}",
                hint="halt must tell by the state alone; docs/bring_your_own.md",
            )

    def _run_file(self, named: Named, stop_below: float | None) -> Mapping[str, Array]:
        with untrained_inputs():
            try:
                return self.session.run(
                    {name: value.numpy() for name, value in named.items()},
                    loops=self.case.loops,
                    tolerance=stop_below,
                )
            except InputError as error:
                raise VerificationError(
                    f"the exported graph fails to run ({self.case}): "
                    f"{_reason(error, self.session.path)}",
                    hint="the model may hold a size that PyTorch fixed; name its fixed axes with "
                    "dynamic_shapes",
                ) from error


def _compare(
    given: Array, expected: Array, mask: Tensor | None, where: str, offset: Array | None
) -> LargestError:
    if given.shape != expected.shape:
        raise VerificationError(
            f"the exported graph gives shape {given.shape} at {where}, PyTorch {expected.shape}"
        )
    kept = None if mask is None else mask.numpy()
    error = largest_error(at_kept(given, kept), at_kept(expected, kept), offset)
    if math.isinf(error.absolute):
        raise VerificationError(
            f"the exported graph gives values that are not finite at {where}, where PyTorch's are, or "
            "the other way round"
        )
    return error


def _write_with_tables(model: ir.Model, target: Path, tables: Tables) -> None:
    """Write a graph with other timestep tables, which are put into it."""
    for name, table in tables.items():
        value = model.graph.initializers.get(f"{TABLE_PREFIX}{name}")
        if value is None:
            continue  # an unused row: the core does not read it
        value.const_value = ir.tensor(table, name=value.name)
    write_scratch(model, target)
