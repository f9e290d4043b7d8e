"""Several processes train what one would; they end well when one of them is lost, hangs or is refused."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from loopedge.errors import InputError
from loopedge.model.checkpoint import load, load_checkpoint
from loopedge.tasks.series import SeriesTask
from loopedge.trainer.evaluation import Answers, evaluate
from loopedge.trainer.world import World, open_world
from tests.parity.processes import CONTEXT, LIMIT, Ended, Fault, free_port, run, start

pytestmark = pytest.mark.long

STEPS = 12
RATE = 0.005
SHARE = 0.01
"""Of the longest way that weights can go: how far those of two runs may be apart."""
SORTING = (
    "train sorting --length 4 --vocab 6 --d-model 16 --heads 2 --loops 3 --batch-size 12 --samples 64 "
    f"--gate-init 1 --lr {RATE} --steps {STEPS} --evaluate-every 4 --checkpoint-every 4"
).split()
SMALL = ("--d-model", 16, "--heads", 2, "--loops", 2, "--batch-size", 4)
AVERAGED = (*SORTING, "--ema", 0.9, "--accumulate", 2)
SHARDED = ("--sharding", "sharded")


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_checkpoint(path)["state_dict"]
    return found


def records(target: Path) -> list[dict[str, Any]]:
    lines = target.with_name(f"{target.stem}.metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def assert_same_course(one: Path, other: Path, within: float = 0.0) -> None:
    """Compare every record; the written weights are those of the last step, see `Improving`."""
    first, second = records(one), records(other)
    for mine, theirs in zip(first, second, strict=True):
        for line in (mine, theirs):
            del line["seconds"], line["tokens_per_second"], line["stability"]
        if not within:
            assert theirs == mine
        for name in ("train_loss", "gradient_norm", "gradient_norm_max"):
            assert theirs[name] == pytest.approx(mine[name], rel=within)
        assert (theirs["step"], theirs["lr"]) == (mine["step"], mine["lr"])


def assert_equal(one: Path, other: Path) -> None:
    first, second = weights_of(one), weights_of(other)
    assert list(first) == list(second)
    assert all(torch.equal(first[name], second[name]) for name in first)


def assert_close(one: Path, other: Path) -> None:
    """Compare weights whose gradients were summed in another order.

    AdamW's first steps have the length of the rate, however small a gradient is: where one is rounding alone,
    a weight goes the other way. A few may, so that the distance of all is compared with the longest way: the
    rate in each step. Rounding makes 3e-7 of it, ten weights that go the other way 0.007, half a batch 0.21.
    """
    first, second = weights_of(one), weights_of(other)
    assert list(first) == list(second)
    apart = sum(float((first[name] - second[name]).square().sum()) for name in first) ** 0.5
    weights = sum(tensor.numel() for tensor in first.values())
    assert apart < SHARE * RATE * STEPS * weights**0.5


def done(ended: list[Ended]) -> None:
    assert [one.code for one in ended] == [0] * len(ended), ended
    assert [one.err for one in ended] == [""] * len(ended)


def error_lines(ended: list[Ended]) -> list[str]:
    """Return the errors that the processes printed; PyTorch's C++ log is left out."""
    lines = [line for one in ended for line in one.err.splitlines()]
    assert not any(line.startswith("Traceback") for line in lines), lines
    return [line for line in lines if line.startswith("error: ")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train in one process, with averaged weights and batches in parts."""
    folder = tmp_path_factory.mktemp("whole")
    done(run(folder, *AVERAGED, "--quiet", "-o", folder / "m.pt", size=1))
    return folder / "m.pt"


@pytest.mark.parametrize("sharding", ["replicated", "sharded"])
@pytest.mark.parametrize(
    "options", [(), ("--ema", 0.9, "--accumulate", 2), ("--min-loops", 1, "--backprop-loops", 2)]
)
def test_two_processes_train_as_one(
    tmp_path: Path, sharding: str, options: tuple[object, ...]
) -> None:
    words = (*SORTING, *options, "--json")
    one, two = tmp_path / "one.pt", tmp_path / "two.pt"
    (alone,) = run(tmp_path, *words, "-o", one, size=1)
    first, second = run(tmp_path, *words, "--sharding", sharding, "-o", two)
    assert (alone.code, first.code, second.code) == (0, 0, 0), (first, second)
    assert (second.out, second.err) == ("", "")
    assert len(first.err.splitlines()) == STEPS // 4  # a note per evaluation
    result, alone_result = json.loads(first.out), json.loads(alone.out)
    assert (result["processes"], alone_result["processes"]) == (2, 1)
    assert result["baselines"] == alone_result["baselines"]
    assert result["parameters"] == alone_result["parameters"]
    assert_close(one, two)
    for mine, theirs in zip(records(one), records(two), strict=True):
        for name in ("train_loss", "gradient_norm", "gradient_norm_max"):
            assert theirs[name] == pytest.approx(mine[name], rel=1e-4), name
        assert (theirs["step"], theirs["loops"], theirs["lr"]) == (
            mine["step"],
            mine["loops"],
            mine["lr"],
        )
    assert sorted(path.name for path in tmp_path.glob("two*")) == ["two.metrics.jsonl", "two.pt"]


@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize("sharding", ["replicated", "sharded"])
def test_a_lost_process_ends_the_others_and_the_run_goes_on(
    tmp_path: Path, whole: Path, sharding: str, lost: int
) -> None:
    target = tmp_path / "m.pt"
    words = (*AVERAGED, "--quiet", "-o", target)
    ended = run(tmp_path, *words, "--sharding", sharding, fault=Fault(rank=lost, step=6))
    assert ended[lost].code == -signal.SIGKILL
    assert ended[1 - lost].code == 1
    (line,) = error_lines(ended)
    assert "another process of the run was lost after step 6 of 12" in line
    assert f"{tmp_path / 'm.last.pt'} holds the run" in line
    assert not target.exists()
    # The first process saves its last whole step; sharded weights cannot be gathered any more.
    kept = 6 if sharding == "replicated" and lost == 1 else 4
    assert torch.load(tmp_path / "m.last.pt", weights_only=True)["step"] == kept
    done(run(tmp_path, *words, "--resume", size=1))
    assert_close(target, whole)
    assert_same_course(target, whole, within=1e-4)


def test_two_processes_resume_exactly(tmp_path: Path) -> None:
    words = (*AVERAGED, "--dropout", 0.2, "--quiet")
    done(run(tmp_path, *words, "-o", tmp_path / "whole.pt"))
    target = ("-o", tmp_path / "parts.pt")
    assert run(tmp_path, *words, *target, fault=Fault(rank=1, step=7))[0].code == 1
    done(run(tmp_path, *words, *target, "--resume"))
    assert_equal(tmp_path / "parts.pt", tmp_path / "whole.pt")
    assert_same_course(tmp_path / "parts.pt", tmp_path / "whole.pt")


def test_both_survivors_of_three_end(tmp_path: Path) -> None:
    words = (*SORTING, "--quiet", "-o", tmp_path / "m.pt")
    ended = run(tmp_path, *words, size=3, fault=Fault(rank=2, step=5))
    assert [one.code for one in ended] == [1, 1, -signal.SIGKILL]
    assert all("another process of the run was lost" in line for line in error_lines(ended))
    assert torch.load(tmp_path / "m.last.pt", weights_only=True)["step"] == 5


def test_a_process_that_hangs_is_lost_after_the_timeout(tmp_path: Path) -> None:
    words = (*SORTING, "--quiet", "-o", tmp_path / "m.pt")
    started = start(tmp_path, *words, fault=Fault(rank=1, step=5, number=signal.SIGSTOP), timeout=3)
    started.processes[0].join(LIMIT)
    assert started.processes[0].exitcode == 1
    assert started.processes[1].is_alive()
    started.processes[1].kill()
    (line,) = error_lines(started.wait())
    assert "another process of the run was lost after step 5" in line
    assert torch.load(tmp_path / "m.last.pt", weights_only=True)["step"] == 5


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_never_comes_is_waited_for_until_the_timeout(
    tmp_path: Path, rank: int
) -> None:
    words = (*SORTING, "--quiet", "-o", tmp_path / "m.pt")
    ended = run(tmp_path, *words, ranks=(rank,), timeout=2)
    assert ended[0].code == 1
    (line,) = error_lines(ended)
    assert "another of the 2 processes of the run was lost, or has not come" in line


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_one_process_ends_all_with_the_state_saved(
    tmp_path: Path, whole: Path, number: int
) -> None:
    target = tmp_path / "m.pt"
    words = (*AVERAGED, "--quiet", "-o", target)
    ended = run(tmp_path, *words, fault=Fault(rank=1, step=6, number=number))
    assert [one.code for one in ended] == [130, 130]
    (line,) = error_lines(ended)
    assert "interrupted after step 7 of 12" in line
    assert torch.load(tmp_path / "m.last.pt", weights_only=True)["step"] == 7
    done(run(tmp_path, *words, "--resume", size=1))
    assert_close(target, whole)
    assert_same_course(target, whole, within=1e-4)


@pytest.mark.long
def test_a_state_fits_any_number_of_processes_and_any_sharding(tmp_path: Path, whole: Path) -> None:
    kinds = {"one": ((), 1), "replicated": ((), 2), "sharded": (SHARDED, 2)}
    for before, (options, size) in kinds.items():
        target = tmp_path / f"{before}.pt"
        stop = Fault(rank=0, step=5, number=signal.SIGTERM)
        words = (*AVERAGED, "--quiet")
        ended = run(tmp_path, *words, *options, "-o", target, size=size, fault=stop)
        assert {one.code for one in ended} == {130}
        for after, (more, count) in kinds.items():
            if before == after:
                continue
            resumed = tmp_path / f"{before}-{after}.pt"
            shutil.copy(tmp_path / f"{before}.last.pt", tmp_path / f"{before}-{after}.last.pt")
            done(run(tmp_path, *words, *more, "-o", resumed, "--resume", size=count))
            assert_close(resumed, whole)
            assert_same_course(resumed, whole, within=1e-4)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--batch-size", 7), "a batch of 7 samples cannot be split evenly over 2 processes"),
        (("--accumulate", 5), "over 2 processes and 5 parts"),
        (("--resume",), "no run to resume"),
        (("--colour", "red"), "No such option"),
        (("--heads", 3), "not a multiple of heads"),
        (("-o", "/nowhere/m.pt"), "folder /nowhere does not exist"),
    ],
)
def test_bad_input_is_reported_once(tmp_path: Path, words: tuple[object, ...], said: str) -> None:
    ended = run(tmp_path, *SORTING, "-o", tmp_path / "m.pt", *words)
    assert [one.code for one in ended] == [2, 2]
    (line,) = error_lines(ended)
    assert said in line
    assert "".join(one.out for one in ended) == ""
    assert list(tmp_path.glob("m*")) == []


def test_a_place_that_is_given_in_part_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with (
        pytest.raises(InputError, match="environment variable RANK expected") as caught,
        open_world(),
    ):
        pass
    assert str(caught.value.hint).startswith("torchrun ")


def test_one_process_has_nothing_to_shard(tmp_path: Path) -> None:
    ended = run(tmp_path, *SORTING, *SHARDED, "-o", tmp_path / "m.pt", size=1)
    assert ended[0].code == 2
    assert "one process has nothing to share its weights with" in ended[0].err


def test_a_divergence_is_reported_once(tmp_path: Path) -> None:
    fault = Fault(rank=1, step=9, diverges=True)
    ended = run(tmp_path, *SORTING, "--quiet", "-o", tmp_path / "m.pt", fault=fault)
    assert [one.code for one in ended] == [1, 1]
    (line,) = error_lines(ended)
    assert f"training diverged at step 10 of {STEPS}" in line
    assert "m.last.pt is from before, of step 8" in line


@pytest.mark.parametrize("sharding", ["replicated", "sharded"])
def test_fewer_samples_than_processes(tmp_path: Path, sharding: str) -> None:
    data = tmp_path / "data.csv"
    rows = [f"{20 + 5 * math.sin(row / 3):.4f}" for row in range(120)]
    data.write_text("\n".join(["sales", *rows]) + "\n")
    columns = ("--target", "sales", "--context", 8, "--horizon", 2)
    words = ("train", "series", data, *columns, *SMALL, "--steps", 4, "--samples", 1)
    done(run(tmp_path, *words, "--quiet", "-o", tmp_path / "one.pt", size=1))
    shared = ("--sharding", sharding, "--quiet", "-o", tmp_path / "two.pt")
    done_two = run(tmp_path, *words, *shared)
    done(done_two)
    ours, theirs = records(tmp_path / "one.pt"), records(tmp_path / "two.pt")
    assert theirs[0]["validation"] == pytest.approx(ours[0]["validation"], rel=1e-5)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in /proc")
def test_no_thread_of_the_processes_is_left_behind(tmp_path: Path) -> None:
    """One that DDP's reducer joined while it kept Python's lock stopped a run for ever."""
    port = free_port()
    ranks = [CONTEXT.Process(target=_leave, args=(rank, port, tmp_path)) for rank in (0, 1)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(LIMIT)
        process.kill()
    for rank in (0, 1):
        inside, after = (tmp_path / f"threads-{rank}").read_text().splitlines()
        assert "gloo" in inside
        assert "gloo" not in after


def _leave(rank: int, port: int, folder: Path) -> None:
    from loopedge.model.transformer import LoopedTransformer
    from loopedge.tasks.generated.sorting import SortingTask
    from loopedge.trainer.config import make_model_config

    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    os.environ.update(place, RANK=str(rank))
    config = make_model_config(SortingTask(length=4, vocab=6), d_model=16, heads=2, loops=2)
    counts = []
    with open_world() as world:
        module = world.wrap(LoopedTransformer(config))
        module(torch.zeros(2, 8, dtype=torch.long)).sum().backward()
        counts.append(_threads())
    counts.append(_threads())
    (folder / f"threads-{rank}").write_text("\n".join(counts))


def _threads() -> str:
    return " ".join(path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm"))


@pytest.mark.long
def test_torchrun_trains_and_prints_once(tmp_path: Path, whole: Path) -> None:
    target = tmp_path / "m.pt"
    words = [str(word) for word in (*AVERAGED, "--json", "-o", target)]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    ended = subprocess.run(
        [*torchrun, "--master-port", str(free_port()), "-m", "loopedge", *words],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=True,
    )
    assert json.loads(ended.stdout)["processes"] == 2
    assert len([line for line in ended.stderr.splitlines() if line.startswith("step ")]) == 3
    for mine, theirs in zip(records(whole), records(target), strict=True):
        assert theirs["train_loss"] == pytest.approx(mine["train_loss"], rel=1e-4)


@pytest.mark.long
def test_a_killed_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    """With ``kill -9`` from outside, wherever the run is."""
    often = ("--steps", 150, "--evaluate-every", 30, "--checkpoint-every", 30)
    words = (*AVERAGED, "--dropout", 0.2, *often, "--quiet")
    done(run(tmp_path, *words, "-o", tmp_path / "whole.pt", size=1))
    target = tmp_path / "parts.pt"
    command = [sys.executable, "-m", "loopedge", *(str(word) for word in (*words, "-o", target))]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        end = time.monotonic() + LIMIT
        while not (tmp_path / "parts.last.pt").exists():
            assert time.monotonic() < end
            time.sleep(0.005)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    done(run(tmp_path, *words, "-o", target, "--resume", size=1))
    assert_equal(target, tmp_path / "whole.pt")


@pytest.mark.parametrize("sharding", ["replicated", "sharded"])
def test_two_processes_fit_intervals_on_all_windows(tmp_path: Path, sharding: str) -> None:
    """The forecasts of both processes, in the order of the windows: as one process has them of the same weights."""
    rows = [f"{day},{20 + 5 * math.sin(day / 3) + (day * 7 % 5) / 5:.4f}" for day in range(299)]
    (tmp_path / "x.csv").write_text("\n".join(["day,sales", *rows]) + "\n")
    words = ["train", "series", tmp_path / "x.csv", "--target", "sales", "--context", 20]
    words += ["--horizon", 3, *SMALL, "--steps", 4, "--sharding", sharding, "--json"]
    first, _ = run(tmp_path, *words, "-o", tmp_path / "m.pt")
    assert first.code == 0, first
    found = json.loads(first.out)
    task = SeriesTask.from_file(tmp_path / "x.csv", targets=["sales"], context=20, horizon=3)
    model, world = load(tmp_path / "m.pt"), World()
    kept = {}
    for split in ("validation", "test"):
        answers = Answers()
        scores = evaluate(model, task, split, 1024, world, answers=answers)
        assert found[split] == pytest.approx(scores, rel=1e-4)
        kept[split] = task.forecasts(split, 1024, answers.whole(world))
    intervals, _ = task.fit_intervals(kept["validation"], kept["test"])
    assert intervals is not None
    alone = intervals.to_json()
    assert found["intervals"]["windows"] == alone["windows"] == task.available("validation")
    for mine, theirs in zip(alone["levels"], found["intervals"]["levels"], strict=True):
        for mine_step, their_step in zip(mine["high"], theirs["high"], strict=True):
            assert their_step == pytest.approx(mine_step, rel=1e-4)
        assert theirs["coverage"] == pytest.approx(mine["coverage"], abs=0.03)
