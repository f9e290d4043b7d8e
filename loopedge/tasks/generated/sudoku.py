"""Sudoku, generated: puzzles with one solution, at 9x9 and at 4x4.

One of the tasks of Xu & Sato (2025, arXiv 2410.01405).
"""

from typing import Any

import numpy as np

from loopedge.errors import InputError
from loopedge.tasks.generated.sudoku_pool import Rules, dig_puzzles, exclude, propagate
from loopedge.tasks.metrics import IGNORED, Metrics
from loopedge.tasks.task import Array, Batch, Split, Task, generator_of

__all__ = ["SudokuTask", "draw_symmetries"]

BLANK = 0
POOL_STREAM = 2**32
"""The step whose random stream digs the pool of a split; no run has as many."""
USUAL_BLANKS = {2: 8, 3: 45}
"""By box edge."""
MOST_BLANKS = {2: 12, 3: 57}
"""By box edge: 7 of 10 random grids can lose so many cells at 4x4, 6 of 10 at 9x9. One more is
impossible at 4x4, and what 2 of 10 can lose at 9x9."""


class SudokuTask(Task):
    """Fill the blank cells of a puzzle that has exactly one solution.

    A sample is the cells of the grid row by row, 0 where blank; the model reads in both directions
    and answers at the blanks. Each split has a pool of puzzles, dug once from random grids and
    checked to have one solution. A sample is one of them under a random symmetry, which keeps that:
    digits renamed, rows exchanged within bands, columns within stacks, bands, stacks, transposition.

    Args:
        blanks: Blank cells, 1 to 57 (12 at 4x4); default: 45 (8 at 4x4).
        box: Edge of a box: 3 gives 9x9, 2 gives 4x4.
        puzzles: In the pool of each split, 1 to 100000.
        seed: Of pools and batches.

    Raises:
        InputError: A number is out of range.
    """

    name = "sudoku"
    metric = "sequence_accuracy"
    positions = "learned"
    settings = ("blanks", "box", "puzzles")
    upper_bounds = ("singles",)

    def __init__(
        self, *, blanks: int | None = None, box: int = 3, puzzles: int = 2000, seed: int = 0
    ) -> None:
        if box not in MOST_BLANKS:
            raise InputError(f"sudoku: box is {box}, allowed 2 (4x4) and 3 (9x9)")
        blanks = USUAL_BLANKS[box] if blanks is None else blanks
        if not 1 <= blanks <= MOST_BLANKS[box]:
            raise InputError(
                f"sudoku: blanks is {blanks}, allowed 1 to {MOST_BLANKS[box]} with box {box}: "
                "the fewer digits are left, the fewer grids have one solution"
            )
        if not 1 <= puzzles <= 100_000:
            raise InputError(f"sudoku: puzzles is {puzzles}, allowed 1 to 100000")
        self.blanks = blanks
        self.box = box
        self.puzzles = puzzles
        self.seed = seed
        self.edge = box * box
        self._pools: dict[Split, tuple[Array, Array]] = {}

    def pool(self, split: Split) -> tuple[Array, Array]:
        """Return the solutions of a split and which cells are blank: (puzzles, cells) each."""
        if split not in self._pools:
            self._pools[split] = dig_puzzles(
                generator_of(self.seed, split, POOL_STREAM),
                box=self.box,
                blanks=self.blanks,
                count=self.puzzles,
            )
        return self._pools[split]

    def batch(self, split: Split, size: int, step: int) -> Batch:
        """Draw ``size`` puzzles of the pool, each under a symmetry of its own."""
        solutions, blank = self.pool(split)
        generator = generator_of(self.seed, split, step)
        chosen = generator.integers(self.puzzles, size=size)
        cells, digits = draw_symmetries(generator, self.box, size)
        blank = np.take_along_axis(blank[chosen], cells, axis=1)
        solution = np.take_along_axis(solutions[chosen], cells, axis=1)
        solution = np.take_along_axis(digits, solution - 1, axis=1)
        return Batch(
            inputs=np.where(blank, BLANK, solution), targets=np.where(blank, solution, IGNORED)
        )

    def baselines(self, split: Split, samples: int) -> dict[str, Metrics]:
        """Score two rules: the first digit that the givens allow, and conclusions without guesses.

        ``first_allowed`` answers with the smallest digit that stands in no unit of the cell.
        ``singles`` draws conclusions from one unit at a time until there are no more.
        """
        batches = list(self.evaluation(split, samples, samples))
        inputs = np.concatenate([batch.inputs for batch in batches])
        targets = np.concatenate([batch.targets for batch in batches])
        rules = Rules(self.box)
        grids = np.where(inputs == BLANK, rules.full, 1 << (inputs - 1).clip(0)).astype(np.int32).T
        sets = {"first_allowed": exclude(grids, rules), "singles": propagate(grids, rules)[0]}
        places = np.arange(self.edge + 1)
        return {
            # Bit d - 1 of a set is digit d, and argmax takes the first of equals.
            name: self.score((found.T[:, :, None] << 1 >> places) & 1, targets)
            for name, found in sets.items()
        }

    def model_fields(self) -> dict[str, Any]:
        """Return the fields of a model that reads in both directions and answers everywhere."""
        return {
            "vocab_size": self.edge + 1,
            "causal": False,
            "read": "all",
            "max_length": self.edge * self.edge,
        }


def draw_symmetries(generator: np.random.Generator, box: int, count: int) -> tuple[Array, Array]:
    """Draw changes of a grid that keep its rules, and so the number of solutions.

    Args:
        generator: Draws them.
        box: Edge of a box.
        count: How many.

    Returns:
        Which cell comes to each place, int64 (count, cells), and the new name of each digit from 1,
        int64 (count, digits).
    """
    edge = box * box
    lines = []
    for _ in range(2):
        bands = generator.permuted(np.tile(np.arange(box), (count, 1)), axis=1)
        inside = generator.permuted(np.tile(np.arange(box), (count, box, 1)), axis=2)
        lines.append((bands[:, :, None] * box + inside).reshape(count, edge))
    rows, columns = lines
    cells = rows[:, :, None] * edge + columns[:, None, :]
    turned = generator.random(count) < 0.5
    cells = np.where(turned[:, None, None], cells.swapaxes(1, 2), cells)
    digits = generator.permuted(np.tile(np.arange(1, edge + 1), (count, 1)), axis=1)
    return cells.reshape(count, edge * edge), digits
