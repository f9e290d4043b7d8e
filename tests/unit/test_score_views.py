"""What people see of scores and intervals: undefined ones too, and each of several targets."""

import io
from typing import Any

import pytest
from rich.console import Console

from loopedge.baselines.scores import BaselineScores
from loopedge.study.judging.judgement import Runs, judge_runs
from loopedge.trainer.logs import scalars
from loopedge.trainer.progress import ProgressLines
from loopedge_cli.train_view import train_view
from loopedge_cli.view_rows import held_out_rows
from tests.unit.pilot_runs import cells_of, designed

LEVEL = {
    "level": 80,
    "coverage": 0.784,
    "width": [3.21],
    "step_coverage": [[0.8], [0.75]],
    "worst_series": None,
    "worst_coverage": None,
}


class Result:
    """Stands for a `TrainResult`."""

    def __init__(self, scores: dict[str, float | None], **fields: Any) -> None:
        self._fields = {
            "path": "m.pt",
            "metrics_path": "m.metrics.jsonl",
            "task": "series",
            "validation": scores,
            "test": scores,
            "baselines": {"naive_last": scores},
            "parameters": 1000,
            "loops": 2,
            "steps": 4,
            "seconds": 1.0,
            "tokens_per_second": 10.0,
            "best_step": 4,
            "mase_season": 7,
            "mase_scale": [12.25],
            "intervals": {"levels": [LEVEL]},
            **fields,
        }

    def to_json(self) -> dict[str, Any]:
        return self._fields


def shown(result: Result) -> str:
    console = Console(file=io.StringIO(), width=140)
    console.print(train_view(result))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return " ".join(text.split())


def test_an_undefined_score_is_said_so() -> None:
    text = shown(Result({"rmse": 1.5, "mae": 1.25, "mase": None}, mase_scale=[None]))
    assert "series (test) 1.5 1.25 undefined" in text
    assert "naive last (test) 1.5 1.25 undefined" in text
    assert "mase 1 is the mean change over a season of 7 table rows in training: undefined" in text


def test_coverage_is_said_for_each_level() -> None:
    text = shown(Result({"rmse": 1.5, "mae": 1.25, "mase": 0.5}))
    assert "intervals 80 %: 78.4% of test, mean width 3.21; step 1 80.0%, step 2 75.0%" in text
    assert "a season of 7 table rows in training: 12.25" in text
    worst = LEVEL | {"worst_series": "north", "worst_coverage": 0.5}
    wide = {"level": 95, "coverage": None, "step_coverage": [[None]], "width": [None]}
    text = shown(Result({"rmse": 1.5}, intervals={"levels": [worst, LEVEL | wide]}, mase_season=1))
    assert "least in north, 50.0%" in text
    assert "95 %: not measured, the test split holds no value" in text
    assert "over one table row" in text


def test_each_of_several_targets_has_rows_of_its_own() -> None:
    scores = {"scaled_rmse": 0.4, "mase": 0.9}
    scores |= {"rmse.a.b": 1.0, "rmse.c": 2.0, "mae.a.b": 3.0, "mae.c": 4.0, "mase.a.b": 5.0}
    text = shown(Result({**scores, "mase.c": None}, mase_scale=[1.0, None]))
    assert "scores scaled_rmse mase" in text
    assert "series (test) 0.4 0.9" in text
    assert "scores of each target rmse mae mase" in text
    assert "a.b: series (test) 1 3 5" in text
    assert "c: series (test) 2 4 undefined" in text


def test_a_task_without_forecasts_says_nothing_of_them() -> None:
    text = shown(Result({"accuracy": 0.5}, mase_season=None, mase_scale=None, intervals=None))
    assert "mase" not in text
    assert "interval" not in text


def test_origins_differ_in_coverage() -> None:
    origins = [
        {"test": {"rmse": 1.0}, "intervals": {"levels": [LEVEL | {"coverage": share}]}}
        for share in (0.7, 0.9)
    ]
    figures = {"mean": {"rmse": 1.0}, "deviation": {"rmse": None}, "baselines_mean": {}}
    lost = {"test": {"rmse": 1.0}, "intervals": None}
    text = shown(Result({"rmse": 1.0}, origins=[*origins, lost], **figures))
    assert "over the origins 70.0% to 90.0%" in text
    assert "standard deviation undefined" in text


def test_a_line_of_a_run_has_the_scores_over_all_targets() -> None:
    lines: list[str] = []
    progress = ProgressLines(4, lines.append)
    progress.evaluated(4, {"scaled_rmse": 0.5, "mase": None, "rmse.a": 1.0})
    assert lines[0].endswith("validation scaled_rmse 0.5, mase undefined")
    assert scalars({"step": 1, "validation": {"rmse": 1.0, "mase": None}}) == {
        "validation/rmse": 1.0
    }


def test_quantize_shows_mase_and_how_often_intervals_hold() -> None:
    fields = {
        "source": "validation",
        "samples": 10,
        "sqnr_db": 30.0,
        "metric": "rmse",
        "float_score": 1.0,
        "score": 1.1,
        "loss": 0.1,
        "loss_error": None,
        "moved": False,
        "float_scores": {"rmse": 1.0, "mase": 0.5},
        "scores": {"rmse": 1.1, "mase": None},
        "intervals": [{"level": 80, "float_share": 0.8, "share": 0.75}],
    }
    rows = held_out_rows(fields)
    assert ("mase", "0.5 -> undefined") in rows
    assert rows[-1] == (
        "intervals",
        "80 %: 80.0% -> 75.0% of these values; the float model's",
    )
    assert len(held_out_rows(fields | {"metric": "mase"})) == len(rows) - 1


@pytest.mark.parametrize("known", [True, False])
def test_a_pilot_sums_up_mase_beside_what_decides(known: bool) -> None:
    values: dict[Any, list[float | None]] = {
        ("looped", 1): [3.0, 3.2, 3.1],
        ("looped", 4): [None] * 3,
    }
    design = designed(arms=("looped",), loops=[1, 4], seeds=3)
    cells = cells_of(values)
    for cell in cells:
        for part in ("test", "validation", "int8"):
            if part in cell:
                mase = cell[part]["rmse"] / 4 if known else None
                cell[part] |= {"mase": mase, "rmse.y": 1.0}
        cell["baselines"] = {"naive_last": {"rmse": 5.0, "mase": 1.25 if known else None}}
    naive = BaselineScores(name="naive last", test={"rmse": 5.0, "mase": 1.25 if known else None})
    runs = Runs(
        design=design,
        cells=cells,
        metric="rmse",
        higher_is_better=False,
        baselines={f"s{seed}": [naive] for seed in range(3)},
    )
    judged = judge_runs(runs, margin="2%")
    rows = judged.summary
    assert list(rows[0].scores) == ["mase"]
    assert rows[0].to_json()["scores"]["mase"] == (
        {"mean": pytest.approx(0.775), "sd": pytest.approx(0.025), "values": [0.75, 0.8, 0.775]}
        if known
        else None
    )
