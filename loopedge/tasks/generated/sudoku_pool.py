"""Sudoku puzzles with one solution: a solver over many grids at once, and what digs with it.

A grid stands in a column of int32 (cells, grids); a cell is the set of digits that it may still
hold, bit d - 1 for digit d.
"""

from dataclasses import dataclass

import numpy as np

from loopedge.tasks.task import Array

__all__ = ["Rules", "count_solutions", "dig_puzzles", "exclude", "fill_grids", "propagate"]

CHUNK = 1000
"""Grids that are dug together: what they need stays in a processor's cache."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The units of a grid: rows, columns and boxes, in which each digit stands once.

    Args:
        box: Edge of a box.
    """

    box: int

    @property
    def edge(self) -> int:
        """Digits, and cells of a unit."""
        return self.box * self.box

    @property
    def cells(self) -> int:
        """Cells of a grid."""
        return self.edge * self.edge

    @property
    def full(self) -> int:
        """The set of all digits."""
        return (1 << self.edge) - 1

    @property
    def units(self) -> Array:
        """The cells of each unit: (3 edge, edge)."""
        cells = np.arange(self.cells)
        rows = cells.reshape(self.edge, self.edge)
        boxes = cells.reshape([self.box] * 4).swapaxes(1, 2).reshape(self.edge, self.edge)
        return np.concatenate([rows, rows.T, boxes])

    @property
    def units_of_cell(self) -> Array:
        """The row, the column and the box of each cell: (cells, 3)."""
        unit, place = np.nonzero(self.units[:, :, None] == np.arange(self.cells))[::2]
        return unit[np.argsort(place, kind="stable")].reshape(self.cells, 3)


def is_single(cells: Array) -> Array:
    """Return which sets hold one digit at most."""
    single: Array = (cells & (cells - 1)) == 0
    return single


def exclude(grids: Array, rules: Rules) -> Array:
    """Take the digits that cells hold out of the other, open cells of their units."""
    known = np.where(is_single(grids), grids, 0)
    taken = np.bitwise_or.reduce(known[rules.units], axis=1)  # (units, grids)
    others = np.bitwise_or.reduce(taken[rules.units_of_cell], axis=1)  # (cells, grids)
    return np.where(known > 0, grids, grids & ~others)


def propagate(grids: Array, rules: Rules) -> tuple[Array, Array]:
    """Draw the conclusions that follow from one unit at a time, until there are no more.

    A digit that a cell holds leaves the other cells of its units; a digit that one cell alone of a
    unit may hold stands there.

    Args:
        grids: int32 (cells, grids). Not modified.
        rules: Of the grids.

    Returns:
        The new grids, and whether they may have a solution: bool (grids,). Where every cell has one
        digit and that is true, the grid is solved.
    """
    units, units_of_cell = rules.units, rules.units_of_cell
    grids = grids.copy()
    possible = np.ones(grids.shape[1], bool)
    active = np.arange(grids.shape[1])
    while len(active):
        before = grids[:, active]
        after = exclude(before, rules)
        once = twice = np.zeros((len(units), len(active)), np.int32)
        for members in units.T:
            twice = twice | (once & after[members])
            once = once | after[members]
        lonely = np.bitwise_or.reduce((once & ~twice)[units_of_cell], axis=1) & after
        after = np.where(lonely > 0, lonely, after)
        # Each digit needs a place in each unit, and each cell a digit.
        alive = (once == rules.full).all(axis=0) & (after > 0).all(axis=0)
        grids[:, active] = after
        possible[active] = alive
        active = active[alive & (after != before).any(axis=0)]
    return grids, possible


def choose_cells(generator: np.random.Generator, grids: Array) -> Array:
    """Return, of each grid, an open cell with the fewest digits, drawn evenly: int64 (grids,)."""
    digits = ((grids[None] >> np.arange(16)[:, None, None]) & 1).sum(axis=0)
    open_digits = np.where(digits > 1, digits, 99)
    cells: Array = (open_digits + generator.random(grids.shape)).argmin(axis=0)
    return cells


def count_solutions(
    generator: np.random.Generator, grids: Array, rules: Rules, most: int = 2
) -> Array:
    """Count the solutions of each grid up to ``most``, by conclusions and exhaustive branching.

    Args:
        generator: Chooses the cells to branch at; the counts do not depend on it.
        grids: int32 (cells, grids).
        rules: Of the grids.
        most: Counting stops there.

    Returns:
        int64 (grids,).
    """
    counts = np.zeros(grids.shape[1], np.int64)
    owner = np.arange(grids.shape[1])
    while len(owner):
        grids, possible = propagate(grids, rules)
        solved = possible & is_single(grids).all(axis=0)
        np.add.at(counts, owner[solved], 1)
        kept = possible & ~solved & (counts[owner] < most)
        grids, owner = grids[:, kept], owner[kept]
        cell, column = choose_cells(generator, grids), np.arange(len(owner))
        digits = grids[cell, column]
        one, rest = grids, grids.copy()
        one[cell, column] = digits & -digits
        rest[cell, column] = digits & (digits - 1)
        grids, owner = np.concatenate([one, rest], axis=1), np.tile(owner, 2)
    return np.minimum(counts, most)


def fill_grids(generator: np.random.Generator, rules: Rules, count: int) -> Array:
    """Draw solved grids: int32 (cells, count).

    Cells are filled with random digits, the most constrained first; a grid that gets stuck is given
    up.
    """
    done: list[Array] = []
    missing = count
    while missing > 0:
        grids = np.full((rules.cells, missing), rules.full, np.int32)
        while grids.shape[1]:
            grids, possible = propagate(grids, rules)
            solved = possible & is_single(grids).all(axis=0)
            done.append(grids[:, solved])
            missing -= int(solved.sum())
            grids = grids[:, possible & ~solved]
            cell, column = choose_cells(generator, grids), np.arange(grids.shape[1])
            allowed = (grids[cell, column] >> np.arange(rules.edge)[:, None]) & 1
            chosen = (allowed * (1 + generator.random(allowed.shape))).argmax(axis=0)
            grids[cell, column] = 1 << chosen
    return np.concatenate(done, axis=1)


def dig_puzzles(
    generator: np.random.Generator, *, box: int, blanks: int, count: int
) -> tuple[Array, Array]:
    """Draw puzzles with exactly one solution.

    The cells of a solved grid are visited in random order. A cell becomes blank where no solution
    has another digit there; then the puzzle still has one solution. A grid that does not reach
    ``blanks`` is given up.

    Args:
        generator: Draws them.
        box: Edge of a box.
        blanks: Blank cells of each puzzle.
        count: Puzzles.

    Returns:
        The solutions, int64 (count, cells), digits from 1; and which cells are blank, bool.
    """
    rules = Rules(box)
    solutions, blank = [], []
    missing = count
    while missing > 0:
        solved = fill_grids(generator, rules, min(missing, CHUNK))
        grids = dig_grids(generator, solved, rules, blanks)
        dug = ~is_single(grids)
        kept = dug.sum(axis=0) == blanks
        solutions.append(solved[:, kept].T)
        blank.append(dug[:, kept].T)
        missing -= int(kept.sum())
    digits = np.round(np.log2(np.concatenate(solutions))).astype(np.int64) + 1
    return digits, np.concatenate(blank)


def dig_grids(generator: np.random.Generator, solved: Array, rules: Rules, blanks: int) -> Array:
    """Blank up to ``blanks`` cells of each solved grid, as long as it has one solution."""
    grids = solved.copy()
    order = generator.permuted(np.tile(np.arange(rules.cells), (solved.shape[1], 1)), axis=1).T
    for cells in order:
        (active,) = np.nonzero((~is_single(grids)).sum(axis=0) < blanks)
        cell = cells[active]
        digit = grids[cell, active]
        changed = grids[:, active]
        changed[cell, np.arange(len(active))] = rules.full & ~digit
        unique = count_solutions(generator, changed, rules, most=1) == 0
        grids[cell[unique], active[unique]] = rules.full
    return grids
