"""Tasks whose data is generated: those of the paper, and sorting."""

from typing import TYPE_CHECKING, Annotated

import typer

from loopedge_cli.tasks import task

if TYPE_CHECKING:
    from loopedge.tasks.task import Task


Prefixes = Annotated[
    bool, typer.Option("--prefixes", help="Ask for each prefix of the second string too.")
]


@task("edit-distance", loops=12, steps=5000, batch_size=64)
def edit_distance(
    *,
    length: Annotated[int, typer.Option(help="Letters of the strings.")] = 20,
    letters: Annotated[int, typer.Option(help="Letters of the alphabet, 3 to 26.")] = 26,
    prefixes: Prefixes = False,
    seed: int,
) -> "Task":
    """Tell the edit distance of two random strings (the paper's task)."""
    from loopedge.tasks.generated.edit_distance import EditDistanceTask

    return EditDistanceTask(length=length, letters=letters, prefixes=prefixes, seed=seed)


@task("lcs", loops=12, steps=5000, batch_size=64)
def lcs(
    *,
    length: Annotated[int, typer.Option(help="Letters of each string.")] = 20,
    letters: Annotated[int, typer.Option(help="Size of the alphabet.")] = 4,
    prefixes: Prefixes = False,
    seed: int,
) -> "Task":
    """Tell the length of the longest common subsequence of two strings (the paper's task)."""
    from loopedge.tasks.generated.lcs import LcsTask

    return LcsTask(length=length, letters=letters, prefixes=prefixes, seed=seed)


@task("sudoku", loops=16, steps=20000, batch_size=64)
def sudoku(
    *,
    box: Annotated[int, typer.Option(help="Edge of a box: 3 gives 9x9, 2 gives 4x4.")] = 3,
    blanks: Annotated[int | None, typer.Option(help="Blank cells; default: 45, at 4x4 8.")] = None,
    puzzles: Annotated[
        int, typer.Option(help="In the pool of each split; the rest are their symmetries.")
    ] = 2000,
    seed: int,
) -> "Task":
    """Solve puzzles that have one solution (the paper's task)."""
    from loopedge.tasks.generated.sudoku import SudokuTask

    return SudokuTask(blanks=blanks, box=box, puzzles=puzzles, seed=seed)


@task("countdown", loops=12, steps=20000, batch_size=64)
def countdown(
    *,
    numbers: Annotated[int, typer.Option(help="Given numbers, 3 to 5.")] = 4,
    largest: Annotated[int, typer.Option(help="Given number; results reach 4 times that.")] = 25,
    seed: int,
) -> "Task":
    """Reach a target from given numbers with + - * / (the paper's task)."""
    from loopedge.tasks.generated.countdown import CountdownTask

    return CountdownTask(numbers=numbers, largest=largest, seed=seed)


Dims = Annotated[int, typer.Option(help="Features of a point.")]
Points = Annotated[int, typer.Option(help="Points of a sequence.")]


@task("in-context-linear", loops=12, steps=5000, batch_size=64)
def in_context_linear(
    *,
    dims: Dims = 5,
    points: Points = 16,
    noise: Annotated[float, typer.Option(help="Standard deviation of the noise in y.")] = 0.0,
    seed: int,
) -> "Task":
    """Learn linear functions from the points in the sequence."""
    from loopedge.tasks.generated.in_context import LinearInContextTask

    return LinearInContextTask(dims=dims, points=points, noise=noise, seed=seed)


@task("in-context-trees", loops=12, steps=5000, batch_size=64)
def in_context_trees(
    *,
    dims: Dims = 5,
    points: Points = 32,
    depth: Annotated[int, typer.Option(help="Questions from the root to a leaf.")] = 3,
    seed: int,
) -> "Task":
    """Learn decision trees from the points in the sequence (the paper's task)."""
    from loopedge.tasks.generated.in_context import TreeInContextTask

    return TreeInContextTask(dims=dims, points=points, depth=depth, seed=seed)


@task("sorting", steps=2000, batch_size=64)
def sorting(
    *,
    length: Annotated[int, typer.Option(help="Tokens to sort.")] = 16,
    vocab: Annotated[int, typer.Option(help="Distinct tokens.")] = 64,
    seed: int,
) -> "Task":
    """Sort random tokens."""
    from loopedge.tasks.generated.sorting import SortingTask

    return SortingTask(length=length, vocab=vocab, seed=seed)
