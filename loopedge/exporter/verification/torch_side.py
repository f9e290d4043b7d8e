"""The PyTorch side of a comparison: a module with its inputs and outputs, as a file names them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from loopedge.exporter.capture.halt import Halt
from loopedge.exporter.module.exported_module import ExampleMaker
from loopedge.exporter.verification.cases import Case
from loopedge.exporter.verification.reference import Reference
from loopedge.graph.timestep_rows import random_rows, shuffled_rows

__all__ = ["Named", "Tables", "TorchSide"]

Named = Mapping[str, Tensor]
Tables = Mapping[str, npt.NDArray[Any]]

SEED = 20410_01405 % 2**32


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchSide:
    """What a written file must agree with.

    Args:
        module: The module that the file was made from.
        make_inputs: Gives inputs for (batch, sequence, seed).
        example: The user's own inputs.
        input_names: Names of the inputs, in the order of the prelude.
        output_names: Names of the outputs, in the order of the coda.
        tables: Timestep tables as exported, without the prefix.
        loops: Iterations that run at most, and where a case names no count.
        mask: The input that says by 1 which positions are kept: outputs are compared there.
        last_outputs: Outputs that the file gives for the last position alone.
        halt: What ends the loop early, where something does.
    """

    module: nn.Module
    make_inputs: ExampleMaker
    example: tuple[Tensor, ...]
    input_names: Sequence[str]
    output_names: Sequence[str]
    tables: Tables
    loops: int
    mask: str | None = None
    last_outputs: Collection[str] = ()
    halt: Halt | None = None

    def prepare(self, case: Case, seed: int, tables: Tables) -> tuple[Named, Reference]:
        """Return the inputs of a case, and the module on them with these timestep tables."""
        inputs = self.example if case.example else self.make_inputs(case.batch, case.sequence, seed)
        named = dict(zip(self.input_names, inputs, strict=True))
        mask = None if self.mask is None else named[self.mask]
        return named, Reference(self.module, inputs, tables, mask, self.halt)

    def iterations(self, case: Case) -> int:
        """Return how many iterations a case runs at most."""
        return min(case.loops or self.loops, self.loops)

    def other_tables(self, case: Case) -> Tables:
        """Return tables unlike the module's own, random where it takes any values."""
        generator = np.random.default_rng(SEED)
        rows = random_rows(self.tables, generator)
        try:
            loops = min(self.loops, *map(len, rows.values()))
            outputs, _ = self.prepare(case, 0, rows)[1].run(loops, None)
            finite = all(np.isfinite(output).all() for output in outputs)
        except Exception:  # user code: it may take its own timestep rows alone
            finite = False
        return rows if finite else shuffled_rows(self.tables, generator)
