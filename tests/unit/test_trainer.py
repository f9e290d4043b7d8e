"""Training: the same seed gives the same weights, resumed or not; divergence is reported."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from loopedge.data.tables.columns import Columns
from loopedge.errors import DivergedError, InputError
from loopedge.model.checkpoint import load, load_checkpoint
from loopedge.tasks.generated.edit_distance import EditDistanceTask
from loopedge.tasks.generated.sorting import SortingTask
from loopedge.tasks.metrics import metric_value
from loopedge.tasks.series import SeriesTask
from loopedge.tasks.task import Batch, Split, Task, task_from_dict
from loopedge.trainer.config import TrainConfig, make_model_config, make_train_config
from loopedge.trainer.evaluation import evaluate
from loopedge.trainer.pipeline import TrainResult, train
from loopedge.trainer.steps.objective import Objective, asked_of, inputs_of
from loopedge.trainer.steps.optimizer import learning_rate, make_optimizer
from tests.unit.improving import Improving

SIZES = {"d_model": 16, "heads": 2, "loops": 3}


def wave(missing: int = 0) -> SeriesTask:
    values = 50 + 10 * np.sin(np.arange(300) / 4)[:, None]
    observed = np.ones((300, 1), bool)
    observed[np.random.default_rng(0).choice(300, missing, replace=False)] = False
    columns = Columns(names=("y",), values=values, observed=observed)
    return SeriesTask(
        columns, context=12, horizon=3, missing="interpolate" if missing else "refuse"
    )


TASKS: dict[str, Task] = {
    "series": wave(),
    "gaps": wave(missing=40),
    "edit-distance": EditDistanceTask(length=5),
    "sorting": SortingTask(length=4, vocab=6),
}


class KilledError(Exception):
    """Stands for a run that is killed."""


class Unlucky(Improving):
    """Stops the run, or spoils the weights, at a step."""

    def __init__(self, *, stop_at: int) -> None:
        super().__init__(length=4, vocab=6)
        self.stop_at = stop_at

    def batch(self, split: Split, size: int, step: int) -> Batch:
        if split == "train" and step == self.stop_at:
            raise KilledError
        return super().batch(split, size, step)


def run(
    task: Task, target: Path, *, model: dict[str, Any] | None = None, **options: Any
) -> TrainResult:
    verbs = {name: options.pop(name) for name in ("resume", "force", "note") if name in options}
    config = {"steps": 12, "batch_size": 8, "samples": 64, "evaluate_every": 4, **options}
    fields = {**SIZES, **(model or {})}
    return train(
        task, make_model_config(task, **fields), make_train_config(**config), target, **verbs
    )


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = load_checkpoint(path)["state_dict"]
    return state


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = weights_of(one), weights_of(other)
    assert list(first) == list(second)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_the_same_seed_gives_the_same_weights_bit_for_bit(tmp_path: Path, name: str) -> None:
    before = torch.get_rng_state()
    results = [run(TASKS[name], tmp_path / f"{i}.pt", model={"dropout": 0.1}) for i in range(2)]
    assert torch.equal(torch.get_rng_state(), before)
    assert_same_weights(tmp_path / "0.pt", tmp_path / "1.pt")
    assert results[0].test == results[1].test
    run(TASKS[name], tmp_path / "2.pt", model={"dropout": 0.1}, seed=1)
    first, other = weights_of(tmp_path / "0.pt"), weights_of(tmp_path / "2.pt")
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.slow
@pytest.mark.parametrize("stop_at", [6, 9, 11])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, stop_at: int) -> None:
    model = {"dropout": 0.2, "gate_init": 1.0}
    settings: dict[str, Any] = {"model": model, "checkpoint_every": 3, "lr": 0.01, "ema": 0.5}
    whole = run(Improving(length=4, vocab=6), tmp_path / "whole.pt", **settings)
    assert whole.best_step == 12  # else the written model is one from before the interruption
    target = tmp_path / "parts.pt"
    with pytest.raises(KilledError):
        run(Unlucky(stop_at=stop_at), target, **settings)
    assert not target.exists()
    assert (tmp_path / "parts.last.pt").exists()
    notes: list[str] = []
    task = Improving(length=4, vocab=6)
    parts = run(task, target, resume=True, note=notes.append, **settings)
    # The state of a step is saved when the gradient there is known, which it is not at `stop_at`.
    assert parts.resumed_from == (stop_at - 1) // 3 * 3
    assert f"at step {parts.resumed_from} of 12" in notes[0]
    assert_same_weights(tmp_path / "whole.pt", target)
    assert (parts.validation, parts.test) == (whole.validation, whole.test)
    assert (parts.best_step, parts.train_loss) == (whole.best_step, whole.train_loss)
    assert records(parts) == records(whole)
    assert not (tmp_path / "parts.last.pt").exists()


def records(result: TrainResult) -> list[dict[str, Any]]:
    """Read the metrics file without its times."""
    lines = [json.loads(line) for line in Path(result.metrics_path).read_text().splitlines()]
    timed = {"seconds", "tokens_per_second"}
    return [{key: line[key] for key in line if key not in timed} for line in lines]


@pytest.mark.slow
def test_an_unfinished_run_is_neither_dropped_nor_mixed_up(tmp_path: Path) -> None:
    target = tmp_path / "model.pt"
    with pytest.raises(InputError, match="no run to resume"):
        run(TASKS["sorting"], target, resume=True)
    with pytest.raises(KilledError):
        run(Unlucky(stop_at=6), target)
    with pytest.raises(InputError, match="holds an unfinished run"):
        run(TASKS["sorting"], target)
    with pytest.raises(InputError, match=r"belongs to another run: model\.loops was 3 and is 4"):
        run(TASKS["sorting"], target, resume=True, model={"loops": 4})
    with pytest.raises(InputError, match=r"train\.seed was 0 and is 7"):
        run(TASKS["sorting"], target, resume=True, seed=7)
    assert run(TASKS["sorting"], target, resume=True, lr=1e-4).resumed_from == 4
    with pytest.raises(InputError, match="exists already"):
        run(TASKS["sorting"], target)
    state = tmp_path / "model.last.pt"
    state.write_bytes(b"not a state")
    with pytest.raises(InputError, match="is not the state of a run"):
        run(TASKS["sorting"], target, resume=True, force=True)
    run(TASKS["sorting"], target, force=True)
    assert not state.exists()


def test_the_state_holds_plain_tensors_and_values_only(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        run(Unlucky(stop_at=6), tmp_path / "model.pt")
    state = torch.load(tmp_path / "model.last.pt", weights_only=True)
    assert state["step"] == 4
    assert state["settings"]["task"]["name"] == "sorting"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["series", "gaps", "sorting"])
def test_the_loss_decreases_and_a_baseline_is_beaten(tmp_path: Path, name: str) -> None:
    """Far, from every seed that was tried; edit distances are not learned in so few steps."""
    task, model = TASKS[name], {"gate_init": 1.0, "init_std": 0.09}
    config = {"steps": 100, "evaluate_every": 10, "lr": 5e-3, "batch_size": 32}
    result = run(task, tmp_path / "m.pt", model=model, **config)
    losses = [record["train_loss"] for record in records(result)]
    assert losses[-1] < 0.5 * losses[0]
    assert result.train_loss == losses[-1]
    ours = metric_value(result.test, task.metric)
    (known,) = [
        metric_value(scores, task.metric)
        for baseline, scores in result.baselines.items()
        if baseline in {"naive_last", "most_frequent", "expected_order"}
    ]
    assert ours > known if task.higher_is_better else ours < known


@pytest.mark.slow
def test_the_best_model_on_validation_is_written(tmp_path: Path) -> None:
    task = TASKS["series"]
    result = run(task, tmp_path / "m.pt", lr=0.03, steps=40)  # a rate at which the score jumps
    scores = {record["step"]: record["validation"]["rmse"] for record in records(result)}
    assert min(scores, key=scores.__getitem__) == result.best_step
    assert result.validation["rmse"] == scores[result.best_step]
    model = load(tmp_path / "m.pt")
    assert evaluate(model, task, "validation", 64) == result.validation
    assert result.parameters == sum(parameter.numel() for parameter in model.parameters())


def test_the_checkpoint_tells_its_task_and_carries_the_scaling(tmp_path: Path) -> None:
    task = wave()
    run(task, tmp_path / "m.pt")
    checkpoint = load_checkpoint(tmp_path / "m.pt")
    described = dict(checkpoint["task"])
    assert [level["level"] for level in described.pop("intervals")["levels"]] == [80, 95]
    assert described == task.describe()
    assert checkpoint["state_dict"]["input_mean"].item() == pytest.approx(50, abs=1)
    assert checkpoint["state_dict"]["output_scale"].item() == pytest.approx(7, abs=0.5)
    run(TASKS["sorting"], tmp_path / "s.pt")
    rebuilt = task_from_dict(load_checkpoint(tmp_path / "s.pt")["task"])
    assert rebuilt.describe() == TASKS["sorting"].describe()


def test_the_loss_of_a_series_is_in_units_of_its_spread_and_skips_gaps() -> None:
    task = wave()
    model = load_untrained(task)
    batch = task.batch("train", 4, 0)
    spread = model.get_buffer("output_scale").item()
    with torch.no_grad():
        outputs = model(torch.from_numpy(batch.inputs)).numpy()
        targets = batch.targets.copy()
        targets[:, 1] = np.nan
        gappy = Batch(inputs=batch.inputs, targets=targets)
        inputs, scale = inputs_of(gappy, torch.device("cpu")), model.get_buffer("output_scale")
        loss = Objective(kind="values")(
            torch.from_numpy(outputs), torch.from_numpy(targets), inputs, scale
        ) / asked_of("values", gappy)
    expected = np.square((outputs - batch.targets)[:, [0, 2]] / spread).mean()
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def load_untrained(task: SeriesTask) -> Any:
    from loopedge.model.transformer import LoopedTransformer

    model = LoopedTransformer(make_model_config(task, **SIZES))
    scaling = task.scaling()
    assert scaling is not None
    model.set_scaling(
        *(
            torch.from_numpy(getattr(scaling, name))
            for name in ("input_mean", "input_scale", "output_mean", "output_scale")
        )
    )
    return model


def test_divergence_is_reported_with_its_step_and_the_last_checkpoint_stays(tmp_path: Path) -> None:
    class Spoiled(SeriesTask):
        def batch(self, split: Split, size: int, step: int) -> Batch:
            batch = super().batch(split, size, step)
            if split == "train" and step == 9:
                batch.inputs[0, 0, 0] = np.inf
            return batch

    task = Spoiled(wave().columns, context=12, horizon=3)
    target = tmp_path / "model.pt"
    with pytest.raises(DivergedError, match="diverged at step 10 of 12: loss nan") as caught:
        run(task, target, checkpoint_every=4)
    assert "model.last.pt is from before" in caught.value.message
    assert caught.value.hint == "add resume=True lr=0.00025"
    assert not target.exists()
    assert torch.load(tmp_path / "model.last.pt", weights_only=True)["step"] == 8
    with pytest.raises(DivergedError) as caught:
        run(task, tmp_path / "other.pt", checkpoint_every=0)
    assert caught.value.hint == "train with lr=0.00025"
    assert not (tmp_path / "other.last.pt").exists()


@pytest.mark.parametrize("timestep", ["constant", "learned", "sinusoidal"])
def test_gates_and_scales_do_not_decay(timestep: str) -> None:
    from loopedge.model.transformer import LoopedTransformer

    model = LoopedTransformer(make_model_config(TASKS["sorting"], **SIZES, timestep=timestep))
    optimizer = make_optimizer(model, TrainConfig())
    names = {id(value): name for name, value in model.named_parameters()}
    kept = {
        names[id(value)]
        for group in optimizer.param_groups
        if group["weight_decay"] == 0
        for value in group["params"]
    }
    vectors = {name for name, value in model.named_parameters() if value.dim() < 2}
    assert kept == vectors | ({"timestep.rows"} if timestep != "sinusoidal" else set())


def test_warm_up_then_cosine() -> None:
    config = TrainConfig(steps=110, warmup=10, lr=1.0, min_lr_share=0.1)
    rates = [learning_rate(config, step) for step in range(110)]
    assert rates[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert rates[60] == pytest.approx(0.1 + 0.9 * 0.5)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0.1 <= rates[-1] < 0.101
    assert TrainConfig(steps=1).warmup_steps == 0
    assert math.isclose(learning_rate(TrainConfig(steps=1), 0), 1e-3)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("batch_size", 0),
        ("lr", 0.0),
        ("lr", math.nan),
        ("lr", 11.0),
        ("clip", -1.0),
        ("seed", -1),
        ("checkpoint_every", -1),
        ("colour", "red"),
    ],
)
def test_options_out_of_bounds_are_refused(field: str, value: object) -> None:
    with pytest.raises(InputError, match=f"^{field.replace('_', '-')} is "):
        make_train_config(**{field: value})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"d_model": 30, "heads": 4}, "d_model 30 is not a multiple of heads 4"),
        ({"loops": 0}, "loops is 0: input should be greater"),
        ({"vocab_size": 5}, "vocab_size: the task sorting decides it"),
    ],
)
def test_model_sizes_that_do_not_fit_are_refused(fields: dict[str, int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        make_model_config(TASKS["sorting"], **fields)
