"""The model as its user hands it to an exporter: token ids in, logits out."""

import copy
import json
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from loopedge.model.checkpoint import load
from loopedge.model.contract import LoopedModule
from loopedge.model.transformer import LoopedTransformer

__all__ = [
    "LastPosition",
    "TableGiven",
    "Untied",
    "WhileLoop",
    "Whole",
    "calibration",
    "load_whole",
    "loop_count",
]


class Whole(nn.Module):
    """The model as it is: a Python loop, and the generator of the timestep table within."""

    def __init__(self, model: LoopedModule) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        """Map int64 (batch, sequence) to float32 (batch, sequence, vocabulary)."""
        return cast("Tensor", self.model(input_ids))


class LastPosition(Whole):
    """The same for a caller who reads the last position alone."""

    def forward(self, input_ids: Tensor) -> Tensor:
        """Map int64 (batch, sequence) to float32 (batch, 1, vocabulary)."""
        return super().forward(input_ids)[:, -1:]


class TableGiven(nn.Module):
    """The same without the generator: its table is computed before the export, as loopedge does."""

    def __init__(self, model: LoopedTransformer) -> None:
        super().__init__()
        self.model = model
        with torch.no_grad():
            self.table = {
                name: rows.clone() for name, rows in model.timestep_table(model.loops).items()
            }
        for name, rows in self.table.items():
            self.register_buffer(name.replace(".", "_"), rows)
        del model.timestep

    def forward(self, input_ids: Tensor) -> Tensor:
        """Map int64 (batch, sequence) to float32 (batch, sequence, vocabulary)."""
        state, context = self.model.prelude(input_ids)
        for t in range(self.model.loops):
            row = {name: self.get_buffer(name.replace(".", "_"))[t] for name in self.table}
            state = self.model.core(state, context, row)
        return self.model.coda(state, context)


class WhileLoop(nn.Module):
    """The same written with ``torch.while_loop``, the loop count an input."""

    def __init__(self, model: LoopedTransformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, loops: Tensor) -> Tensor:
        """Map int64 (batch, sequence) to float32 (batch, sequence, vocabulary); loops: int64 []."""
        state, context = self.model.prelude(input_ids)
        table = self.model.timestep_table(self.model.loops)
        table = {
            name: rows.clone() for name, rows in table.items()
        }  # views of one tensor are refused

        def goes_on(t: Tensor, x: Tensor, loops: Tensor) -> Tensor:
            return t < loops

        def step(t: Tensor, x: Tensor, loops: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            row = {name: rows.index_select(0, t.reshape(1))[0] for name, rows in table.items()}
            return t + 1, self.model.core(x, context, row), loops + 0

        start = torch.zeros((), dtype=torch.int64)
        _, state, _ = torch.while_loop(goes_on, step, (start, state, loops))  # type: ignore[no-untyped-call]
        return self.model.coda(state, context)


class Untied(Whole):
    """A stack of as many blocks, each with weights of its own: nothing can be stored once."""

    def __init__(self, model: LoopedTransformer) -> None:
        super().__init__(model)
        generator = torch.Generator().manual_seed(1)
        stack = [load_copy(model) for _ in range(model.loops)]
        with torch.no_grad():
            for block in stack:
                for value in block.parameters():
                    value.mul_(1 + 1e-6 * torch.randn(value.shape, generator=generator))
        self.stack = nn.ModuleList(stack)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Map int64 (batch, sequence) to float32 (batch, sequence, vocabulary)."""
        model = cast("LoopedTransformer", self.model)
        state, context = model.prelude(input_ids)
        rows = model.timestep_table(model.loops)
        for t, layers in enumerate(self.stack):
            model.core_layers = cast("nn.ModuleList", layers)
            state = model.core(state, context, {name: values[t] for name, values in rows.items()})
        return model.coda(state, context)


def load_copy(model: LoopedTransformer) -> nn.ModuleList:
    """Return a copy of the core."""
    return copy.deepcopy(model.core_layers)


def load_whole(subject: Path, kind: str = "whole") -> tuple[nn.Module, Tensor]:
    """Return a subject's model and an example of its inputs, int64 (1, sequence)."""
    model = load(subject / "model.pt")
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    kinds = {
        "whole": Whole,
        "last": LastPosition,
        "table": TableGiven,
        "while": WhileLoop,
        "untied": Untied,
    }
    return kinds[kind](model).eval(), calibration(subject)[0]


def loop_count(subject: Path) -> int:
    """Return the trained loop count."""
    return int(json.loads((subject / "shape.json").read_text(encoding="utf-8"))["loops"])


def calibration(subject: Path) -> list[Tensor]:
    """Return the calibration samples, each int64 (1, sequence)."""
    return [torch.from_numpy(sample) for sample in np.load(subject / "calibration.npy")]
