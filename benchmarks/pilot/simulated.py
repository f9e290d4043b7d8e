"""Pilots that were never run: validation and test metrics drawn from known means, judged as real ones are.

Everything is in deviations of one run. Three arms at 1, 4 and 8 loops; lower is better; the baseline has 0. A run's luck on
validation and on test is correlated by a half. The luck of the test period is that of a mean over overlapping windows of a
forecast whose errors are autocorrelated; nine tenths of it are common to all models.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from loopedge.baselines.scores import BaselineScores
from loopedge.files.arrays import Array
from loopedge.study.design import make_design
from loopedge.study.judging.choice import Choice, decide, honest_quality
from loopedge.study.judging.claims import Claims, claim
from loopedge.study.judging.judgement import Runs, judge_runs
from loopedge.study.judging.period import Windows
from loopedge.study.judging.statements import Decision
from loopedge.study.judging.statistics import paired
from loopedge.study.options import LOOKS, PilotOptions
from loopedge.tasks.generated.sorting import SortingTask

__all__ = [
    "KEYS",
    "Scene",
    "beaten_rates",
    "choice_rates",
    "error_of",
    "flattery",
    "former_rates",
    "outcome_rates",
]

TASK = SortingTask(length=4, vocab=6)

ARMS, LOOPS = ("looped", "constant", "timestep"), (1, 4, 8)
KEYS = [(arm, loops) for loops in LOOPS for arm in ARMS]
MOST = LOOKS[-1]
CORRELATION, COMMON = 0.5, 0.9
WINDOWS, HORIZON, LASTING = 250, 7, 0.5
UNEQUAL = {1: 0.5, 4: 1.0, 8: 1.5}
Noise = Literal["normal", "t3", "unequal"]
Table = dict[tuple[str, int], dict[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What is true.

    Args:
        gains: By loop count, in deviations of a run.
        noise: ``normal``; ``t3``: Student's t of 3 degrees; ``unequal``: more loops, more noise.
        luck: Deviation of the test period's luck.
    """

    gains: tuple[float, float, float] = (0.0, 0.0, 0.0)
    noise: Noise = "normal"
    luck: float = 0.0


def choice_rates(
    scene: Scene, *, margin: float, looks: tuple[int, ...], tables: int, seed: int = 0
) -> dict[str, float]:
    """Return how often each loop count is chosen, how often none, and the mean number of seeds.

    Args:
        scene: What is true.
        margin: In deviations of a run.
        looks: Numbers of seeds after which it is asked whether it is decided.
        tables: Pilots that are drawn.
        seed: Of the draws.
    """
    draw = np.random.default_rng(seed)
    found: dict[str, float] = {str(loops): 0.0 for loops in LOOPS} | {"undecided": 0.0, "seeds": 0}
    for _ in range(tables):
        validation, _ = _drawn(scene, draw)
        choice, seeds = _chosen(validation, margin, looks)
        name = "undecided" if choice.chosen is None else str(choice.chosen.loops)
        found[name] += 1 / tables
        found["seeds"] += seeds / tables
    return found


def beaten_rates(
    scene: Scene, *, margin: float, tables: int, seed: int = 0, origins: int = 1, baselines: int = 1
) -> dict[str, float]:
    """Return how often the baseline is said to be beaten, after as many seeds as the choice takes.

    Args:
        scene: What is true.
        margin: In deviations of a run.
        tables: Pilots that are drawn.
        seed: Of the draws.
        origins: Test periods.
        baselines: As good as each other; the one that is best on test is taken.

    Returns:
        ``any``: the interval of any candidate says so; ``chosen``: that of the chosen or else the best model; ``worse`` and
        ``chosen_worse``: it says that they are worse.
    """
    draw = np.random.default_rng(seed)
    scale = _period_scale()
    found = {"any": 0.0, "worse": 0.0, "chosen": 0.0, "chosen_worse": 0.0}
    for _ in range(tables):
        validation, test = _drawn(scene, draw, origins=origins)
        choice, seeds = _chosen(validation, margin, LOOKS)
        claims = _claims(test, seeds, scene, draw, scale, origins, baselines)
        subject = choice.chosen or choice.best
        interval = None if subject is None else claims.of(subject)
        better = [of.high is not None and of.high < 0 for of in claims.differences.values()]
        worse = [of.low is not None and of.low > 0 for of in claims.differences.values()]
        found["any"] += any(better) / tables
        found["worse"] += any(worse) / tables
        assert interval is not None
        assert interval.low is not None
        assert interval.high is not None
        found["chosen"] += (interval.high < 0) / tables
        found["chosen_worse"] += (interval.low > 0) / tables
    return found


def flattery(
    scene: Scene, *, correlation: float, tables: int, seeds: int = 3, seed: int = 0
) -> dict[str, float]:
    """Return by how much figures of the chosen model are better than it truly is, in deviations of a run.

    Args:
        scene: What is true.
        correlation: Of a run's luck on validation and on test.
        tables: Pilots that are drawn.
        seeds: Of each.
        seed: Of the draws.

    Returns:
        ``test``: its mean test metric; ``honest``: `honest_quality`; both less the mean of what is chosen by the same rule.
        ``error`` is the Monte Carlo error of either.
    """
    draw = np.random.default_rng(seed)
    rows = []
    true = _means(scene)
    for _ in range(tables):
        validation, test = _drawn(scene, draw, correlation=correlation)
        validation, test = (_first(table, seeds) for table in (validation, test))
        choice = decide(validation, margin=1.0, higher_is_better=False, draws=1000)
        taken = choice.chosen or choice.best
        assert taken is not None
        key = (taken.arm, taken.loops)
        honest = honest_quality(validation, test, margin=1.0, higher_is_better=False)
        level = true[KEYS.index(key)]
        rows.append((np.mean(list(test[key].values())) - level, (honest or 0.0) - level))
    each = np.array(rows)
    return {
        "test": float(each[:, 0].mean()),
        "honest": float(each[:, 1].mean()),
        "error": float(each.std(axis=0).max() / math.sqrt(tables)),
    }


def error_of(share: float, tables: int) -> float:
    """Return the Monte Carlo error of a share: one standard deviation, of a share of one in ``tables`` at least."""
    share = min(max(share, 1 / tables), 1 - 1 / tables)
    return math.sqrt(share * (1 - share) / tables)


def _means(scene: Scene) -> Array:
    by_loops = dict(zip(LOOPS, scene.gains, strict=True))
    return np.array([-by_loops[loops] for _, loops in KEYS])


def _drawn(
    scene: Scene,
    draw: np.random.Generator,
    *,
    correlation: float = CORRELATION,
    origins: int = 1,
) -> tuple[Table, Table]:
    """Return validation and test metrics of as many seeds as any look needs."""
    names = _names(MOST, origins)
    shape = (len(KEYS), len(names))
    one, two = (_noise(scene.noise, shape, draw) for _ in range(2))
    mixed = correlation * one + math.sqrt(1 - correlation**2) * two
    level = _means(scene)[:, None]
    validation, test = (
        {
            key: dict(zip(names, row.tolist(), strict=True))
            for key, row in zip(KEYS, rows, strict=True)
        }
        for rows in (level + one, level + mixed)
    )
    return validation, test


def _names(seeds: int, origins: int) -> list[str]:
    return [
        f"s{number}" if origins == 1 else f"s{number}-o{origin}"
        for number in range(seeds)
        for origin in range(origins)
    ]


def _noise(kind: Noise, shape: tuple[int, int], draw: np.random.Generator) -> Array:
    if kind == "t3":
        return draw.standard_t(3, shape) / math.sqrt(3)
    normal = draw.standard_normal(shape)
    if kind == "normal":
        return normal
    scale = np.array([UNEQUAL[loops] for _, loops in KEYS])
    scaled: Array = normal * (scale / math.sqrt(np.square(scale).mean()))[:, None]
    return scaled


def _first(table: Table, seeds: int) -> Table:
    """Return the values of the first seeds; blocks stand seed by seed."""
    blocks = list(table[KEYS[0]])
    kept = blocks[: seeds * len(blocks) // MOST]
    return {key: {block: of[block] for block in kept} for key, of in table.items()}


def _chosen(validation: Table, margin: float, looks: tuple[int, ...]) -> tuple[Choice, int]:
    """Return the choice at the first look that decides, or at the last, and its number of seeds."""
    for seeds in looks:
        choice = decide(
            _first(validation, seeds), margin=margin, higher_is_better=False, draws=1000
        )
        if choice.outcome == "accept":
            break
    return choice, seeds


def _claims(
    test: Table,
    seeds: int,
    scene: Scene,
    draw: np.random.Generator,
    scale: float,
    origins: int,
    baselines: int,
) -> Claims:
    """Return the claims over seeds and over the luck of each period, which is added to the test metrics.

    Half of the luck that all models have in common is the baseline's own.
    """
    values: Table = {key: dict(of) for key, of in _first(test, seeds).items()}
    evidence: dict[str, Any] = {}
    for origin in range(origins):
        name = "" if origins == 1 else f"o{origin}"
        common, own = _windows(draw, 1), _windows(draw, len(KEYS))
        plain = _windows(draw, baselines)
        common = (common - plain[plain.mean(axis=1).argmin()]) / math.sqrt(2)
        changes = (math.sqrt(COMMON) * common + math.sqrt(1 - COMMON) * own) * (scene.luck / scale)
        evidence[name] = changes / WINDOWS
        for key, luck in zip(KEYS, changes.mean(axis=1).tolist(), strict=True):
            for block in values[key]:
                if block.partition("-")[2] == name:
                    values[key][block] += luck
    row = Windows(series=np.zeros(WINDOWS, np.int64), places=np.arange(WINDOWS), reach=HORIZON)
    found = claim(
        values,
        dict.fromkeys(_names(seeds, origins), 0.0),
        evidence=evidence,
        windows=dict.fromkeys(evidence, row),
        draws=1000,
    )
    assert found is not None
    return found


def _windows(draw: np.random.Generator, rows: int) -> Array:
    """Return what windows of a forecast add to its error: means of so many steps of errors that last, (rows, windows)."""
    errors = draw.standard_normal((rows, WINDOWS + HORIZON + 30))
    for step in range(1, errors.shape[1]):
        errors[:, step] += LASTING * errors[:, step - 1]
    sums = np.cumsum(errors[:, 30:], axis=1)
    means: Array = (sums[:, HORIZON:] - sums[:, :-HORIZON])[:, :WINDOWS] / HORIZON
    return means


def _period_scale() -> float:
    """Return the deviation of the mean over the windows of a period."""
    return float(_windows(np.random.default_rng(1), 4000).mean(axis=1).std())


def outcome_rates(
    scene: Scene, *, lead: float, margin: float, tables: int, seeds: int = 3, seed: int = 0
) -> dict[str, float]:
    """Return how often a whole pilot says what, by `Decision.outcome` and `Decision.why`.

    Args:
        scene: What is true.
        lead: By how much one loop is better than the baseline.
        margin: In deviations of a run.
        tables: Pilots that are drawn.
        seeds: Of each.
        seed: Of the draws.
    """
    draw = np.random.default_rng(seed)
    design = make_design(TASK, PilotOptions(arms=ARMS, loops=LOOPS, seeds=seeds))
    found: dict[str, float] = {}
    for _ in range(tables):
        validation, test = (_first(table, seeds) for table in _drawn(scene, draw))
        runs = Runs(
            design=design,
            cells=_cells(validation, test),
            metric="rmse",
            higher_is_better=False,
            baselines={
                f"s{number}": [BaselineScores(name="baseline", test={"rmse": lead})]
                for number in range(seeds)
            },
        )
        verdict = judge_runs(runs, margin=margin).verdict
        decision = verdict.statements[0]
        assert isinstance(decision, Decision)
        name = f"{decision.outcome}: {decision.why}"
        found[name] = found.get(name, 0.0) + 1 / tables
    return dict(sorted(found.items()))


def _cells(validation: Table, test: Table) -> list[dict[str, Any]]:
    """Return what runs of these metrics leave, as far as they are judged."""
    return [
        {
            "name": f"{arm}-r{loops}-{block}",
            "arm": arm,
            "loops": loops,
            "seed": int(block[1:]),
            "status": "done",
            "validation": {"rmse": validation[arm, loops][block]},
            "test": {"rmse": value},
            "int8": None,
            "parameters": 1,
            "gradient_norm_max": None,
        }
        for (arm, loops), of in test.items()
        for block, value in of.items()
    ]


def former_rates(scene: Scene, *, tables: int, seeds: int = 3, seed: int = 0) -> dict[str, float]:
    """Return what the rule before this one chose: the fewest loops not worse than the best by a paired interval."""
    draw = np.random.default_rng(seed)
    found = {str(loops): 0.0 for loops in LOOPS}
    for _ in range(tables):
        validation = _first(_drawn(scene, draw)[0], seeds)
        best = min(KEYS, key=lambda key: sum(validation[key].values()))
        for key in KEYS:
            change = paired(validation[key], validation[best])
            if key == best or (change is not None and not change.excludes_zero):
                found[str(key[1])] += 1 / tables
                break
    return found
