"""What a profile's verdict says, and when it says that there is nothing to say."""

from dataclasses import replace

import pytest

from loopedge.profiler.labels import run_labels, swept
from loopedge.profiler.result import IterationTime, Run, Spread
from loopedge.report.profile.cautions import cautions
from loopedge.report.profile.verdict import verdicts
from tests.unit.profiles import (
    make_forms,
    make_gpu,
    make_pair,
    make_result,
    make_run,
    make_soak,
    make_sweep,
)


def test_a_saving_is_reported_with_figures_spread_and_the_cost_of_time() -> None:
    (answer,) = verdicts(make_pair(time_ratio=1.004))
    assert answer == (
        "tmlt.onnx: tying 12 iterations saves memory on this device, at no cost of time beyond the noise "
        "(1.00x, range 0.99x to 1.01x); against the untied twin peak "
        "memory is 5.45x smaller (66 MiB ±1.0% against 360 MiB ±1.0%), anonymous memory after load is "
        "5.45x smaller (29.7 MiB ±1.0% against 162 MiB ±1.0%) and the file is 8.55x smaller (41.4 MiB "
        "against 354 MiB)."
    )


def test_a_difference_of_memory_within_the_noise_is_called_so() -> None:
    (answer,) = verdicts(make_pair(peak=66.5, anon=29.8))
    assert "makes no difference of memory beyond the noise on this device" in answer
    assert (
        "peak memory is the same within the noise (66 MiB ±1.0% against 66.5 MiB ±1.0%)" in answer
    )


def test_less_than_the_kernel_counts_exactly_is_no_difference() -> None:
    small = make_pair(peak=66.2, anon=29.8, swing=0.0)
    exact = replace(small, runs=[replace(make_run(swing=0.0), processes=3), small.runs[1]])
    assert "makes no difference of memory beyond the noise" in verdicts(exact)[0]
    slight = replace(
        exact, runs=[exact.runs[0], make_pair(peak=66.3, anon=29.8, swing=0.0).runs[1]]
    )
    assert "peak memory is 307 KiB smaller (66 MiB against 66.3 MiB)" in verdicts(slight)[0]


def test_memory_that_tying_costs_is_reported() -> None:
    (answer,) = verdicts(make_pair(peak=50, anon=20))
    assert "takes more memory on this device" in answer
    assert "peak memory is 1.32x larger" in answer
    (mixed,) = verdicts(make_pair(peak=90, anon=20))
    assert "saves some memory on this device and takes more elsewhere" in mixed


@pytest.mark.parametrize(
    ("ratio", "said"),
    [
        (1.1, "saves memory on this device and takes less time (0.91x, range 0.90x to 0.92x);"),
        (0.9, "saves memory on this device and takes more time (1.11x, range 1.10x to 1.12x);"),
    ],
)
def test_a_difference_of_time_beyond_the_noise_is_reported(ratio: float, said: str) -> None:
    (answer,) = verdicts(make_pair(time_ratio=ratio))
    assert said in answer


def test_one_process_knows_no_noise() -> None:
    result = make_pair()
    alone = replace(result, runs=[replace(run, processes=1) for run in result.runs])
    assert "saves memory on this device, at 0.98x the time; against" in verdicts(alone)[0]
    assert "±" not in verdicts(alone)[0]
    assert "One process measured each figure: how far it swings is not known." in cautions(alone)


def test_a_sweep_is_answered_at_its_most_loops_and_then_over_them() -> None:
    answer, over, *others = verdicts(make_sweep())
    assert "tying 48 iterations saves memory" in answer
    assert over == (
        "Peak memory from 1 to 48 loops: tied 66 MiB throughout, untied 65.3 MiB to 1.67 GiB."
    )
    assert [sentence.split(":")[0] for sentence in others] == [
        "tmlt.static.per-iteration.int8.onnx against tmlt.onnx, 12 loops",
        "tmlt.onnx (low) against tmlt.onnx, 12 loops",
        "model.pt against tmlt.onnx, 12 loops",
    ]
    assert "0.31x the time" in others[0]


def test_a_gpu_is_judged_by_its_own_memory() -> None:
    tied = make_gpu("tmlt.onnx", weights=41)
    twin = replace(make_gpu("tmlt.onnx (untied)", weights=354), twin="untied", path="tmlt.onnx")
    (answer,) = verdicts(make_result(tied, twin))
    assert "GPU memory is 3.07x smaller (151 MiB against 464 MiB)" in answer
    assert "1.01x the GPU memory" in verdicts(make_forms())[0]


def test_what_speaks_against_the_figures_is_reported() -> None:
    run = make_run()
    assert cautions(make_result(run)) == []
    fallen = replace(run, nodes={"CPUExecutionProvider": 20, "Other": 3})
    busy = replace(run, latency_ms=replace(run.latency_ms, min=run.latency_ms.p50 / 2))
    leaking = replace(run, soak=make_soak(leaks=True))
    wide = replace(run, spread={**run.spread, "rss_peak_bytes": Spread(low=5e7, high=9e7)})
    sentences = cautions(make_result(fallen, busy, leaking, wide))
    assert [sentence.split(":")[0] for sentence in sentences[:2]] == ["tmlt.onnx", "tmlt.onnx"]
    assert "3 of 23 nodes ran on Other, not on CPUExecutionProvider." in sentences[0]
    assert "its anonymous memory grew while it ran" in sentences[1]
    assert "2.00x the fastest" in sentences[2]
    assert "swings by up to 29%" in sentences[3]


def test_runs_are_named_by_what_sets_them_apart() -> None:
    runs = [make_run(loops=loops, batch=batch) for loops in (1, 4) for batch in (1, 8)]
    assert swept(runs) == ["loops", "batch"]
    assert run_labels(runs)[:2] == ["tmlt.onnx, 1 loop, batch 1", "tmlt.onnx, 1 loop, batch 8"]
    assert run_labels(runs, without=("loops", "batch")) == ["tmlt.onnx"] * 4
    twice = [make_run(path="a/tmlt.onnx"), make_run(path="b/tmlt.onnx"), make_run("other.onnx")]
    assert run_labels(twice) == ["tmlt.onnx in a", "tmlt.onnx in b", "other.onnx"]
    assert swept(twice) == []


def test_runs_left_to_the_table_are_counted() -> None:
    runs = [make_run("first.onnx"), *(make_run(f"{i}.onnx") for i in range(6))]
    *_, one = verdicts(make_result(*runs))
    assert one == "1 more run is in the table alone."
    *_, more = verdicts(make_result(*runs, make_run("last.onnx")))
    assert more == "2 more runs are in the table alone."


def test_files_that_differ_by_a_few_bytes_are_as_large() -> None:
    result = make_pair()
    size = result.runs[0].file_bytes
    runs = [replace(run, file_bytes=size + i) for i, run in enumerate(result.runs)]
    assert "the file is as large (41.4 MiB against 41.4 MiB)" in verdicts(make_result(*runs))[0]


def busy(run: Run) -> Run:
    return replace(run, latency_ms=replace(run.latency_ms, min=run.latency_ms.p50 / 2))


def test_a_time_that_was_measured_on_a_busy_machine_says_so_in_its_sentence() -> None:
    pair = make_pair(time_ratio=1.004)
    (answer,) = verdicts(replace(pair, runs=[pair.runs[0], busy(pair.runs[1])]))
    assert "(1.00x, range 0.99x to 1.01x, on a busy machine);" in answer
    alone = replace(pair, runs=[replace(busy(run), processes=1) for run in pair.runs])
    assert "at 1.00x the time (on a busy machine);" in verdicts(alone)[0]
    other = make_result(make_run(), busy(make_run("b.onnx", time_ratio=0.5)))
    assert verdicts(other)[0].endswith("0.50x the time (on a busy machine).")


def test_a_time_of_a_loop_that_stopped_early_says_so_in_its_sentence() -> None:
    steps = [IterationTime(iteration=i, ms=1.0, ops={}) for i in range(3)]
    pair = make_pair()
    early = replace(pair.runs[0], iterations=steps)
    (answer,) = verdicts(replace(pair, runs=[early, pair.runs[1]]))
    assert "tmlt.onnx stopped after 3 of 12 iterations)" in answer
