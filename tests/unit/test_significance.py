"""The standard error of a loss, against formulas that do not leave anything out."""

from collections.abc import Callable

import numpy as np
import pytest

from loopedge.quantizer.held_out.significance import BLOCKS, certain, loss_error, moved
from loopedge.tasks.metrics import Metrics, Tally, class_metrics, metric_value, total, value_metrics


def lost(key: str, metrics: Callable[[Tally], Metrics], sign: int) -> Callable[..., float]:
    def loss(exact: list[Tally], given: list[Tally]) -> float:
        one, other = (metric_value(metrics(total(each)), key) for each in (exact, given))
        return sign * (other - one)

    return loss


def test_of_a_share_it_is_the_paired_error_of_a_mean() -> None:
    """Blocks of equal size: the jackknife is the standard error of the mean of paired differences."""
    generator = np.random.default_rng(0)
    exact, given = (generator.random((BLOCKS, 8)) < share for share in (0.9, 0.8))
    tallies = [
        [{"right": int(block.sum()), "asked": 8} for block in right] for right in (exact, given)
    ]
    differences = exact.mean(axis=1) - given.mean(axis=1)
    expected = differences.std(ddof=1) / np.sqrt(BLOCKS)
    found = loss_error(tallies[0], tallies[1], lost("accuracy", class_metrics, -1))
    assert found == pytest.approx(expected)


def test_of_an_error_it_is_what_samples_drawn_again_show() -> None:
    """RMSE of two forecasts whose errors go together: far less than the error of either."""
    generator = np.random.default_rng(1)

    def draw() -> tuple[list[Tally], list[Tally]]:
        noise = generator.standard_normal((BLOCKS, 16))
        other = noise + 0.1 * generator.standard_normal((BLOCKS, 16))
        made = [
            [{"squared": float((b**2).sum()), "absolute": 0.0, "asked": b.size} for b in errors]
            for errors in (noise, other)
        ]
        return made[0], made[1]

    loss = lost("rmse", value_metrics, 1)
    drawn = [draw() for _ in range(300)]
    true = np.std([loss(*tallies) for tallies in drawn])
    found = [loss_error(*tallies, loss) for tallies in drawn[:100]]
    assert np.mean([each for each in found if each is not None]) == pytest.approx(true, rel=0.2)
    either = np.std([metric_value(value_metrics(total(exact)), "rmse") for exact, _ in drawn])
    assert true < 0.5 * either


def test_fewer_than_two_batches_have_no_error() -> None:
    tally: list[Tally] = [{"right": 1, "asked": 2}]
    assert loss_error(tally, tally, lost("accuracy", class_metrics, -1)) is None


@pytest.mark.parametrize(
    ("loss", "error", "expected"),
    [
        (0.6, 0.1, True),  # of 100: six standard errors, and 0.6 %
        (0.6, 0.4, False),  # chance
        (0.4, 0.1, False),  # certain, and below half a percent
        (0.6, None, True),
        (-5.0, 0.1, False),  # better
        (float("inf"), None, True),
    ],
)
def test_what_counts_as_moved(loss: float, error: float | None, expected: bool) -> None:
    assert moved(loss, error, 100.0) is expected


@pytest.mark.parametrize("batches", [2, 3, 5, 11, 12, 32, 500])
def test_chance_alone_warns_one_time_in_forty(batches: int) -> None:
    """Means of few normal differences, as often against their own standard error as the table of Student says."""
    blocks = min(BLOCKS, batches)
    drawn = np.random.default_rng(0).standard_normal((100_000, blocks))
    error = drawn.std(axis=1, ddof=1) / np.sqrt(blocks)
    share = np.mean(drawn.mean(axis=1) > certain(batches) * error)
    assert share == pytest.approx(1 / 40, abs=0.002)  # four standard deviations
    assert not moved(2.0, 1.0, 1.0, batches=2)
    assert moved(2.1, 1.0, 1.0, batches=32)
