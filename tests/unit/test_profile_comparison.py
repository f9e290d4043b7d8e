"""Two profiles compared: what belongs together, what is judged, what is noise, what is refused."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from loopedge.errors import BudgetError, InputError
from loopedge.files.plain_json import dump_json
from loopedge.profiler.comparison.pipeline import check_regressions, compare
from loopedge.profiler.comparison.result import Change, Comparison
from loopedge.profiler.result import Failure, ProfileResult
from loopedge.report.comparison_table import comparison_table
from tests.unit.profiles import MACHINE, make_pair, make_result, make_run, make_sweep

BEFORE = make_result(make_run(), make_run("int8.onnx", peak=29, p50=75.0, time_ratio=0.31))


def after(**changed: Any) -> ProfileResult:
    """Return the same profile with another int8 model."""
    fields: dict[str, Any] = {"peak": 29, "p50": 75.0, "time_ratio": 0.31, **changed}
    return make_result(make_run(), make_run("int8.onnx", **fields))


def change_of(comparison: Comparison, figure: str) -> Change:
    return next(change for change in comparison.runs[1].changes if change.figure == figure)


def test_the_same_profile_twice_has_no_change() -> None:
    compared = compare(make_sweep(), make_sweep(), max_regression=0.0)
    assert len(compared.runs) == 11
    assert all(change.before == change.after for run in compared.runs for change in run.changes)
    assert (compared.new, compared.gone, compared.regressions, compared.cautions) == (
        [],
        [],
        [],
        [],
    )
    check_regressions(compared)
    assert compared.to_json()["runs"][0]["changes"][0]["figure"] == "file_bytes"


@pytest.mark.parametrize(
    ("changed", "figures"),
    [
        ({"peak": 33}, ["anon_bytes", "uss_bytes", "rss_load_bytes", "rss_peak_bytes"]),
        ({"peak": 29.5}, []),  # 1.7 %, ranges of 1 % to either side meet
        ({"file_bytes": int(41.4 * 2**20 * 1.06)}, ["file_bytes"]),
        ({"file_bytes": int(41.4 * 2**20 * 1.04)}, []),
        ({"time_ratio": 0.35}, ["time_ratio"]),
        ({"time_ratio": 0.32}, []),
        ({"p50": 90.0}, ["latency_ms.p50"]),
        ({"peak": 20, "p50": 50.0, "time_ratio": 0.2}, []),
    ],
)
def test_growth_past_what_is_allowed_is_a_regression(
    changed: dict[str, Any], figures: list[str]
) -> None:
    compared = compare(BEFORE, after(**changed), max_regression=0.05)
    assert [item.figure for item in compared.regressions] == figures
    assert compare(BEFORE, after(**changed)).regressions == []
    if figures:
        with pytest.raises(BudgetError, match=r"int8.onnx: .* allowed is a growth by 5%") as caught:
            check_regressions(compared)
        assert caught.value.allowed == 0.05
        assert caught.value.measured is not None
        assert caught.value.measured > 0.05
    else:
        check_regressions(compared)


def test_time_within_the_noise_is_no_regression_however_large() -> None:
    noisy = after(time_ratio=0.40, swing=0.25)
    compared = compare(BEFORE, noisy, max_regression=0.05)
    ratio = change_of(compared, "time_ratio")
    assert (ratio.beyond_noise, ratio.judged, ratio.past) == (False, True, False)
    assert compared.regressions == []
    wide = compare(BEFORE, after(time_ratio=0.332, swing=0.03), max_regression=0.05)
    ratio = change_of(wide, "time_ratio")
    assert ratio.ratio == pytest.approx(1.071, abs=0.001)
    assert (ratio.beyond_noise, ratio.past) == (True, False)  # not every process is past 5 %


def test_one_process_judges_bytes_and_not_times() -> None:
    one = after(peak=33, time_ratio=0.5, processes=1)
    compared = compare(BEFORE, one, max_regression=0.05)
    assert "rss_peak_bytes" in [item.figure for item in compared.regressions]
    assert "time_ratio" not in [item.figure for item in compared.regressions]
    assert any(caution.startswith("One process") for caution in compared.cautions)
    assert change_of(compared, "rss_peak_bytes").beyond_noise is None


def test_less_than_the_kernel_counts_is_no_regression() -> None:
    low = make_result(make_run(peak=10, anon=0.2, swing=0.0))
    grown = make_result(make_run(peak=10, anon=0.4, swing=0.0))
    assert compare(low, grown, max_regression=0.05).regressions == []
    more = make_result(make_run(peak=10, anon=0.6, swing=0.0))
    found = compare(low, more, max_regression=0.05).regressions
    assert [item.figure for item in found] == ["anon_bytes", "uss_bytes"]


def test_another_machine_compares_bytes_alone() -> None:
    other = replace(after(peak=33, time_ratio=2.0, p50=999.0), machine={**MACHINE, "cpu": "ARM"})
    compared = compare(BEFORE, other, max_regression=0.05)
    assert not compared.same_machine
    assert not [
        c
        for run in compared.runs
        for c in run.changes
        if c.figure in ("time_ratio", "load_seconds")
    ]
    assert {item.figure for item in compared.regressions} >= {"rss_peak_bytes"}
    assert compared.cautions == [
        "The machines differ in cpu (Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz, then ARM): times are "
        "not compared, bytes are."
    ]


def test_other_versions_are_reported_and_compared() -> None:
    newer = replace(after(time_ratio=0.5), machine={**MACHINE, "onnxruntime": "1.33.0"})
    compared = compare(BEFORE, newer, max_regression=0.05)
    assert compared.cautions == ["The versions differ: onnxruntime (1.32.0, then 1.33.0)."]
    assert [item.figure for item in compared.regressions] == ["time_ratio"]


def test_ratios_to_another_first_run_and_latencies_of_a_busy_machine_are_not_judged() -> None:
    turned = make_result(*reversed(after(p50=900.0, time_ratio=9.0).runs))
    compared = compare(BEFORE, turned, max_regression=0.05)
    assert [item.figure for item in compared.regressions] == ["latency_ms.p50"]
    assert compared.cautions[0].startswith("The first runs are not the same")
    assert not [c for run in compared.runs for c in run.changes if c.figure == "time_ratio"]
    slow = make_run()
    busy = replace(slow, latency_ms=replace(slow.latency_ms, min=slow.latency_ms.p50 / 3))
    compared = compare(BEFORE, make_result(busy, *after(p50=900.0).runs[1:]), max_regression=0.05)
    assert compared.regressions == []
    assert compared.cautions[0].startswith("The machine was busy")
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(comparison_table(compared))
    shown = console.export_text()
    assert shown.index("The machine was busy") < shown.index("median latency")
    ending = "No judged figure grew by more than 5%; not judged: median latency."
    assert ending in shown


def test_runs_belong_together_by_settings_and_path_or_else_by_name() -> None:
    before = make_result(*(make_run(path="old/tmlt.onnx", loops=loops) for loops in (1, 12)))
    later = make_result(
        make_run(path="new/tmlt.onnx", loops=12), make_run(path="new/tmlt.onnx", loops=48)
    )
    compared = compare(before, later)
    assert [(run.path, run.loops) for run in compared.runs] == [("new/tmlt.onnx", 12)]
    assert (compared.new, compared.gone) == (["tmlt.onnx, 48 loops"], ["tmlt.onnx, 1 loop"])
    twice = [make_run(path="a/tmlt.onnx"), make_run(path="b/tmlt.onnx", peak=90)]
    crossed = compare(make_result(*twice), make_result(*reversed(twice)))
    assert all(c.before == c.after for run in crossed.runs for c in run.changes)
    with pytest.raises(InputError, match="no run in common"):
        compare(before, make_result(make_run("else.onnx")))


def test_a_model_that_fails_afterwards_is_a_regression() -> None:
    failure = Failure(name="int8.onnx", path="int8.onnx", twin=None, reason="killed by SIGKILL")
    failed = make_result(make_run(), failures=[failure])
    compared = compare(BEFORE, failed, max_regression=0.05)
    assert compared.gone == ["int8.onnx"]
    assert compared.regressions[0].reason == "cannot be measured any more: killed by SIGKILL"
    with pytest.raises(BudgetError, match=r"int8\.onnx: cannot be measured any more"):
        check_regressions(compared)
    assert compare(BEFORE, make_result(make_run()), max_regression=0.05).regressions == []


@pytest.mark.parametrize("allowed", [-0.1, float("nan"), float("inf")])
def test_an_allowed_regression_that_is_none_is_refused(allowed: float) -> None:
    with pytest.raises(InputError, match="max_regression is"):
        compare(BEFORE, BEFORE, max_regression=allowed)


def test_people_see_what_changed_and_why_it_does_not_pass() -> None:
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(
        comparison_table(compare(BEFORE, after(peak=33, swing=0.03), max_regression=0.05))
    )
    text = console.export_text()
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "tmlt.onnx nothing changed" in lines
    assert "peak memory 29 MiB 33 MiB 1.14x past what is allowed" in lines
    assert (
        "regression: int8.onnx: peak memory is 1.14x what it was, 29 MiB before and 33 MiB after"
        in text
    )
    console.print(comparison_table(compare(BEFORE, after(peak=29.3), max_regression=0.05)))
    text = console.export_text()
    assert "within the noise" in text
    assert "No judged figure grew by more than 5%." in text


def test_files_are_compared_as_they_were_printed(tmp_path: Path) -> None:
    for name, result in (("a", make_pair()), ("b", make_pair(peak=400))):
        (tmp_path / name).write_text(dump_json(result.to_json()))
    compared = compare(tmp_path / "a", tmp_path / "b", max_regression=0.05)
    assert {item.label for item in compared.regressions} == {"tmlt.onnx (untied)"}
    assert json.loads(json.dumps(compared.to_json()))["max_regression"] == 0.05
