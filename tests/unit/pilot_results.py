"""Results of pilots made by hand: a yes, a no, an undecided one, one that failed, and one of labels."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from loopedge.study.judging.choice import Choice
from loopedge.study.judging.margin import Margin
from loopedge.study.judging.statements import (
    AgainstBaseline,
    Candidate,
    Chosen,
    Cost,
    Decision,
    Encoding,
    Equivalence,
    MoreLoops,
    NextStep,
    NotConverged,
    Requirements,
    Rounding,
    Stability,
    Statement,
    Untied,
)
from loopedge.study.judging.statistics import Interval, OverSeeds, over_seeds
from loopedge.study.judging.summary import Summary
from loopedge.study.judging.verdict import Verdict
from loopedge.study.plotted.window import PlottedWindow
from loopedge.study.result import SCHEMA_VERSION, PilotResult, Place
from loopedge.study.words.english import headline, sentence
from loopedge.study.words.figures import Names
from tests.unit.profiles import MACHINE

__all__ = ["make_failed", "make_labels", "make_no", "make_undecided", "make_yes"]

KIB = 1024
COMMAND = (
    "loopedge pilot series seattle_weather.csv --target temp_max --time date --context 28 --horizon 7 "
    "--loops 1,4,8 --arms looped,constant,timestep,untied,narrow --d-model 32 --steps 600"
)
TASK: dict[str, Any] = {
    "name": "series",
    "kind": "values",
    "targets": ["temp_max"],
    "context": 28,
    "horizon": 7,
    "season": 365,
    "mase_season": 365,
    "seed": 0,
    "metric": "rmse",
    "rows": {"train": 1022, "validation": 219, "test": 220},
}
MEANS = {
    ("looped", 1): 3.742,
    ("looped", 4): 3.561,
    ("looped", 8): 3.566,
    ("constant", 1): 3.751,
    ("constant", 4): 3.590,
    ("constant", 8): 3.572,
    ("timestep", 1): 3.749,
    ("timestep", 4): 3.522,
    ("timestep", 8): 3.484,
    ("untied", 8): 3.497,
    ("narrow", 8): 3.611,
}
PLAIN = (
    ("climatology + autoregression", 3.611, 3.592, "a year, 2 waves, autoregression of order 3"),
    ("ridge on lags", 3.874, 3.863, "28 lags, penalty 10, measured from the window's mean"),
    ("window mean", 4.021, 3.983, "of the last 7 rows"),
    ("last value", 4.502, 4.481, "no season"),
    ("seasonal naive", 5.013, 4.877, "season 365 (a year) found at 360"),
)


def make_yes() -> PilotResult:
    """Timestep encoding with 8 loops beats every baseline; int8 is slower; two runs were cut short."""
    chosen = Candidate(arm="timestep", loops=8)
    quality = _over(MEANS["timestep", 8], 0.021)
    statements: list[Statement] = [
        Decision(
            outcome="yes",
            why="loops",
            blocks=5,
            counts=(1, 4, 8),
            chosen=chosen,
            best=chosen,
            sure=0.962,
        ),
        AgainstBaseline(
            candidate=chosen,
            baseline="climatology + autoregression",
            about=PLAIN[0][3],
            value=3.592,
            quality=quality,
            difference=Interval(mean=-0.108, low=-0.171, high=-0.044),
            effect="better",
            over="seeds and windows",
            samples=214,
            visible=0.061,
            seasonal=(0.714, 0.737),
        ),
        Chosen(candidate=chosen, sure=0.962, quality=quality, honest=3.493),
        MoreLoops(
            arm="timestep",
            few=1,
            many=8,
            few_quality=_over(3.749, 0.03),
            many_quality=quality,
            difference=Interval(mean=-0.265, low=-0.312, high=-0.218),
            effect="better",
        ),
        Encoding(
            arm="timestep",
            against="constant",
            loops=8,
            difference=Interval(mean=-0.088, low=-0.131, high=-0.045),
            effect="better",
        ),
        Untied(
            arm="untied",
            loops=8,
            against=chosen,
            quality=_over(3.497, 0.03),
            parameters_ratio=5.72,
            difference=Interval(mean=0.013, low=-0.038, high=0.064),
            effect="equal",
        ),
        Equivalence(exponent=0.81, low=0.55, high=1.07),
        Rounding(
            candidate=chosen,
            change=Interval(mean=0.011, low=0.004, high=0.018),
            share=0.0032,
            effect="equal",
            time_ratio=1.38,
        ),
        Cost(
            candidate=chosen,
            file_bytes=81 * KIB,
            memory_bytes=1310 * KIB,
            seconds=0.00131,
            int8_bytes=49 * KIB,
            int8_seconds=0.00181,
            untied_bytes=402 * KIB,
            fewest=1,
            time_ratio=4.62,
            busy=False,
        ),
        Stability(runs=55, diverged={"looped-r8": 1}, failed={}, no_int8={}),
        NotConverged(runs=4, of=55, steps=600),
        Requirements(meets=chosen, nearest=None, model="float", missed={}),
        NextStep(what="deploy", command="loopedge prepare pilot/runs/timestep-r8-s0/model.onnx"),
    ]
    return _result(statements, chosen, windows=_windows(chosen))


def make_no() -> PilotResult:
    """The strongest baseline wins."""
    best = Candidate(arm="looped", loops=4)
    statements: list[Statement] = [
        Decision(
            outcome="no",
            why="baseline",
            blocks=3,
            best=best,
            winner="climatology + autoregression",
            sure=None,
        ),
        AgainstBaseline(
            candidate=best,
            baseline="climatology + autoregression",
            about=PLAIN[0][3],
            value=3.592,
            quality=_over(3.93, 0.06),
            difference=Interval(mean=0.338, low=0.211, high=0.465),
            effect="worse",
            over="seeds and windows",
            samples=214,
            visible=0.061,
            seasonal=(0.806, 0.737),
        ),
        Cost(
            candidate=best,
            file_bytes=52 * KIB,
            memory_bytes=900 * KIB,
            seconds=0.00066,
            int8_bytes=33 * KIB,
            int8_seconds=0.0006,
            untied_bytes=None,
            fewest=1,
            time_ratio=2.4,
            busy=True,
        ),
        Stability(runs=33, diverged={}, failed={}, no_int8={}),
        NotConverged(runs=18, of=33, steps=200),
        NextStep(what="take-baseline"),
    ]
    return _result(statements, None, shift=0.37, seeds=3)


def make_undecided() -> PilotResult:
    """Seeds cannot tell four loops from eight; what would decide it is named."""
    best = Candidate(arm="timestep", loops=8)
    command = f"{COMMAND} --resume --seeds 8"
    statements: list[Statement] = [
        Decision(
            outcome="undecided", why="seeds", blocks=3, best=best, fewest=4, most=8, sure=0.61
        ),
        AgainstBaseline(
            candidate=best,
            baseline="climatology + autoregression",
            about=PLAIN[0][3],
            value=3.592,
            quality=_over(3.484, 0.02),
            difference=Interval(mean=-0.05, low=-0.171, high=0.07),
            effect="undecided",
            over="seeds, windows and origins",
            visible=0.14,
        ),
        MoreLoops(
            arm="timestep",
            few=1,
            many=8,
            few_quality=_over(3.749, 0.03),
            many_quality=_over(3.484, 0.02),
            difference=Interval(mean=-0.265, low=-0.312, high=-0.218),
            effect="better",
        ),
        Equivalence(exponent=None, low=None, high=None, reason="untied-gain-within-noise"),
        Requirements(
            meets=None,
            nearest=Candidate(arm="timestep", loops=4),
            model="int8",
            missed={"latency": (0.0011, 0.0005), "memory": (1100 * KIB, 1024 * KIB)},
        ),
        Stability(runs=66, diverged={}, failed={"constant-r1": 1}, no_int8={}),
        NextStep(what="more-seeds", seeds=5, seconds=732.0, command=command),
    ]
    result = _result(statements, None, seeds=3, windows=_windows(best))
    looks = [
        {"seeds": 3, "outcome": "undecided", "why": "seeds", "seconds": 402.0},
        {"seeds": 5, "outcome": "undecided", "why": "seeds", "seconds": 660.0},
    ]
    left_out = [
        {
            "arm": "looped",
            "loops": 8,
            "runs": 3,
            "share": 0.25,
            "validation": 4.2,
            "reason": "worse",
        }
    ]
    design = {**result.design, "origins": 2}
    return replace(result, looks=looks, left_out=left_out, design=design)


def make_failed() -> PilotResult:
    """Every looped run was lost, and the pilot was stopped."""
    statements: list[Statement] = [
        Decision(outcome="undecided", why="nothing-finished", blocks=0),
        Stability(
            runs=2,
            diverged={"looped-r4": 1},
            failed={"looped-r1": 1},
            no_int8={},
        ),
        NextStep(what="mend-runs"),
    ]
    result = _result(statements, None, seeds=3)
    cells = [
        {**_cell("looped", 1, 0, 0.0), "status": "failed", "reason": "out of memory <at step 3>"},
        {**_cell("looped", 4, 0, 0.0), "status": "diverged", "reason": "loss inf"},
    ]
    for cell in cells:
        for name in ("validation", "test", "int8", "depths", "early_exit", "parameters"):
            cell.pop(name, None)
    rows = [_row("looped", loops, [], lost=1) for loops in (1, 4)]
    board = [p for p in result.leaderboard if p.kind == "plain"]
    board += [
        Place(
            name=f"looped with {loops} loops",
            kind="looped",
            arm="looped",
            loops=loops,
            runs=1,
            finished=0,
            reason=str(cell["reason"]),
        )
        for loops, cell in zip((1, 4), cells, strict=True)
    ]
    design = {**result.design, "arms": ["looped"], "loops": [1, 4]}
    return replace(
        result,
        cells=cells,
        summary=rows,
        leaderboard=board,
        design=design,
        profile={},
        complete=False,
        made=2,
        planned=12,
    )


def make_labels() -> PilotResult:
    """Accuracy, where more is better: logistic regression is right on every sample."""
    best = Candidate(arm="timestep", loops=4)
    statements: list[Statement] = [
        Decision(
            outcome="no",
            why="baseline",
            blocks=3,
            best=best,
            winner="logistic regression on summaries",
        ),
        AgainstBaseline(
            candidate=best,
            baseline="logistic regression on summaries",
            about="means and deviations, strength 1",
            value=1.0,
            quality=_over(0.982, 0.004),
            difference=Interval(mean=-0.018, low=-0.041, high=-0.002),
            effect="worse",
            over="seeds and samples",
            samples=96,
        ),
        Stability(runs=33, diverged={}, failed={}, no_int8={}),
        NextStep(what="take-baseline"),
    ]
    made = _result(statements, None, seeds=3)
    board = [
        replace(p, validation=_accuracy(p.validation), test=_accuracy(p.test), mase=None)
        for p in made.leaderboard
        if p.kind != "plain"
    ]
    board = [
        Place(name="logistic regression on summaries", kind="plain", validation=0.99, test=1.0),
        *board,
        Place(name="most frequent", kind="plain", validation=0.18, test=0.177),
    ]
    task = {"name": "series-labels", "kind": "classes", "metric": "accuracy", "classes": 9}
    rows = [
        replace(
            row,
            quality=_over(_accuracy(row.quality.mean) or 0.0, 0.004) if row.quality else None,
            int8_quality=None,
            scores={},
        )
        for row in made.summary
    ]
    cells = [
        {k: v for k, v in cell.items() if k not in {"depths", "early_exit"}} for cell in made.cells
    ]
    margin = Margin(value=0.0104, text="2%", of="the error of logistic regression on summaries")
    names = Names(
        metric="accuracy",
        margin=margin.value,
        margin_text="2%",
        step=Names.step_of(margin.value, made.verdict.choice.deviation),
    )
    return replace(
        made,
        task=task,
        verdict=replace(made.verdict, margin=margin, names=names),
        metric="accuracy",
        higher_is_better=True,
        leaderboard=board,
        summary=rows,
        cells=cells,
        margin=margin.to_json(),
    )


def _accuracy(error: float | None) -> float | None:
    return None if error is None else round(1.33 - error / 10, 4)


def _over(mean: float, sd: float, seeds: int = 5) -> OverSeeds:
    """Return values around a mean with a deviation."""
    steps = [i - (seeds - 1) / 2 for i in range(seeds)]
    unit = math.sqrt(sum(step**2 for step in steps) / (seeds - 1))
    found = over_seeds([mean + sd * step / unit for step in steps])
    assert found is not None
    return found


def _result(
    statements: Sequence[Statement],
    chosen: Candidate | None,
    *,
    seeds: int = 5,
    shift: float = 0.0,
    windows: Sequence[PlottedWindow] = (),
) -> PilotResult:
    values = {key: mean + shift for key, mean in MEANS.items()}
    cells = [
        _cell(arm, loops, seed, quality)
        for (arm, loops), mean in values.items()
        for seed, quality in enumerate(_over(mean, 0.025, seeds).values)
    ]
    rows = [
        _row(arm, loops, _over(mean, 0.025, seeds).values) for (arm, loops), mean in values.items()
    ]
    recommended = None if chosen is None else {"arm": chosen.arm, "loops": chosen.loops}
    return PilotResult(
        schema_version=SCHEMA_VERSION,
        path="pilot",
        command=COMMAND,
        machine=MACHINE,
        task=TASK,
        notes=["1 time is missing between 2013-01-01 and 2013-12-31: windows do not cross it"],
        design={
            "arms": list(dict.fromkeys(arm for arm, _ in MEANS)),
            "loops": [1, 4, 8],
            "seeds": seeds,
            "first_seed": 0,
            "origins": None,
            "model": {"d_model": 32, "heads": 4},
            "train": {"steps": 600, "batch_size": 32},
            "device": "cpu",
        },
        metric="rmse",
        higher_is_better=False,
        margin={"value": 0.0718, "text": "2%", "of": "the error of climatology + autoregression"},
        verdict=_verdict(statements, recommended),
        leaderboard=_board(values, seeds),
        baselines={},
        summary=rows,
        cells=cells,
        profile={"models": [], "threads": 1, "batch": 1, "sequence": 28},
        seconds=1132.4,
        looks=[{"seeds": seeds, "outcome": "yes", "why": "loops", "seconds": 1100.0}],
        windows=list(windows),
    )


def _verdict(statements: Sequence[Statement], recommended: dict[str, Any] | None) -> Verdict:
    decision = statements[0]
    assert isinstance(decision, Decision)
    names = Names(metric="rmse", margin=0.0718, margin_text="2%", step=0.001)
    sure = {} if decision.best is None else {f"{decision.best.arm}-r{decision.best.loops}": 0.9}
    return Verdict(
        outcome=decision.outcome,
        headline=headline(statements, names),
        sentences=[text for one in statements[1:] if (text := sentence(one, names))],
        statements=list(statements),
        choice=Choice(
            outcome="undecided" if recommended is None else "accept",
            chosen=decision.chosen,
            best=decision.best,
            count=None,
            candidates=sure,
            counts={8: 0.9},
            deviation=0.025,
            degrees=8,
            blocks=decision.blocks,
        ),
        claims=None,
        margin=Margin(value=0.0718, text="2%", of="the error of climatology + autoregression"),
        recommended=recommended,
        baseline={"name": "climatology + autoregression", "about": "", "value": 3.592},
        names=names,
    )


def _board(values: dict[tuple[str, int], float], seeds: int) -> list[Place]:
    places = [
        Place(
            name=f"{arm} with {loops} loops",
            kind="unlooped" if arm in {"untied", "narrow"} else "looped",
            arm=arm,
            loops=loops,
            validation=mean + 0.04,
            test=mean,
            deviation=0.025,
            mase=round(mean / 4.877, 3),
            runs=seeds,
            finished=seeds - ((arm, loops) == ("looped", 8)),
        )
        for (arm, loops), mean in values.items()
    ]
    places += [
        Place(
            name=name,
            kind="plain",
            validation=validation,
            test=test,
            mase=round(test / 4.877, 3),
            about=about,
        )
        for name, validation, test, about in PLAIN
    ]
    places.sort(key=lambda place: place.validation or math.inf)
    return [
        *places,
        Place(name="boosting on lags", kind="plain", reason="scikit-learn ran out of memory"),
    ]


def _cell(arm: str, loops: int, seed: int, quality: float) -> dict[str, Any]:
    """Return a run; its depth curve is best where it was trained."""
    most = 2 * loops
    curve = {
        str(r): {
            "validation": {"rmse": quality + 0.04 + 0.11 * abs(math.log2(r / loops))},
            "test": {"rmse": quality + 0.14 * abs(math.log2(r / loops))},
        }
        for r in range(1, most + 1)
    }
    lost = arm == "looped" and loops == 8 and seed == 2
    cell = {
        "name": f"{arm}-r{loops}-s{seed}",
        "arm": arm,
        "loops": loops,
        "seed": seed,
        "origin": None,
        "status": "diverged" if lost else "done",
        "reason": "loss inf at step 41" if lost else None,
        "validation": {"rmse": quality + 0.04},
        "test": {"rmse": quality},
        "int8": {"rmse": quality + 0.01},
        "int8_reason": None,
        "parameters": 9_000,
        "rate": 2e-3,
        "converged": seed != 1 or loops != 8,
        "stability": {"relative_update": [0.5**i for i in range(loops)]},
        "gradient_norm_max": 2.31,
    }
    if arm in {"untied", "narrow"}:
        return cell | {"depths": None, "early_exit": None}
    early = {
        "tolerance": 0.05,
        "loops": 5.5,
        "validation": {"rmse": quality + 0.05},
        "test": {"rmse": quality + 0.012},
    }
    return cell | {"depths": curve, "early_exit": early if loops == 8 else None}


def _row(arm: str, loops: int, values: Sequence[float], *, lost: int = 0) -> Summary:
    blocks = {f"s{seed}": value for seed, value in enumerate(values)}
    layers = loops if arm == "untied" else 1
    file_bytes, ms = (30 + 51 * layers) * KIB, 0.28 + 0.125 * loops
    fields: dict[str, Any] = {
        "arm": arm,
        "loops": loops,
        "runs": len(values) + lost,
        "diverged": int(arm == "looped" and loops == 8),
        "failed": lost,
        "int8_failed": 0,
        "parameters": 2_000 + 7_000 * layers if values else None,
        "test": blocks,
        "validation": {block: value + 0.04 for block, value in blocks.items()},
        "quality": over_seeds(values),
        "int8_quality": over_seeds([value + 0.011 for value in values]),
        "scores": {"mase": over_seeds([value / 4.877 for value in values])} if values else {},
        "int8_change": Interval(mean=0.011, low=0.004, high=0.018) if values else None,
        "against_fewest": None,
        "against_looped": None,
        "against_constant": None,
        "against_baseline": None,
        "gradient_norm_max": 2.31 if values else None,
        "relative_update": [0.5**i for i in range(loops)] if values else None,
        "cost": _costs(file_bytes, ms, arm, loops) if values else {},
    }
    known = Summary.__dataclass_fields__
    return Summary(**{name: value for name, value in fields.items() if name in known})


def _costs(file_bytes: int, ms: float, arm: str, loops: int) -> dict[str, Any]:
    kinds = {"float": (1.0, 1.0), "int8": (0.6, 1.38)}
    kinds |= {"untied": (5.0, 1.02)} if arm == "timestep" and loops > 1 else {}
    return {
        kind: {
            "file_bytes": int(size * file_bytes),
            "weight_bytes": int(0.9 * size * file_bytes),
            "load_seconds": 0.01,
            "anon_bytes": int(size * 6 * file_bytes),
            "rss_peak_bytes": int(size * 10 * file_bytes + 300 * KIB),
            "time_ratio": time * ms / 0.405,
            "latency_ms": {
                "p50": time * ms,
                "p95": 1.1 * time * ms,
                "p99": 1.3 * time * ms,
                "mean": time * ms,
                "min": 0.95 * time * ms,
                "runs": 60,
            },
        }
        for kind, (size, time) in kinds.items()
    }


def _windows(candidate: Candidate) -> list[PlottedWindow]:
    def wave(first: int, count: int, height: float = 8.0) -> list[float | None]:
        return [round(12 + height * math.sin((first + i) / 4.0), 3) for i in range(count)]

    made = []
    for number, chosen_by in enumerate(("median", "median", "worst")):
        truth = wave(28 + 9 * number, 7)
        history = wave(9 * number, 28)
        if number == 1:
            truth[2] = None
        made.append(
            PlottedWindow(
                arm=candidate.arm,
                loops=candidate.loops,
                chosen_by="worst" if chosen_by == "worst" else "median",
                sample=31 + 17 * number,
                target="temp_max",
                error=2.9 + number,
                history=history,
                truth=truth,
                forecast=wave(28 + 9 * number, 7, 7.0 - 2 * number),
                baseline_name="climatology + autoregression",
                baseline_error=3.1 + number,
                baseline=wave(28 + 9 * number, 7, 4.0),
            )
        )
    return made
