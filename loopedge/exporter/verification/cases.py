"""What a written file is compared with PyTorch on: batches, lengths, loop counts, exits."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from loopedge.exporter.assembly import AssemblyPlan
from loopedge.exporter.capture.axes import LONGEST_CHECKED, Axes
from loopedge.exporter.exits import Exit

__all__ = ["Case", "cases_of", "example_case"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One comparison: sizes, loop count, and whether the timestep rows are random.

    ``stop`` sets a tolerance under which no row stops early, or some do. ``example``: on the user's own
    example inputs, whose axes may be longer or shorter than the sizes say.
    """

    batch: int
    sequence: int
    loops: int | None
    random_rows: bool = False
    stop: Literal["never", "some"] | None = None
    example: bool = False

    def __str__(self) -> str:
        loops = "" if self.loops is None else f", loops {self.loops}"
        rows = ", random timestep rows" if self.random_rows else ""
        stop = f", {self.stop} row{'s' if self.stop == 'some' else ''} stop" if self.stop else ""
        if self.example:
            return "the example inputs"
        return f"batch {self.batch}, sequence {self.sequence}{loops}{rows}{stop}"


def example_case(example: tuple[Tensor, ...]) -> Case:
    """Return the case of a user's own example inputs, as they are."""
    first = example[0].shape
    return Case(batch=(*first, 1)[0], sequence=(*first[1:], 1)[0], loops=None, example=True)


def cases_of(
    axes: Axes, plan: AssemblyPlan, rule: Exit | None, *, max_length: int | None
) -> list[Case]:
    """Batches {1, 3}, lengths {1, traced, longer}, loop counts {1, given, past the table}.

    With a tolerance each length is also run so that no row stops, and so that some do.

    Args:
        axes: What the model's sizes are.
        plan: What was assembled.
        rule: What ends the loop early.
        max_length: Positions that the model takes at most, where that is known.
    """
    longest = max_length or axes.longest or LONGEST_CHECKED
    lengths = sorted({1, axes.traced_sequence, min(LONGEST_CHECKED, longest)})
    if axes.fixed_sequence:
        lengths = [axes.fixed_sequence]
    lengths = [length for length in lengths if length <= longest] or [longest]
    counts: list[int | None] = [1, plan.loops, plan.loops + 2] if plan.dynamic_loops else [None]
    cases = [
        Case(batch=batch, sequence=length, loops=count)
        for batch in (1, 3)
        for length in lengths
        for count in counts
    ]
    last = counts[-1]
    with_tolerance = rule is not None and rule.tolerance is not None
    stops: tuple[Literal["never", "some"], ...] = ("never", "some") if with_tolerance else ()
    for length in lengths:
        cases += [Case(batch=4, sequence=length, loops=last, stop=stop) for stop in stops]
        if plan.tables:
            cases += [
                Case(batch=2, sequence=length, loops=last, random_rows=True, stop=stop)
                for stop in stops or (None,)
            ]
    return cases
