"""How many iterations a model runs on samples, where an input says so."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.graph.core.cores import Cores
from loopedge.graph.inputs import input_specs
from loopedge.graph.metadata import read_metadata
from loopedge.graph.signature import InputSpec
from loopedge.options import option, option_name

__all__ = ["LoopCounts"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopCounts:
    """The inputs of a graph that count its iterations, and what they are fed.

    Args:
        specs: These inputs by name; there are none where the count is fixed.
        asked: The count that was asked for; None: as each batch of the data says.
        exported: The count where neither says one; None: not known.
    """

    specs: Mapping[str, InputSpec]
    asked: int | None
    exported: int | None

    @classmethod
    def of(cls, model: ir.Model, loops: int | None) -> "LoopCounts":
        """Return those of a graph; a count that is not asked for is the exported one, where that is known.

        Raises:
            InputError: The graph runs another number of iterations, whatever it is fed.
        """
        specs = {spec.name: spec for spec in input_specs(model) if spec.chooses_loops}
        cores = Cores(model)
        if loops is not None and not specs and loops != cores.count:
            raise InputError(
                f"the model {cores.count_text}, {loops} were asked for",
                hint=f"leave out {option_name('loops')}",
            )
        return cls(specs=specs, asked=loops, exported=read_metadata(model.metadata_props).loops)

    def taken_out(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the inputs that hold samples."""
        return {name: array for name, array in feeds.items() if name not in self.specs}

    def fed(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the counts for a batch: those that it holds, else the one that was asked for, else the exported one.

        Raises:
            InputError: There is neither, one is not a single number of at least 1, or they differ.
        """
        counts, other = {}, self.asked or self.exported
        for name, spec in self.specs.items():
            held = np.asarray(feeds[name]) if name in feeds else None
            if held is None and other is None:
                raise InputError(
                    f"the model takes a loop count, its input {name}", hint=option("loops", "N")
                )
            if held is not None and (
                held.size != 1 or held.dtype.kind not in "iu" or held.min() < 1
            ):
                raise InputError(
                    f"input {name} counts loops: one whole number of at least 1 is needed for a batch"
                )
            count = (other or 1) if held is None else int(held.item())
            if self.asked not in {None, count}:
                raise InputError(
                    f"the data holds {count} for the loop count {name}, {self.asked} loops were asked for",
                    hint=f"leave out {option_name('loops')}, or {name} in the data",
                )
            counts[name] = spec.loop_count(count)
        return counts
