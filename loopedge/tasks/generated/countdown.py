"""Countdown, generated: combine numbers by arithmetic until a target is reached.

One of the tasks of Xu & Sato (2025, arXiv 2410.01405).
"""

from typing import Any

import numpy as np

from loopedge.errors import InputError
from loopedge.tasks.generated.countdown_steps import (
    OPERATIONS,
    combine,
    first_solution,
    random_steps,
)
from loopedge.tasks.metrics import IGNORED, Metrics, Tally, total
from loopedge.tasks.task import Array, Batch, Split, Task, generator_of

__all__ = ["CountdownTask", "check_steps"]

BLANK = 0
STEP = 4
"""Tokens of a step: first operand, operation, second operand, result."""
ROOM = 4
"""The largest result, in units of the largest given number: with less, most steps subtract."""
BASELINE_STREAM = 2**32
"""The step whose random stream the baseline draws from; no run has as many."""


class CountdownTask(Task):
    """Reach a target from given numbers with + - * /, each number used once.

    A sample is ``n1 .. nk target <blank> * 4 (k - 1)``; the model reads in both directions and
    answers the steps ``a operation b result`` at the blanks, all at once. Tokens 1 .. 4 largest are
    the numbers, the four operations come after them, 0 is the blank.

    Numbers are drawn uniformly and combined at random, which gives the target; all results are
    whole, from 1 to 4 times ``largest``. A target may be reached in many ways: the reference is the
    first of them in a fixed order, and an answer is ``solved`` if its steps are right and reach the
    target with the given numbers, whether it is the reference or not.

    Args:
        numbers: Given numbers, 3 to 5.
        largest: Given number, 5 to 250.
        seed: Of the batches.

    Raises:
        InputError: ``numbers`` or ``largest`` is out of range.
    """

    name = "countdown"
    metric = "solved"
    positions = "learned"
    settings = ("numbers", "largest")

    def __init__(self, *, numbers: int = 4, largest: int = 25, seed: int = 0) -> None:
        if not 3 <= numbers <= 5:
            raise InputError(
                f"countdown: numbers is {numbers}, allowed 3 to 5: six numbers have 2.8 million "
                "ways to combine, too many to look for the reference"
            )
        if not 5 <= largest <= 250:
            raise InputError(f"countdown: largest is {largest}, allowed 5 to 250")
        self.numbers = numbers
        self.largest = largest
        self.seed = seed
        self.limit = ROOM * largest
        self.vocab = 1 + self.limit + len(OPERATIONS)
        self.sequence = numbers + 1 + STEP * (numbers - 1)

    def batch(self, split: Split, size: int, step: int) -> Batch:
        """Draw ``size`` problems."""
        generator = generator_of(self.seed, split, step)
        numbers = generator.integers(1, self.largest + 1, size=(size, self.numbers))
        goal = random_steps(generator, numbers, self.limit)[:, -1, -1]
        inputs = np.full((size, self.sequence), BLANK, np.int64)
        inputs[:, : self.numbers] = numbers
        inputs[:, self.numbers] = goal
        targets = np.full_like(inputs, IGNORED)
        steps = first_solution(numbers, goal, self.limit)
        targets[:, self.numbers + 1 :] = self._tokens_of(steps)
        return Batch(inputs=inputs, targets=targets)

    def _tokens_of(self, steps: Array) -> Array:
        """Write steps (batch, numbers - 1, 4) as tokens (batch, 4 (numbers - 1))."""
        tokens = steps.copy()
        tokens[:, :, 1] += self.limit + 1
        return tokens.reshape(len(steps), -1)

    def _steps_of(self, tokens: Array) -> Array:
        """Read steps back; a wrong kind of token becomes operation -1 or the number 0."""
        steps = tokens.reshape(len(tokens), -1, STEP)
        operation = steps[:, :, 1] - (self.limit + 1)
        values = np.where(steps <= self.limit, steps, 0)
        values[:, :, 1] = np.where(operation >= 0, operation, -1)
        return values

    def tally(self, outputs: Array, targets: Array) -> Tally:
        """Count right tokens, and answers whose steps are right and reach the target."""
        asked = slice(self.numbers + 1, None)
        reference = self._steps_of(targets[:, asked])
        answer = self._steps_of(outputs[:, asked].argmax(axis=-1))
        solved = check_steps(answer, reference, self.limit)
        return super().tally(outputs, targets) | {"solved": int(solved.sum())}

    def metrics(self, tally: Tally) -> Metrics:
        """Return ``accuracy``, ``sequence_accuracy`` and ``solved``."""
        return super().metrics(tally) | {"solved": tally["solved"] / max(1, tally["rows"])}

    def baselines(self, split: Split, samples: int) -> dict[str, Metrics]:
        """Score right steps drawn at random, whatever the target."""
        generator = generator_of(self.seed, split, BASELINE_STREAM)
        tallies = []
        for batch in self.evaluation(split, samples, samples):
            steps = random_steps(generator, batch.inputs[:, : self.numbers], self.limit)
            answer = np.zeros_like(batch.inputs)
            answer[:, self.numbers + 1 :] = self._tokens_of(steps)
            logits = answer[:, :, None] == np.arange(self.vocab)
            tallies.append(self.tally(logits, batch.targets))
        return {"random_steps": self.metrics(total(tallies))}

    def model_fields(self) -> dict[str, Any]:
        """Return the fields of a model that reads in both directions and answers everywhere."""
        return {
            "vocab_size": self.vocab,
            "causal": False,
            "read": "all",
            "max_length": self.sequence,
        }


def check_steps(answer: Array, reference: Array, limit: int) -> Array:
    """Return which answers reach the target of their reference with the same numbers.

    The given numbers are the operands of the reference that are not results of its steps.

    Args:
        answer: int64 (batch, steps, 4): operand, operation, operand, result; 0 is not a number, -1 is
            not an operation.
        reference: The same, a solution.
        limit: The largest number.

    Returns:
        bool (batch,).
    """
    sample = np.arange(len(answer))
    free = np.zeros((len(answer), limit + 1), np.int64)  # how often each number may be used
    for operand in (0, 2):
        np.add.at(free, (sample[:, None], reference[:, :, operand]), 1)
    np.add.at(free, (sample[:, None], reference[:, :-1, 3]), -1)
    right: Array = answer[:, -1, 3] == reference[:, -1, 3]
    for first, operation, second, result in answer.transpose(1, 2, 0):
        for operand in (first, second):
            free[sample, operand] -= 1
            right &= (operand > 0) & (free[sample, operand] >= 0)
        known = combine(first, second)[operation.clip(0), sample]
        right &= (operation >= 0) & (result > 0) & (result == known)
        free[sample, result] += 1
    return right
