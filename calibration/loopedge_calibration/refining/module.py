"""The module behind a float file: opened, run as the file runs it, and compared with it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from loopedge.errors import InputError
from loopedge.exporter.module.opening import open_module
from loopedge.exporter.options import ExportOptions
from loopedge.graph.agreement import TOLERANCE, at_kept, largest_error
from loopedge.graph.inputs import input_specs
from loopedge.graph.offsets import OutputOffsets
from loopedge.model.contract import LoopedProtocol, as_tuple, keep_halted, timestep_table_of
from loopedge.model.transformer import LoopedTransformer
from loopedge.options import option_name
from loopedge.quantizer.source import FloatSource
from loopedge.runtime.inputs import MASK
from loopedge.runtime.session import Session
from loopedge_calibration.refining.trained_rounding import TrainedRounding

__all__ = ["Example", "FloatModule", "open_float_module"]

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array]

AMPLIFIED = 10 * TOLERANCE
"""Largest error of a module against its file: loops may amplify what float32 rounds."""
HALF_TOLERANCE = 0.05
"""The same where the file holds its weights in float16, which the module does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A batch of samples and what the float file gives for it; outputs are float32, in the file's order."""

    feeds: Feeds
    outputs: tuple[Tensor, ...]

    @property
    def rows(self) -> int:
        """Samples."""
        return max(len(array) for array in self.feeds.values() if array.ndim)


class FloatModule:
    """A module that computes what a float file does.

    Args:
        module: In evaluation mode; under the contract of `LoopedModule`, or any that the file's inputs call in their order.
        input_names: The file's inputs in the order of the module's arguments.
        source: The file.
        name: What errors call the module.
    """

    def __init__(
        self, module: nn.Module, input_names: tuple[str, ...], source: FloatSource, name: str
    ) -> None:
        self.module, self.input_names, self._source = module, input_names, source
        self.name = name
        self._tables: dict[int, dict[str, Tensor]] = {}
        self._halts = source.metadata.exit is not None and source.metadata.tolerance is None
        self._counts = [s.name for s in input_specs(source.graph) if s.chooses_loops]
        self._offsets = OutputOffsets(source.graph)
        self.output_names = tuple(
            source.metadata.answers(
                {value.name or "": None for value in source.graph.graph.outputs}
            )
        )

    @property
    def looped(self) -> bool:
        """Whether it has the methods of a looped module."""
        return all(hasattr(self.module, name) for name in ("prelude", "core", "coda", "loops"))

    def names(self) -> dict[int, str]:
        """Return what the module calls its tensors, by their place in memory."""
        tensors = [*self.module.named_parameters(), *self.module.named_buffers()]
        return {tensor.untyped_storage().data_ptr(): name for name, tensor in reversed(tensors)}

    def run(self, feeds: Feeds) -> tuple[Tensor, ...]:
        """Return the outputs for a batch, as the file has them."""
        inputs = [torch.from_numpy(np.array(feeds[name])) for name in self.input_names]
        outputs = self._run_loops(inputs, feeds) if self.looped else as_tuple(self.module(*inputs))
        return outputs[: len(self.output_names)]

    def _run_loops(self, inputs: list[Tensor], feeds: Feeds) -> tuple[Tensor, ...]:
        """Run prelude, core and coda; the timestep tables are constants, as they are in the file."""
        looped = cast("LoopedProtocol", self.module)
        loops = self._loops(feeds)
        rows = self._rows(loops)
        state, context = looped.prelude(*inputs)
        done: Tensor | None = None
        for t in range(loops):
            previous = state
            state = looped.core(state, context, {name: row[t] for name, row in rows.items()})
            if not self._halts:
                continue
            state = keep_halted(done, previous, state)
            halted = self.module.halt(state, previous)  # type: ignore[operator]
            done = halted if done is None else done | halted
            if bool(done.all()):
                break
        return as_tuple(looped.coda(state, context))

    def _loops(self, feeds: Feeds) -> int:
        fed = [int(np.asarray(feeds[name]).item()) for name in self._counts if name in feeds]
        most = self._source.metadata.max_loops
        count = fed[0] if fed else self._source.metadata.loops
        if count is None:
            count = cast("LoopedProtocol", self.module).loops
        return count if most is None else min(count, most)

    def _rows(self, loops: int) -> dict[str, Tensor]:
        if loops not in self._tables:
            with torch.no_grad():
                found = timestep_table_of(self.module, loops)
            self._tables[loops] = {name: rows.detach() for name, rows in found.items()}
        return self._tables[loops]

    def examples(self, batches: list[Feeds], threads: int | None) -> list[Example]:
        """Return batches with the outputs of the file, over all iterations where a tolerance would end them."""
        session = Session(self._source.path, threads=threads)
        never = None if self._source.metadata.tolerance is None else 0.0
        found = []
        for feeds in batches:
            given = session.run(feeds, tolerance=never)
            outputs = tuple(torch.from_numpy(np.array(given[name])) for name in self.output_names)
            found.append(Example(feeds=feeds, outputs=outputs))
        return found

    def offset(self, place: int, feeds: Feeds) -> Tensor | None:
        """Return what is added to an output last on some inputs, which is no part of the signal."""
        found = self._offsets.of(self.output_names[place], feeds)
        return None if found is None else torch.from_numpy(np.array(found))

    @torch.no_grad()
    def run_once(self, feeds: Feeds, rounding: TrainedRounding) -> None:
        """Run with rounded weights, for the sake of what is found out on the way."""
        with rounding.rounding():
            self.run(feeds)

    @torch.no_grad()
    def check(self, example: Example) -> None:
        """Refuse a module that does not compute what the file does.

        Raises:
            InputError: As said.
        """
        try:
            given = self.run(example.feeds)
        except (RuntimeError, TypeError, ValueError, IndexError) as failure:
            raise InputError(
                f"{self.name} cannot compute what {self._source.path} does: {failure}".splitlines()[
                    0
                ],
                hint=HINT,
            ) from failure
        allowed = HALF_TOLERANCE if self._source.metadata.storage == "float16" else AMPLIFIED
        for name, output, expected in zip(self.output_names, given, example.outputs, strict=True):
            kept = example.feeds.get(MASK)
            found = last_positions(output, expected)
            error = largest_error(
                at_kept(found.numpy(), kept),
                at_kept(expected.numpy(), kept),
                self._offsets.at_kept(name, expected.numpy(), example.feeds),
            ).relative
            if error > allowed:
                raise InputError(
                    f"{self.name} is not the module that {self._source.path} was exported from: {name} differs by "
                    f"{error:.1e} of its largest value, {allowed:.0e} is allowed",
                    hint=HINT,
                )


HINT = f"loopedge export model.pt -o model.onnx, then quantize that file with {option_name('module')} model.pt"


def last_positions(output: Tensor, expected: Tensor) -> Tensor:
    """Return the positions of an output that a file of the last one gives."""
    if output.shape == expected.shape or output.dim() < 2 or expected.dim() != output.dim():
        return output
    return output[:, -1:] if expected.shape[1] == 1 else output


@contextmanager
def open_float_module(model: str | Path | nn.Module, source: FloatSource) -> Iterator[FloatModule]:
    """Open the module behind a file; one in memory is given back in the mode that it was in.

    Args:
        model: What `loopedge.export` takes.
        source: The file.

    Raises:
        InputError: It cannot be opened, or takes other inputs than the file.
    """
    modes = (
        {each: each.training for each in model.modules()} if isinstance(model, nn.Module) else {}
    )
    try:
        yield _opened(model, source)
    finally:
        for each, training in modes.items():
            each.training = training


def _opened(model: str | Path | nn.Module, source: FloatSource) -> FloatModule:
    name = type(model).__name__ if isinstance(model, nn.Module) else str(model)
    specs = [spec for spec in input_specs(source.graph) if not spec.chooses_loops]
    wanted = tuple(spec.name for spec in specs if not (spec.has_default or spec.is_tolerance))
    looped = not isinstance(model, nn.Module) or hasattr(model, "prelude")
    if source.metadata.foreign and isinstance(model, nn.Module) and not looped:
        return FloatModule(model.eval(), wanted, source, name)
    opened = open_module(model, _options(model, source, wanted))
    if source.metadata.foreign_inputs and len(opened.input_names) == len(wanted):
        return FloatModule(opened.module, wanted, source, name)
    missing = [name for name in opened.input_names if name not in wanted]
    others = [name for name in wanted if name not in opened.input_names]
    if missing or others:
        raise InputError(
            f"{name} takes {', '.join(opened.input_names)}, {source.path} takes {', '.join(wanted)}",
            hint=HINT,
        )
    return FloatModule(opened.module, opened.input_names, source, name)


def _options(
    model: str | Path | nn.Module, source: FloatSource, wanted: tuple[str, ...]
) -> ExportOptions:
    """Return options under which a module is opened as the file has it: with or without a mask."""
    own = isinstance(model, LoopedTransformer) or (
        not isinstance(model, nn.Module) and Path(model).suffix == ".pt"
    )
    return ExportOptions(padding=MASK in wanted) if own else ExportOptions()
