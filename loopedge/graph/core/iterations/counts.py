"""How often Loops run, where the graph says so before it runs, and whether a condition may end them earlier."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.graph.core.known_values import Formula, formula_of
from loopedge.graph.core.loop_view import LoopView
from loopedge.graph.core.names import CORE_NAME
from loopedge.graph.inputs import chooses_loops
from loopedge.graph.metadata import MOST_LOOPS, Metadata
from loopedge.options import option

__all__ = ["LoopCounts"]

Array = npt.NDArray[Any]


class LoopCounts:
    """Trip counts and conditions of the Loops of a graph.

    Attributes:
        fixed: The inputs of the graph that a count was computed of, with what they held.

    Args:
        model: The graph. Not modified.
        metadata: What it says of itself.
        loops: What an input that chooses the loop count holds; default: the count in the metadata, else its own.
    """

    def __init__(self, model: ir.Model, metadata: Metadata, loops: int | None) -> None:
        self.model, self.metadata, self.loops = model, metadata, loops
        self.fixed: dict[ir.Value, Array] = {}

    def of_all(self, loops: Sequence[LoopView], behind: Sequence[int]) -> list[int]:
        """Return how often each Loop of the main graph runs.

        Args:
            loops: The Loops.
            behind: How many iterations stand behind each.

        Raises:
            InputError: As `of`, or another count is asked for than any of them runs.
        """
        counts = [self.of(loop, last) for loop, last in zip(loops, behind, strict=True)]
        if self.loops is None or self.loops in counts:
            return counts
        runs = ", ".join(
            f"Loop {loop.name} runs {count} iteration{'s' if count > 1 else ''}"
            for loop, count in zip(loops, counts, strict=True)
        )
        raise InputError(
            f"{runs or 'no Loop takes a count'}; {self.loops} were asked for",
            hint=f"leave out {option('loops')}",
        )

    def of(self, loop: LoopView, behind: int = 0) -> int:
        """Return how often a Loop runs, with the iterations that stand behind it.

        Raises:
            InputError: It is known only when the graph runs, or is none that can be meant.
        """
        formula = None if loop.count is None else formula_of(loop.count)
        counted = None if formula is None else self._evaluate(formula)
        if counted is None or counted.size != 1:
            return self._stated(loop)
        count = int(counted.item()) + behind
        if count > MOST_LOOPS and not self._runs_on(loop):
            return self._stated(loop)
        if not 1 <= count <= MOST_LOOPS:
            raise InputError(
                f"Loop {loop.name} runs {count:,} iterations, 1 to {MOST_LOOPS:,} can be written out"
            )
        return count

    def _stated(self, loop: LoopView) -> int:
        """Return what the metadata says of a Loop.

        Raises:
            InputError: It says nothing.
        """
        counts: dict[str, int] = dict(self.metadata.cores or {})
        if self.metadata.loops is not None:
            counts[CORE_NAME] = self.metadata.loops
        if loop.name in counts:
            return self.loops or counts[loop.name]
        raise InputError(
            f"the loop count is known only when the graph runs: Loop {loop.name} cannot be unrolled"
        )

    def check_condition(self, loop: LoopView) -> None:
        """Refuse a Loop that may not run, or may end before its trip count.

        Raises:
            InputError: As said.
        """
        if loop.start is not None:
            formula = formula_of(loop.start)
            value = None if formula is None else self._evaluate(formula)
            if value is None:
                raise InputError(
                    f"whether Loop {loop.name} runs at all is known only when the graph runs: its condition is "
                    "computed"
                )
            if not value.all():
                raise InputError(f"Loop {loop.name} never runs: its condition is false")
        if not self._runs_on(loop):
            own = not self.metadata.foreign
            raise InputError(
                f"a Loop that stops early has no unrolled form: a condition can end Loop {loop.name}",
                hint="loopedge export model.pt --exit none" if own else None,
            )

    def _runs_on(self, loop: LoopView) -> bool:
        """Tell whether the condition never ends a Loop: it is computed of nothing but itself, and stays true."""
        if loop.runs_on:
            return True
        formula = formula_of(loop.next_condition)
        known = {loop.condition: np.array(True)}
        value = None if formula is None else formula.evaluate(known, self.model.opset_imports)
        return value is not None and bool(value.all())

    def _evaluate(self, formula: Formula) -> Array | None:
        """Compute a count or a condition, with the inputs that choose the count at what is asked for.

        Raises:
            InputError: Nothing says what they hold.
        """
        graph, known = self.model.graph, dict[ir.Value, Array]()
        for value in formula.open:
            if not (value in graph.inputs and chooses_loops(value)):
                return None
            loops = self.loops or self.metadata.loops
            if loops is not None:
                dtype = np.dtype(np.int64) if value.dtype is None else value.dtype.numpy()
                sizes = [size for size in value.shape or () if isinstance(size, int)]
                known[value] = np.full(sizes, loops).astype(dtype)
            elif value.const_value is not None:  # a default that a caller may overwrite
                known[value] = value.const_value.numpy()
            else:
                raise InputError(
                    f"the loop count is an input of the graph, {value.name}",
                    hint=f"name it with {option('loops', 'N')}",
                )
        self.fixed |= known
        return formula.evaluate(known, self.model.opset_imports)
