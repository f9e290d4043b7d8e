"""Steps of countdown: what two numbers give, random ways to combine numbers, and the first that fits."""

import itertools

import numpy as np

from loopedge.data.task import Array

__all__ = ["OPERATIONS", "combine", "first_solution", "random_steps"]

OPERATIONS = "+-*/"


def combine(first: Array, second: Array) -> Array:
    """Return first + second, first - second, first * second and first / second.

    Args:
        first: int64 (...), from 0.
        second: int64 (...), from 0.

    Returns:
        int64 (..., 4); 0 or less where there is no whole, positive result.
    """
    quotient = first // np.maximum(second, 1)
    whole = (second > 0) & (quotient * second == first)
    return np.stack(
        [first + second, first - second, first * second, np.where(whole, quotient, 0)], axis=-1
    )


def children_of(values: Array, largest: int) -> tuple[Array, Array]:
    """Combine two of the values in every way.

    Args:
        values: int64 (..., n), from 1; 0 where there is none.
        largest: Result.

    Returns:
        The steps, int64 (..., ways, 4): first operand, operation, second operand, result, the
        larger operand first; result 0 where there is none from 1 to ``largest``. And the values
        that are left then, int64 (..., ways, n - 1), the result last.
    """
    steps, left = [], []
    count = values.shape[-1]
    for i, j in itertools.combinations(range(count), 2):
        first = np.maximum(values[..., i], values[..., j])
        second = np.minimum(values[..., i], values[..., j])
        results = combine(first, second)
        possible = (second[..., None] > 0) & (results > 0) & (results <= largest)
        results = np.where(possible, results, 0)
        others = values[..., [k for k in range(count) if k not in (i, j)]]
        for place in range(len(OPERATIONS)):
            result = results[..., place]
            steps.append(np.stack([first, np.full_like(first, place), second, result], axis=-1))
            left.append(np.concatenate([others, result[..., None]], axis=-1))
    return np.stack(steps, axis=-2), np.stack(left, axis=-2)


def random_steps(generator: np.random.Generator, numbers: Array, largest: int) -> Array:
    """Combine numbers at random until one is left, each possible step as likely as another.

    There always is one: the larger of two numbers minus the smaller, or over it where they are equal.

    Args:
        generator: Draws the steps.
        numbers: int64 (batch, n), from 1 to ``largest``.
        largest: Result of a step.

    Returns:
        int64 (batch, n - 1, 4): first operand, operation, second operand, result.
    """
    chosen = []
    sample = np.arange(len(numbers))
    for _ in range(numbers.shape[1] - 1):
        steps, left = children_of(numbers, largest)
        weights = (steps[:, :, 3] > 0) * (1 - generator.random(steps.shape[:2]))
        way = weights.argmax(axis=1)
        chosen.append(steps[sample, way])
        numbers = left[sample, way]
    return np.stack(chosen, axis=1)


def first_solution(numbers: Array, goal: Array, largest: int) -> Array:
    """Return the first way to reach a goal, in a fixed order that the order of the numbers does not change.

    Args:
        numbers: int64 (batch, n), from 1 to ``largest``.
        goal: int64 (batch,), can be reached.
        largest: Result of a step.

    Returns:
        int64 (batch, n - 1, 4): first operand, operation, second operand, result.
    """
    values = np.sort(numbers, axis=1)[:, ::-1]
    sample = np.arange(len(numbers))
    tree = []
    level = values[:, None]  # (batch, ways so far, values left)
    for _ in range(numbers.shape[1] - 1):
        steps, left = children_of(level, largest)  # (batch, ways so far, ways, ..)
        tree.append(steps.reshape(len(numbers), -1, 4))
        level = left.reshape(len(numbers), -1, left.shape[-1])
    way = (level[:, :, 0] == goal[:, None]).argmax(axis=1)
    chosen = []
    for depth in reversed(range(len(tree))):
        chosen.append(tree[depth][sample, way])
        count = numbers.shape[1] - depth
        way = way // (len(OPERATIONS) * count * (count - 1) // 2)
    return np.stack(chosen[::-1], axis=1)
