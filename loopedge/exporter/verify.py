"""Compare a written artifact with PyTorch in ONNX Runtime: several batches, lengths, loop counts.

An untrained stack is the identity (its gates are zero) and would hide a wrong core, so the artifact
is also run with its timestep tables replaced by seeded random rows, against PyTorch with the same
rows.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch import Tensor, nn

from loopedge.errors import VerificationError
from loopedge.exporter.axes import Axes, resize
from loopedge.graph.artifact import open_artifact
from loopedge.model.contract import LoopedProtocol, as_tuple
from loopedge.runtime import Session

__all__ = ["TOLERANCE", "Case", "Measured", "verify_artifact"]

TOLERANCE = 1e-4
"""Largest allowed max |y - ref| / max |ref|."""

Array = npt.NDArray[Any]
ExampleMaker = Callable[[int, int, int], tuple[Tensor, ...]]
"""(batch, sequence, seed) -> inputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One comparison: sizes, loop count, and whether the tables are random rows."""

    batch: int
    sequence: int
    loops: int | None
    random_rows: bool = False

    def __str__(self) -> str:
        loops = "" if self.loops is None else f", loops {self.loops}"
        return f"batch {self.batch}, sequence {self.sequence}{loops}" + (
            ", random timestep rows" if self.random_rows else ""
        )


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
        tolerance: Largest allowed max |y - ref| / max |ref|.
        prepare: Makes of each file the one that is loaded, in another format.

    Returns:
        The largest errors found.

    Raises:
        VerificationError: A case differs by more, or gives values that are not finite.
    """
    generator = np.random.default_rng(20410_01405 % 2**32)
    random_tables = {
        name: generator.normal(0.5, 0.25, table.shape).astype(table.dtype)
        for name, table in tables.items()
    }
    worst_abs = worst_rel = 0.0
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".verify.") as folder:
        load = prepare or Path
        sessions = {False: Session(load(path), threads=1)}
        if any(case.random_rows for case in cases) and tables:
            randomised = Path(folder) / path.name
            _write_with_tables(path, randomised, random_tables)
            sessions[True] = Session(load(randomised), threads=1)
        for seed, case in enumerate(cases):
            inputs = make_inputs(case.batch, case.sequence, seed)
            rows = random_tables if case.random_rows else tables
            count = min(case.loops or loops, *(len(table) for table in rows.values()), 2**31)
            expected = _run_torch(model, inputs, rows, count)
            given = sessions[case.random_rows and bool(tables)].run(
                {name: value.numpy() for name, value in zip(input_names, inputs, strict=True)},
                loops=case.loops,
            )
            mask = dict(zip(input_names, inputs, strict=True)).get("attention_mask")
            for name, want in zip(output_names, expected, strict=True):
                absolute, relative = _compare(given[name], want, mask, f"{name} ({case})")
                if not relative <= tolerance:
                    raise VerificationError(
                        f"the exported graph differs from PyTorch at {name} ({case}): "
                        f"relative error {relative:.2e}, allowed {tolerance:.0e}",
                        measured=relative,
                        allowed=tolerance,
                        hint="run with --debug and report the model's core",
                    )
                worst_abs, worst_rel = max(worst_abs, absolute), max(worst_rel, relative)
    return Measured(max_abs_error=worst_abs, max_rel_error=worst_rel, cases=len(cases))


def _run_torch(
    model: nn.Module, inputs: tuple[Tensor, ...], tables: Mapping[str, Array], loops: int
) -> list[Array]:
    looped = cast("LoopedProtocol", model)
    rows = {name: torch.from_numpy(table.copy()) for name, table in tables.items()}
    with torch.no_grad():
        state, context = looped.prelude(*inputs)
        for t in range(loops):
            state = looped.core(state, context, {name: table[t] for name, table in rows.items()})
        return [output.numpy() for output in as_tuple(looped.coda(state, context))]


def _compare(given: Array, expected: Array, mask: Tensor | None, where: str) -> tuple[float, float]:
    if given.shape != expected.shape:
        raise VerificationError(
            f"the exported graph gives shape {given.shape} at {where}, PyTorch {expected.shape}"
        )
    if not np.isfinite(given).all() and np.isfinite(expected).all():
        raise VerificationError(f"the exported graph gives values that are not finite at {where}")
    if mask is not None and expected.ndim >= 2 and expected.shape[:2] == tuple(mask.shape):
        kept = mask.numpy().astype(bool)
        given, expected = given[kept], expected[kept]
    if expected.size == 0:
        return 0.0, 0.0
    absolute = float(np.max(np.abs(given.astype(np.float64) - expected)))
    scale = float(np.max(np.abs(expected)))
    return absolute, absolute / scale if scale > 0 else absolute


def _write_with_tables(source: Path, target: Path, tables: Mapping[str, Array]) -> None:
    model = open_artifact(source)
    for name, table in tables.items():
        value = model.graph.initializers.get(f"timestep.{name}")
        if value is None:
            continue  # an unused row: the core does not read it
        value.const_value = ir.tensor(table, name=value.name)
    ir.save(model, target, external_data=f"{target.name}.data", size_threshold_bytes=1024)


def resized_examples(example: tuple[Tensor, ...], axes: Axes) -> ExampleMaker:
    """Make inputs of other sizes from a user's example: rows and positions repeated or cut."""

    def make(batch: int, sequence: int, seed: int) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(seed)
        made = []
        for tensor, names in zip(example, axes.inputs, strict=True):
            # Permute positions so that different seeds see different inputs of the same kind.
            shuffled = tensor
            for axis, name in names.items():
                if name == "sequence" and not _is_mask(tensor):
                    order = torch.randperm(tensor.shape[axis], generator=generator)
                    shuffled = shuffled.index_select(axis, order)
            made.append(resize(shuffled, batch, sequence, names))
        return tuple(made)

    return make


def _is_mask(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() and bool(((tensor == 0) | (tensor == 1)).all())
