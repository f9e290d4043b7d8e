"""What a run can be given besides its length: parts, averages, drawn loops, a teacher, an early end."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import loopedge
from loopedge.errors import InputError, InterruptedRunError, MissingExtraError
from loopedge.model.checkpoint import load_checkpoint
from loopedge.model.contract import Tensors, as_tuple, run_loops
from loopedge.model.transformer import LoopedTransformer
from loopedge.tasks.generated.sorting import SortingTask
from loopedge.tasks.task import Batch, Split
from loopedge.trainer import logs
from loopedge.trainer.config import make_model_config, make_train_config
from loopedge.trainer.pipeline import TrainResult, train
from loopedge.trainer.stability import measure_stability
from loopedge.trainer.steps.average import WeightAverage
from loopedge.trainer.steps.objective import Objective, asked_of, inputs_of
from loopedge.trainer.steps.step import Stepper
from loopedge.trainer.world import World
from tests.unit.improving import Constant, Improving

TASK = SortingTask(length=4, vocab=6)
CPU = torch.device("cpu")
LEARNED = {"timestep": "learned", "init_std": 0.1}


def make_model(**fields: Any) -> LoopedTransformer:
    torch.manual_seed(0)
    sizes = {"d_model": 16, "heads": 2, "loops": 3, **fields}
    return LoopedTransformer(make_model_config(TASK, **sizes))


def run(target: Path, *, model: dict[str, Any] | None = None, **options: Any) -> TrainResult:
    names = ("resume", "force", "note", "teacher", "tensorboard", "task")
    given = {name: options.pop(name) for name in names if name in options}
    sizes = {"d_model": 16, "heads": 2, "loops": 3, **(model or {})}
    config = {"steps": 12, "batch_size": 8, "samples": 64, "evaluate_every": 4, **options}
    task = given.pop("task", TASK)
    return train(
        task, make_model_config(task, **sizes), make_train_config(**config), target, **given
    )


def gradients(model: LoopedTransformer, **options: Any) -> dict[str, torch.Tensor]:
    config = make_train_config(**{"batch_size": 8, **options})
    stepper = Stepper(TASK, model, config, Objective(kind=TASK.kind), World())
    stepper.compute(3)
    return {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert set(one) == set(other)
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def lines(result: TrainResult) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(result.metrics_path).read_text().splitlines()]


def opened_gates(model: LoopedTransformer) -> LoopedTransformer:
    """Give the timestep rows values, so that the core is not the identity."""
    torch.nn.init.normal_(model.timestep.rows, std=0.5)  # type: ignore[arg-type]
    return model


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_the_gradient_of_a_batch_in_parts_is_that_of_the_batch(parts: int) -> None:
    whole = gradients(opened_gates(make_model(**LEARNED)), clip=1e9)
    in_parts = gradients(opened_gates(make_model(**LEARNED)), clip=1e9, accumulate=parts)
    # A sum of 8 samples in another order: 8 * 2^-24 of the magnitudes, which are below 1.
    assert largest_difference(whole, in_parts) < 1e-5


def test_a_batch_that_cannot_be_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="8 samples cannot be split evenly over 1 processes and 3"):
        run(tmp_path / "m.pt", accumulate=3)
    assert list(tmp_path.iterdir()) == []


def test_all_iterations_give_the_whole_gradient_and_fewer_give_another() -> None:
    whole = gradients(opened_gates(make_model(**LEARNED)), clip=1e9)
    same = gradients(opened_gates(make_model(**LEARNED)), clip=1e9, backprop_loops=3)
    assert largest_difference(whole, same) == 0
    cut = gradients(opened_gates(make_model(**LEARNED)), clip=1e9, backprop_loops=1)
    assert largest_difference(whole, cut) > 1e-4
    assert cut["position.weight"].abs().max() > 0  # the prelude still learns
    rows = cut["timestep.rows"].flatten(1).norm(dim=1)
    assert rows[0] == rows[1] == 0  # what the iterations without a gradient read
    assert rows[2] > 0


def test_truncation_changes_gradients_and_no_output() -> None:
    model = opened_gates(make_model(**LEARNED))
    ids = torch.from_numpy(TASK.batch("train", 2, 0).inputs)
    with torch.no_grad():
        whole = as_tuple(run_loops(model, ids))[0]
        cut = as_tuple(run_loops(model, ids, backprop_loops=1))[0]
    torch.testing.assert_close(whole, cut)


def test_loops_are_drawn_per_step_and_the_file_knows_their_range(tmp_path: Path) -> None:
    result = run(tmp_path / "m.pt", model={"min_loops": 2, "loops": 6}, evaluate_every=1)
    drawn = {line["loops"] for line in lines(result)}
    assert drawn <= {2, 3, 4, 5, 6}
    assert len(drawn) > 2
    assert loopedge.load(tmp_path / "m.pt").loop_range == (2, 6)
    with pytest.raises(InputError, match="min_loops 4 is more than loops 3"):
        make_model_config(TASK, loops=3, min_loops=4)


def test_the_average_follows_the_weights() -> None:
    model = make_model()
    average = WeightAverage(model, decay=0.9)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    before = average.model.norm.weight.clone()
    average.update(model, step=0)  # decay (1 + 0) / (10 + 0)
    expected = 0.1 * before + 0.9 * model.norm.weight
    torch.testing.assert_close(average.model.norm.weight, expected)
    start = average.model.norm.weight.clone()
    average.update(model, step=10_000)
    torch.testing.assert_close(average.model.norm.weight, 0.9 * start + 0.1 * model.norm.weight)


def test_averaged_weights_are_judged_and_written(tmp_path: Path) -> None:
    plain = run(tmp_path / "plain.pt", lr=0.01)
    averaged = run(tmp_path / "average.pt", lr=0.01, ema=0.9)
    assert plain.train_loss == averaged.train_loss  # the training itself is the same
    first, other = (
        load_checkpoint(tmp_path / f"{n}.pt")["state_dict"] for n in ("plain", "average")
    )
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_a_resumed_average_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    options: dict[str, Any] = {"ema": 0.9, "checkpoint_every": 3, "patience": 50, "lr": 0.005}
    options["model"] = {"gate_init": 1.0}
    whole = run(tmp_path / "whole.pt", task=Improving(length=4, vocab=6), **options)
    assert whole.best_step == 12  # else the written model is one from before the interruption

    class Stopped(Improving):
        def batch(self, split: Split, size: int, step: int) -> Batch:
            if split == "train" and step == 8:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().batch(split, size, step)

    with pytest.raises(InterruptedRunError, match="interrupted after step 9 of 12") as caught:
        run(tmp_path / "m.pt", task=Stopped(length=4, vocab=6), **options)
    assert caught.value.hint == "the same call with resume=True"
    usable = loopedge.load(tmp_path / "m.best.pt")
    assert usable.config.loops == 3
    task = Improving(length=4, vocab=6)
    resumed = run(tmp_path / "m.pt", resume=True, task=task, **options)
    assert resumed.resumed_from == 9
    straight, stopped = (
        load_checkpoint(tmp_path / f"{n}.pt")["state_dict"] for n in ("whole", "m")
    )
    assert all(torch.equal(straight[name], stopped[name]) for name in straight)
    assert (resumed.best_step, resumed.train_loss) == (whole.best_step, whole.train_loss)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["m.metrics.jsonl", "m.pt", "whole.metrics.jsonl", "whole.pt"]


def test_a_run_ends_early_when_nothing_gets_better(tmp_path: Path) -> None:
    task = Constant(length=4, vocab=6)
    result = run(tmp_path / "m.pt", task=task, steps=400, evaluate_every=5, patience=2)
    assert result.stopped_early
    assert result.steps == 15
    assert result.best_step == 5
    assert not run(tmp_path / "n.pt", task=task, patience=50).stopped_early


def test_signal_handlers_are_put_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    run(tmp_path / "m.pt", steps=1)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_the_soft_loss_is_the_divergence_of_softened_classes() -> None:
    teacher, student = make_model(init_std=0.5), make_model(init_std=0.1)
    batch = TASK.batch("train", 4, 0)
    inputs, targets = inputs_of(batch, CPU), torch.from_numpy(batch.targets)
    with torch.no_grad():
        outputs, taught = student(*inputs), teacher(*inputs)
        hard = Objective(kind="classes")(outputs, targets, inputs, None)
        whole = Objective(kind="classes", teacher=teacher, weight=0.25, temperature=3.0)
        mixed = whole(outputs, targets, inputs, None)
    kept = targets != -100
    p, q = (taught[kept] / 3).softmax(-1), (outputs[kept] / 3).softmax(-1)
    divergence = (p * (p.log() - q.log())).sum() * 9
    torch.testing.assert_close(mixed, 0.75 * hard + 0.25 * divergence)
    same = Objective(kind="classes", teacher=student, weight=1.0)
    assert float(same(outputs, targets, inputs, None)) == pytest.approx(0, abs=1e-4)


def test_a_student_learns_from_an_untied_teacher(tmp_path: Path) -> None:
    run(tmp_path / "teacher.pt", model={"layers": 3, "loops": 1, "timestep": "none"})
    result = run(tmp_path / "m.pt", teacher=tmp_path / "teacher.pt")
    assert result.train_loss != run(tmp_path / "alone.pt").train_loss
    other = SortingTask(length=4, vocab=7)
    with pytest.raises(InputError, match="has vocab_size 8, the student 9"):
        run(tmp_path / "o.pt", teacher=tmp_path / "teacher.pt", task=other)
    longer = SortingTask(length=5, vocab=6)
    with pytest.raises(InputError, match="knows 9 positions, the student 11"):
        run(tmp_path / "o.pt", teacher=tmp_path / "teacher.pt", task=longer)
    with pytest.raises(InputError, match="does not exist"):
        run(tmp_path / "o.pt", teacher=tmp_path / "absent.pt")
    assert not (tmp_path / "o.pt").exists()


def test_a_teacher_of_something_else_is_refused(tmp_path: Path) -> None:
    class Reversed(SortingTask):
        name = "reversing"

    run(tmp_path / "teacher.pt", task=Reversed(length=4, vocab=6), steps=1)
    with pytest.raises(InputError, match="trained with name 'reversing', the student learns 'sort"):
        run(tmp_path / "m.pt", teacher=tmp_path / "teacher.pt")


@pytest.mark.parametrize("option", [{"distill_weight": 0.9}, {"distill_temperature": 1.0}])
def test_options_of_a_teacher_need_one(tmp_path: Path, option: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="needs a teacher"):
        run(tmp_path / "m.pt", **option)
    assert list(tmp_path.iterdir()) == []


def test_another_teacher_is_another_run(tmp_path: Path) -> None:
    for seed in (0, 1):
        run(tmp_path / f"t{seed}.pt", model={"layers": 2, "loops": 1}, seed=seed, steps=1)

    class Killed(SortingTask):
        def batch(self, split: Split, size: int, step: int) -> Batch:
            assert split != "train" or step < 6
            return super().batch(split, size, step)

    with pytest.raises(AssertionError):
        run(tmp_path / "m.pt", task=Killed(length=4, vocab=6), teacher=tmp_path / "t0.pt")
    with pytest.raises(InputError, match=r"belongs to another run: teacher\.sha256"):
        run(tmp_path / "m.pt", resume=True, teacher=tmp_path / "t1.pt")


def test_stability_follows_the_state_through_the_loop() -> None:
    model = opened_gates(make_model(**LEARNED))
    batch = TASK.batch("validation", 8, 0)
    found = measure_stability(model, Objective(kind="classes"), batch, CPU)
    states: list[Tensors] = []
    inputs = inputs_of(batch, CPU)
    run_loops(model.eval(), *inputs, states=states)
    path = [as_tuple(state)[0].detach() for state in states]
    for t in range(3):
        change = (path[t + 1] - path[t]).norm() / path[t].norm()
        assert found.relative_update[t] == pytest.approx(float(change), rel=1e-4)
        norm = path[t + 1].norm(dim=-1).mean()
        assert found.residual_norm[t] == pytest.approx(float(norm), rel=1e-4)
    last = path[-1].requires_grad_()
    outputs = as_tuple(model.coda(last, ()))[0]
    targets = torch.from_numpy(batch.targets)
    loss = Objective(kind="classes")(outputs, targets, inputs, None) / asked_of("classes", batch)
    (gradient,) = torch.autograd.grad(loss, last)
    assert found.gradient_norm[-1] == pytest.approx(float(gradient.norm()), rel=1e-4)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_metrics_file_holds_spikes_and_stability(tmp_path: Path) -> None:
    result = run(tmp_path / "m.pt")
    for line in lines(result):
        assert line["gradient_norm_max"] >= line["gradient_norm"]
        assert {len(values) for values in line["stability"].values()} == {3}
    assert result.to_json()["stability"] == lines(result)[-1]["stability"]


def test_bfloat16_products_train_float32_weights(tmp_path: Path) -> None:
    exact = run(tmp_path / "exact.pt", lr=0.01)
    lower = run(tmp_path / "lower.pt", lr=0.01, precision="bfloat16")
    assert lower.train_loss != exact.train_loss
    assert lower.train_loss == pytest.approx(exact.train_loss, rel=0.02)
    stored = load_checkpoint(tmp_path / "lower.pt")["state_dict"]
    assert {value.dtype for value in stored.values()} == {torch.float32}


@pytest.mark.slow
def test_tensorboard_draws_the_numbers_of_the_metrics_file(tmp_path: Path) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="needs the extra 'tensorboard'",
    )
    result = run(tmp_path / "m.pt", tensorboard=tmp_path / "events")
    events = accumulator.EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    drawn = events.Scalars("validation/accuracy")
    written = [(line["step"], line["validation"]["accuracy"]) for line in lines(result)]
    assert [(e.step, pytest.approx(e.value, rel=1e-6)) for e in drawn] == written
    assert "stability/residual_norm/3" in events.Tags()["scalars"]


def test_tensorboard_that_is_not_installed_is_reported_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import builtins

    real = builtins.__import__

    def fail(name: str, *arguments: Any, **options: Any) -> Any:
        if name.startswith("torch.utils.tensorboard"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", fail)
    with pytest.raises(MissingExtraError, match="needs the extra 'tensorboard'"):
        run(tmp_path / "m.pt", tensorboard=tmp_path / "events")
    assert list(tmp_path.iterdir()) == []


def test_scalars_are_named_by_their_path() -> None:
    line = {"step": 4, "loss": 0.5, "validation": {"rmse": 1.0}, "stability": {"norm": [2.0, 3.0]}}
    assert logs.scalars(line) == {
        "loss": 0.5,
        "validation/rmse": 1.0,
        "stability/norm/1": 2.0,
        "stability/norm/2": 3.0,
    }


def test_a_device_that_is_not_there_is_reported(tmp_path: Path) -> None:
    from loopedge.errors import ProviderError

    config = make_model_config(TASK, d_model=16, heads=2)
    if not torch.cuda.is_available():
        with pytest.raises(ProviderError, match="CUDA device 0 was asked for, PyTorch finds 0"):
            train(TASK, config, make_train_config(steps=1), tmp_path / "m.pt", device="cuda")
    with pytest.raises(InputError, match="one process has nothing to share"):
        train(TASK, config, make_train_config(steps=1), tmp_path / "m.pt", sharding="sharded")


def test_threads_are_set_and_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    before = torch.get_num_threads()
    monkeypatch.setattr(torch, "set_num_threads", counts.append)
    config = make_model_config(TASK, d_model=16, heads=2)
    train(TASK, config, make_train_config(steps=1, samples=8), tmp_path / "m.pt", threads=3)
    assert counts == [3, before]


def test_init_std_scales_the_matrices() -> None:
    for std in (0.02, 0.2):
        weights = make_model(init_std=std).state_dict()["core_layers.0.mlp.up.weight"]
        assert float(weights.std()) == pytest.approx(std, rel=0.1)
    state = make_model(init_std=0.05, embedding_std=0.5).state_dict()
    assert float(state["embedding.weight"].std()) == pytest.approx(0.5, rel=0.2)
    assert float(state["core_layers.0.mlp.up.weight"].std()) == pytest.approx(0.05, rel=0.1)


@pytest.mark.parametrize("timestep", ["constant", "sinusoidal", "learned"])
def test_gates_that_start_at_one_leave_the_model_as_it_is_without(timestep: str) -> None:
    gated = make_model(timestep=timestep, gate_init=1.0)
    plain = make_model(timestep="none")
    state = {name: gated.state_dict()[name] for name in plain.state_dict()}
    plain.load_state_dict(state)
    ids = torch.from_numpy(TASK.batch("train", 2, 0).inputs)
    with torch.no_grad():
        torch.testing.assert_close(as_tuple(gated(ids))[0], as_tuple(plain(ids))[0])
        closed = as_tuple(make_model(timestep=timestep)(ids))[0]
    assert not torch.allclose(closed, as_tuple(plain(ids))[0])
