"""Compare a written artifact with PyTorch in ONNX Runtime: several batches, lengths, loop counts.

An untrained stack is the identity (its gates are zero) and would hide a wrong core, so the artifact
is also run with its timestep tables replaced by seeded random rows, against PyTorch with the same
rows.
"""

import itertools
import math
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch import Tensor, nn

from loopedge.errors import LoopCountWarning, VerificationError
from loopedge.exporter.axes import Axes, resize
from loopedge.exporter.cases import Case
from loopedge.exporter.exits import Halt
from loopedge.graph.artifact import open_artifact
from loopedge.model.contract import LoopedProtocol, Tensors, as_tuple, keep_halted
from loopedge.runtime import ITERATIONS_OUTPUT, Session

__all__ = ["TOLERANCE", "Measured", "resized_examples", "verify_artifact"]

TOLERANCE = 1e-4
"""Largest allowed max |y - ref| / max |ref|."""

Array = npt.NDArray[Any]
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
        halt: What ends the loop early, where something does.
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
            named = dict(zip(input_names, inputs, strict=True))
            rows = random_tables if case.random_rows else tables
            reference = _Reference(model, inputs, rows, named.get("attention_mask"), halt)
            count = min(case.loops or loops, *(len(table) for table in rows.values()), 2**31)
            stop_below = reference.tolerance(case.stop, count) if case.stop else None
            expected, ran = reference.run(count, stop_below)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", LoopCountWarning)
                given = sessions[case.random_rows and bool(tables)].run(
                    {name: value.numpy() for name, value in named.items()},
                    loops=case.loops,
                    tolerance=stop_below,
                )
            if ran is not None and not np.array_equal(given[ITERATIONS_OUTPUT], ran):
                raise VerificationError(
                    f"the exported graph runs {given['iterations'].tolist()} iterations at ({case}), "
                    f"PyTorch {ran.tolist()}",
                    hint="run with --debug and report the model's halt",
                )
            for name, want in zip(output_names, expected, strict=True):
                absolute, relative = _compare(
                    given[name], want, named.get("attention_mask"), f"{name} ({case})"
                )
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


class _Reference:
    """The model in PyTorch with given timestep rows."""

    def __init__(
        self,
        model: nn.Module,
        inputs: tuple[Tensor, ...],
        tables: Mapping[str, Array],
        mask: Tensor | None,
        halt: Halt | None,
    ) -> None:
        self.looped = cast("LoopedProtocol", model)
        self.inputs = inputs
        self.rows = {name: torch.from_numpy(table.copy()) for name, table in tables.items()}
        self.mask = mask
        self.halt = halt

    @torch.no_grad()
    def run(self, loops: int, tolerance: float | None) -> tuple[list[Array], Array | None]:
        """Return the outputs, and with an early exit the iterations that each row ran."""
        state, context = self.looped.prelude(*self.inputs)
        done: Tensor | None = None
        ran = None
        bound = None if tolerance is None else torch.tensor(tolerance, dtype=torch.float32)
        for t in range(loops):
            previous = state
            state = keep_halted(done, previous, self._step(state, context, t))
            if self.halt is None:
                continue
            halted = self.halt(state, previous, self.mask, bound)
            done = torch.zeros_like(halted) if done is None else done
            ran = (~done).to(torch.int64) + (0 if ran is None else ran)
            done = done | halted
            if bool(done.all()):
                break
        outputs = [output.numpy() for output in as_tuple(self.looped.coda(state, context))]
        return outputs, None if ran is None else ran.numpy()

    @torch.no_grad()
    def tolerance(self, stop: str, loops: int) -> float:
        """Return a tolerance under which no row stops, or in the midst of what they change by."""
        if stop == "never" or self.halt is None:
            return 0.0
        state, context = self.looped.prelude(*self.inputs)
        changes: list[float] = []
        for t in range(loops):
            previous, state = state, self._step(state, context, t)
            moved, size = self.halt.norms(state, previous, self.mask)
            changes += (moved / size.clamp_min(1e-30)).tolist()
        ordered = sorted(changes)
        # Far from any change: rounding must not decide whether a row stops.
        wide = [
            (abs(i - len(ordered) / 2), math.sqrt(low * high))
            for i, (low, high) in enumerate(itertools.pairwise(ordered))
            if 0 < low * 1.001 < high < math.inf
        ]
        return min(wide)[1] if wide else 0.0

    def _step(self, state: Tensors, context: Tensors, t: int) -> Tensors:
        return self.looped.core(state, context, {name: row[t] for name, row in self.rows.items()})


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
