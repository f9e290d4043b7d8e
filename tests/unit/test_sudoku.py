"""Sudoku: its puzzles have one solution, as a plain search counts; symmetries keep the rules."""

from typing import Any

import numpy as np
import pytest

from loopedge.errors import InputError
from loopedge.tasks.generated.sudoku import SudokuTask, draw_symmetries
from loopedge.tasks.generated.sudoku_pool import Rules, count_solutions, fill_grids
from loopedge.tasks.metrics import IGNORED, metric_value
from loopedge.tasks.task import SPLITS, Array, Split, task_from_dict

TASKS = {
    "4x4": SudokuTask(box=2, blanks=10, puzzles=50),
    "9x9": SudokuTask(blanks=50, puzzles=20),
}
FOUR = TASKS["4x4"]


def peers(cell: int, box: int) -> list[int]:
    """Return the other cells in the row, the column and the box of a cell."""
    edge = box * box
    row, column = divmod(cell, edge)
    return [
        other
        for other in range(edge * edge)
        if other != cell
        and (
            other // edge == row
            or other % edge == column
            or (other // edge // box, other % edge // box) == (row // box, column // box)
        )
    ]


def search(grid: list[int], box: int, near: list[list[int]], most: int = 2) -> int:
    """Count solutions up to ``most`` by trying all digits of the cell with the fewest."""
    open_cells = [cell for cell, digit in enumerate(grid) if digit == 0]
    if not open_cells:
        return 1
    allowed = {
        cell: set(range(1, box * box + 1)) - {grid[other] for other in near[cell]}
        for cell in open_cells
    }
    cell = min(open_cells, key=lambda cell: len(allowed[cell]))
    found = 0
    for digit in allowed[cell]:
        grid[cell] = digit
        found += search(grid, box, near, most - found)
        grid[cell] = 0
        if found >= most:
            break
    return found


def count(grid: Array, box: int) -> int:
    return search(grid.tolist(), box, [peers(cell, box) for cell in range(box**4)])


def follows_the_rules(grid: Array, box: int) -> bool:
    return all(grid[cell] not in grid[peers(cell, box)] for cell in range(box**4))


@pytest.mark.parametrize("name", TASKS)
def test_a_puzzle_has_exactly_one_solution_which_is_the_target(name: str) -> None:
    task = TASKS[name]
    batch = task.batch("train", 12, 3)
    assert batch.inputs.shape == batch.targets.shape == (12, task.edge**2)
    blank = batch.inputs == 0
    assert (blank.sum(axis=1) == task.blanks).all()
    assert (batch.targets[~blank] == IGNORED).all()
    for puzzle, target in zip(batch.inputs, batch.targets, strict=True):
        solution = np.where(puzzle == 0, target, puzzle)
        assert follows_the_rules(solution, task.box)
        assert solution.min() == 1
        assert solution.max() == task.edge
        assert count(puzzle, task.box) == 1


def test_the_solver_counts_like_a_plain_search() -> None:
    generator = np.random.default_rng(0)
    rules = Rules(2)
    solved = fill_grids(generator, rules, 40)
    grids = np.where(generator.random(solved.shape) < 0.6, rules.full, solved)
    grids[:, 0] = solved[:, 0]
    grids[:2, 1] = 1  # two equal digits in a row: no solution
    counts = count_solutions(generator, grids, rules)
    digits = np.where(grids == rules.full, 0, np.log2(grids) + 1).astype(int)
    expected = [0 if i == 1 else count(grid, 2) for i, grid in enumerate(digits.T)]
    assert counts.tolist() == expected
    assert set(expected) == {0, 1, 2}


def test_two_solutions_of_nine_by_nine_are_found() -> None:
    solutions, _ = TASKS["9x9"].pool("train")
    solution = solutions[0].reshape(9, 9)
    grid = np.int32(1) << (solution - 1)
    for low in range(1, 9):
        for high in range(low + 1, 10):
            # All places of two digits are open: exchanging the two is a second solution.
            pair = np.isin(solution, [low, high])
            open_grid = np.where(pair, 511, grid).reshape(81, 1).astype(np.int32)
            counted = count_solutions(np.random.default_rng(0), open_grid, Rules(3), most=2)
            assert counted.tolist() == [2]


@pytest.mark.parametrize("box", [2, 3])
def test_symmetries_keep_the_rules_and_differ(box: int) -> None:
    generator = np.random.default_rng(1)
    edge = box * box
    solved = fill_grids(generator, Rules(box), 1)[:, 0]
    grid = np.log2(solved).astype(int) + 1
    cells, digits = draw_symmetries(generator, box, 30)
    assert (np.sort(cells, axis=1) == np.arange(edge * edge)).all()
    assert (np.sort(digits, axis=1) == np.arange(1, edge + 1)).all()
    changed = [digits[i][grid[cells[i]] - 1] for i in range(30)]
    assert all(follows_the_rules(other, box) for other in changed)
    assert len({tuple(other) for other in changed}) > 20
    rows = cells.reshape(30, edge, edge) // edge
    kept = (rows == rows[:, :, :1]).all(axis=(1, 2))
    assert 0 < kept.sum() < 30  # some are turned, some are not


def test_batches_are_those_of_seed_split_and_step() -> None:
    batch = FOUR.batch("train", 8, 2)
    rebuilt = task_from_dict(FOUR.describe())
    rebuilt.batch("train", 8, 5)  # what was asked before does not matter
    again = rebuilt.batch("train", 8, 2)
    np.testing.assert_array_equal(batch.inputs, again.inputs)
    np.testing.assert_array_equal(batch.targets, again.targets)
    reseeded = task_from_dict(FOUR.describe(), seed=7)
    others = [
        FOUR.batch("train", 8, 3),
        FOUR.batch("test", 8, 2),
        reseeded.batch("train", 8, 2),
    ]
    assert all((other.inputs != batch.inputs).any() for other in others)


def test_the_pools_of_the_splits_share_no_puzzle() -> None:
    task = TASKS["9x9"]
    pools = {split: {tuple(row) for row in task.pool(split)[0]} for split in SPLITS}
    assert all(len(pool) == 20 for pool in pools.values())
    pairs: list[tuple[Split, Split]] = [
        ("train", "validation"),
        ("train", "test"),
        ("validation", "test"),
    ]
    assert all(not pools[one] & pools[other] for one, other in pairs)


def test_solved_puzzles_decide_and_rules_are_baselines() -> None:
    batch = FOUR.batch("test", 10, 0)
    logits = np.eye(5)[batch.targets.clip(0)]
    assert FOUR.score(logits, batch.targets) == {"accuracy": 1.0, "sequence_accuracy": 1.0}
    wrong = np.flatnonzero(batch.targets[0] != IGNORED)[0]
    logits[0, wrong] = np.roll(logits[0, wrong], 1)
    assert FOUR.score(logits, batch.targets) == {"accuracy": 0.99, "sequence_accuracy": 0.9}
    scores = TASKS["9x9"].baselines("test", 60)
    first, singles = scores["first_allowed"], scores["singles"]
    assert 1 / 9 < metric_value(first, "accuracy") < metric_value(singles, "accuracy") <= 1
    assert first["sequence_accuracy"] == 0
    assert metric_value(singles, "sequence_accuracy") > 0.5


def test_a_baseline_answers_with_the_smallest_digit_that_the_givens_allow() -> None:
    batch = FOUR.batch("test", 40, 0)
    right = []
    for puzzle, target in zip(batch.inputs, batch.targets, strict=True):
        for cell in np.flatnonzero(puzzle == 0):
            seen = set(puzzle[peers(int(cell), 2)])
            right.append(min({1, 2, 3, 4} - seen) == target[cell])
    assert FOUR.baselines("test", 40)["first_allowed"]["accuracy"] == np.mean(right)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"box": 4}, r"box is 4, allowed 2 \(4x4\) and 3 \(9x9\)"),
        ({"blanks": 0}, "blanks is 0, allowed 1 to 57 with box 3"),
        ({"blanks": 58}, "blanks is 58, allowed 1 to 57 with box 3"),
        ({"blanks": 13, "box": 2}, "blanks is 13, allowed 1 to 12 with box 2"),
        ({"puzzles": 0}, "puzzles is 0, allowed 1 to 100000"),
    ],
)
def test_sizes_out_of_range_are_refused(sizes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        SudokuTask(**sizes)


def test_the_most_blanks_can_be_dug() -> None:
    for box, most in ((2, 12), (3, 57)):
        _, blank = SudokuTask(box=box, blanks=most, puzzles=3).pool("test")
        assert blank.sum(axis=1).tolist() == [most] * 3
