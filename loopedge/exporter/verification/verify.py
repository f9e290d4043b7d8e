"""Compare a written artifact with PyTorch in ONNX Runtime: several batches, lengths, loop counts.

An untrained stack is the identity (its gates are zero) and would hide a wrong core, so the artifact
is also run with its timestep tables replaced by seeded random rows, against PyTorch with the same
rows.
"""

import math
import tempfile
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch import Tensor, nn

from loopedge.artifact.artifact import open_artifact, write_scratch
from loopedge.errors import InputError, LoopCountWarning, VerificationError
from loopedge.exporter.capture.axes import Axes, resize
from loopedge.exporter.exits import Halt
from loopedge.exporter.verification.cases import Case
from loopedge.exporter.verification.reference import Reference
from loopedge.graph.agreement import TOLERANCE, LargestError, at_kept, largest_error, worst
from loopedge.graph.metadata import ITERATIONS_OUTPUT
from loopedge.graph.offsets import output_offsets
from loopedge.graph.timestep_rows import random_rows, shuffled_rows
from loopedge.graph.weights import TABLE_PREFIX
from loopedge.runtime.session import Session

__all__ = ["Measured", "resized_examples", "verify_artifact"]

Array = npt.NDArray[Any]
Named = Mapping[str, Tensor]
ExampleMaker = Callable[[int, int, int], tuple[Tensor, ...]]
"""(batch, sequence, seed) -> inputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The largest errors over all cases."""

    max_abs_error: float
    max_rel_error: float
    cases: int


def verify_artifact(
    path: Path,
    model: nn.Module,
    cases: Sequence[Case],
    make_inputs: ExampleMaker,
    *,
    input_names: Sequence[str],
    output_names: Sequence[str],
    tables: Mapping[str, Array],
    loops: int,
    mask_name: str | None = None,
    last_outputs: Collection[str] = (),
    halt: Halt | None = None,
    tolerance: float = TOLERANCE,
    prepare: Callable[[Path], Path] | None = None,
) -> Measured:
    """Run every case in ONNX Runtime and in PyTorch and compare.

    Args:
        path: The written artifact.
        model: The PyTorch module it was made from.
        cases: What to compare.
        make_inputs: Gives inputs for (batch, sequence, seed).
        input_names: Names of the inputs, in the order of the prelude.
        output_names: Names of the outputs, in the order of the coda.
        tables: Timestep tables as exported, without the prefix.
        loops: Iterations that run where a case names no count.
        mask_name: The input that says by 1 which positions are kept: outputs are compared there.
        last_outputs: Outputs that the file gives for the last position alone.
        halt: What ends the loop early, where something does.
        tolerance: Largest allowed max |y - ref| / max |ref|, what the graph adds last taken off ref.
        prepare: Makes of each file the one that is loaded, in another format.

    Returns:
        The largest errors found.

    Raises:
        VerificationError: A case differs by more, or has values that are not finite elsewhere.
    """

    def reference(case: Case, seed: int, rows: Mapping[str, Array]) -> tuple[Named, Reference]:
        inputs = make_inputs(case.batch, case.sequence, seed)
        named = dict(zip(input_names, inputs, strict=True))
        mask = None if mask_name is None else named[mask_name]
        return named, Reference(model, inputs, rows, mask, halt)

    errors: list[LargestError] = []
    offsets = output_offsets(open_artifact(path))
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".verify.") as folder:
        load = prepare or Path
        rows = {False: tables}
        sessions = {False: _open(load(path))}
        first = next((case for case in cases if case.random_rows), None)
        if first is not None and tables:
            rows[True] = _other_rows(tables, lambda made: reference(first, 0, made)[1], loops)
            randomised = Path(folder) / path.name
            _write_with_tables(path, randomised, rows[True])
            sessions[True] = _open(load(randomised))
        for seed, case in enumerate(cases):
            other = case.random_rows and bool(tables)
            named, expected = reference(case, seed, rows[other])
            count = min(case.loops or loops, *(len(table) for table in tables.values()), 2**31)
            error = _compare_case(
                sessions[other],
                expected,
                case,
                count,
                named,
                output_names,
                mask_name,
                last_outputs,
                offsets,
                same_exits=math.isfinite(tolerance),
            )
            if not error.relative <= tolerance:
                own = expected.own_error(count)
                amplified = own is not None and own > tolerance / 4
                raise VerificationError(
                    f"the exported graph differs from PyTorch ({case}): "
                    f"relative error {error.relative:.2e}, allowed {tolerance:.0e}"
                    + (f"; PyTorch's own float32 is {own:.0e} from float64" if amplified else ""),
                    measured=error.relative,
                    allowed=tolerance,
                    hint="the model amplifies rounding from loop to loop: train it, or fewer --loops"
                    if amplified
                    else "the core must compute the same in every iteration; docs/bring_your_own.md",
                )
            errors.append(error)
    largest = worst(errors)
    return Measured(
        max_abs_error=largest.absolute, max_rel_error=largest.relative, cases=len(cases)
    )


def _open(path: Path) -> Session:
    try:
        return Session(path, threads=1)
    except InputError as error:  # not the user's file
        raise VerificationError(
            f"onnxruntime cannot load the exported graph: {_reason(error, path)}",
            hint="another --opset may decompose the operator",
        ) from error


def _reason(error: InputError, path: Path) -> str:
    """Return what onnxruntime says, without the path of a file that is gone by then."""
    told = error.message.replace(str(path), "the graph")
    return told.partition("cannot be loaded: ")[2] or told.partition("failed to run: ")[2] or told


def _other_rows(
    tables: Mapping[str, Array], make: Callable[[Mapping[str, Array]], Reference], loops: int
) -> dict[str, Array]:
    """Return tables unlike the model's own, random where the model takes any values."""
    generator = np.random.default_rng(20410_01405 % 2**32)
    rows = random_rows(tables, generator)
    try:
        outputs, _ = make(rows).run(min(loops, *(len(table) for table in rows.values())), None)
        finite = all(np.isfinite(output).all() for output in outputs)
    except Exception:  # user code: it may take its own rows alone
        finite = False
    return rows if finite else shuffled_rows(tables, generator)


def _compare_case(
    session: Session,
    reference: Reference,
    case: Case,
    count: int,
    named: Named,
    output_names: Sequence[str],
    mask_name: str | None,
    last_outputs: Collection[str],
    offsets: Mapping[str, Array],
    *,
    same_exits: bool,
) -> LargestError:
    """Return the largest errors of a case; batch rows shall stop where PyTorch's do."""
    stop_below = reference.tolerance(case.stop, count)
    expected, ran = reference.run(count, stop_below)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LoopCountWarning)
        try:
            given = session.run(
                {name: value.numpy() for name, value in named.items()},
                loops=case.loops,
                tolerance=stop_below,
            )
        except InputError as error:
            raise VerificationError(
                f"the exported graph fails to run ({case}): {_reason(error, session.path)}",
                hint="the model may hold a size that PyTorch fixed; name its fixed axes with dynamic_shapes",
            ) from error
    if same_exits and ran is not None and not np.array_equal(given[ITERATIONS_OUTPUT], ran):
        raise VerificationError(
            f"the exported graph runs {given[ITERATIONS_OUTPUT].tolist()} iterations at ({case}), "
            f"PyTorch {ran.tolist()}",
            hint="halt must tell by the state alone; docs/bring_your_own.md",
        )
    mask = None if mask_name is None else named[mask_name]
    return worst(
        _compare(
            given[name],
            want[:, -1:] if name in last_outputs else want,
            mask[:, -1:] if mask is not None and name in last_outputs else mask,
            f"{name} ({case})",
            offsets.get(name),
        )
        for name, want in zip(output_names, expected, strict=True)
    )


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


def _write_with_tables(source: Path, target: Path, tables: Mapping[str, Array]) -> None:
    model = open_artifact(source)
    for name, table in tables.items():
        value = model.graph.initializers.get(f"{TABLE_PREFIX}{name}")
        if value is None:
            continue  # an unused row: the core does not read it
        value.const_value = ir.tensor(table, name=value.name)
    write_scratch(model, target)


def resized_examples(example: tuple[Tensor, ...], axes: Axes) -> ExampleMaker:
    """Make inputs of other sizes from a user's example: rows and positions repeated or cut.

    Each row gets its positions in an order of its own, so that rows and seeds differ.
    """

    def make(batch: int, sequence: int, seed: int) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(seed)
        made = []
        for tensor, names in zip(example, axes.inputs, strict=True):
            sized = resize(tensor, batch, sequence, names)
            if names.get(0) == "batch" and names.get(1) == "sequence" and not _is_mask(tensor):
                order = torch.rand(sized.shape[:2], generator=generator).argsort(dim=1)
                rows = torch.arange(sized.shape[0])[:, None]
                sized = sized[rows, order]
            made.append(sized)
        return tuple(made)

    return make


def _is_mask(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() and bool(((tensor == 0) | (tensor == 1)).all())
