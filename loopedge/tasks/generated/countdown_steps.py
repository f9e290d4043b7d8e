"""Steps of countdown: what two numbers give, random steps, and the first that reach a goal.

The numbers that are left are the rows of an array (n, ...), and all ways to combine two of them are
tried at once; a way is a pair of rows and an operation.
"""

import itertools

import numpy as np

from loopedge.tasks.task import Array

__all__ = ["OPERATIONS", "combine", "first_solution", "random_steps"]

OPERATIONS = "+-*/"


def combine(first: Array, second: Array) -> Array:
    """Return first + second, first - second, first * second and first / second.

    Args:
        first: int (...), from 0.
        second: int (...), from 0.

    Returns:
        int (4, ...); 0 or less where there is no whole, positive result.
    """
    quotient = first // np.maximum(second, 1)
    whole = (second > 0) & (quotient * second == first)
    return np.stack([first + second, first - second, first * second, quotient * whole])


def pairs_of(numbers: int) -> list[tuple[int, int]]:
    """Return the pairs of rows."""
    return list(itertools.combinations(range(numbers), 2))


def results_of(values: Array, limit: int) -> Array:
    """Combine each two of the values in each way, the larger one first.

    Args:
        values: int (n, ...), from 1; 0 where there is none.
        limit: The largest result.

    Returns:
        int (ways, ...), ways = 4 n (n - 1) / 2, the operations of a pair together; 0 where there
        is not a whole result from 1 to ``limit``.
    """
    found = []
    for i, j in pairs_of(len(values)):
        larger, smaller = np.maximum(values[i], values[j]), np.minimum(values[i], values[j])
        results = combine(larger, smaller)
        found.append(results * ((smaller > 0) & (results > 0) & (results <= limit)))
    return np.concatenate(found)


def left_after(values: Array, results: Array) -> Array:
    """Return the values that are left after each way, the result last: int (n - 1, ways, ...)."""
    numbers, operations = len(values), len(OPERATIONS)
    left = np.empty((numbers - 1, *results.shape), values.dtype)
    left[-1] = results
    for place, pair in enumerate(pairs_of(numbers)):
        others = [row for row in range(numbers) if row not in pair]
        ways = slice(place * operations, (place + 1) * operations)
        left[:-1, ways] = values[others][:, None]
    return left


def take_step(values: Array, way: Array, limit: int) -> tuple[Array, Array]:
    """Go one way for each sample.

    Args:
        values: int (n, batch).
        way: int (batch,).
        limit: The largest result.

    Returns:
        The step, int (batch, 4): larger operand, operation, smaller operand, result; and the values
        that are left, int (n - 1, batch).
    """
    sample = np.arange(len(way))
    results = results_of(values, limit)
    pair, operation = np.divmod(way, len(OPERATIONS))
    operands = values[np.array(pairs_of(len(values)))[pair].T, sample]
    step = [operands.max(axis=0), operation, operands.min(axis=0), results[way, sample]]
    return np.stack(step, axis=-1), left_after(values, results)[:, way, sample]


def random_steps(generator: np.random.Generator, numbers: Array, limit: int) -> Array:
    """Combine numbers at random until one is left.

    The operation is drawn evenly, then a pair that it can combine. There always is a step: the
    larger number minus the smaller one, or over it where they are equal.

    Args:
        generator: Draws the steps.
        numbers: int64 (batch, n), from 1 to ``limit``.
        limit: The largest result.

    Returns:
        int64 (batch, n - 1, 4): larger operand, operation, smaller operand, result.
    """
    values = numbers.T
    steps = []
    while len(values) > 1:
        results = results_of(values, limit)
        operation = generator.permuted(
            np.tile(np.arange(len(OPERATIONS))[:, None], values.shape[1]), axis=0
        )
        rank = np.tile(operation, (len(results) // len(OPERATIONS), 1))
        way = ((results > 0) * (1 + rank + generator.random(rank.shape))).argmax(axis=0)
        step, values = take_step(values, way, limit)
        steps.append(step)
    return np.stack(steps, axis=1)


def first_solution(numbers: Array, goal: Array, limit: int) -> Array:
    """Return the first of all ways to reach a goal; the order of the numbers does not matter.

    Args:
        numbers: int64 (batch, n), from 1 to ``limit``.
        goal: int64 (batch,), can be reached.
        limit: The largest result.

    Returns:
        int64 (batch, n - 1, 4): larger operand, operation, smaller operand, result.
    """
    values = np.sort(numbers, axis=1).T
    level = values[:, None].astype(np.int32)  # (values left, paths, batch)
    paths = []
    while len(level) > 1:
        paths.append(level.shape[1])
        results = results_of(level.reshape(len(level), -1), limit)
        results = results.reshape(-1, *level.shape[1:])  # (ways, paths, batch)
        level = left_after(level, results)
        level = level.reshape(len(level), -1, level.shape[-1])
    path = (level[0] == goal).argmax(axis=0)
    ways = []
    for count in reversed(paths):
        way, path = np.divmod(path, count)
        ways.append(way)
    steps = []
    for way in reversed(ways):
        step, values = take_step(values, way, limit)
        steps.append(step)
    return np.stack(steps, axis=1)
