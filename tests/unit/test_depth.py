"""A trained model at other loop counts, its early exit, and what each sample adds to its score."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from loopedge.model.transformer import LoopedTransformer
from loopedge.study.runs.depth import KEPT, TOLERANCES, depth_counts, judge_depths
from loopedge.tasks.generated.edit_distance import EditDistanceTask
from loopedge.tasks.generated.sorting import SortingTask
from loopedge.tasks.sample_tallies import weighted_total
from loopedge.tasks.task import Batch, Split, Task
from loopedge.trainer.config import make_model_config
from loopedge.trainer.evaluation import evaluate
from loopedge.trainer.steps.objective import inputs_of, outputs_of

SAMPLES = 40
SORTING, EDITS = SortingTask(length=4, vocab=6), EditDistanceTask(length=5, letters=3)


def made(task: Task, **fields: Any) -> LoopedTransformer:
    torch.manual_seed(3)
    start = {"d_model": 16, "heads": 2, "init_std": 0.25, "gate_init": 0.5}
    return LoopedTransformer(make_model_config(task, **start | fields)).eval()


def alone(model: LoopedTransformer, task: Task, split: Split, loops: int) -> dict[str, Any]:
    """Score a model at a loop count, in a pass of its own."""
    tallies = []
    for batch in task.evaluation(split, SAMPLES, SAMPLES):
        with torch.no_grad():
            outputs = outputs_of(model, inputs_of(batch, torch.device("cpu")), loops=loops)
        tallies.append(task.tally_batch(outputs.numpy(), batch))
    return dict(task.metrics({name: sum(x[name] for x in tallies) for name in tallies[0]}))


def test_counts_go_to_twice_the_trained_one_and_are_thinned_past_sixteen() -> None:
    assert depth_counts(1) == [1, 2]
    assert depth_counts(8) == list(range(1, 17))
    many = depth_counts(48)
    assert many[:16] == list(range(1, 17))
    assert {48, 96} < set(many)
    assert len(many) <= 16 + 18
    assert depth_counts(1000)[-1] == 2000
    assert len(depth_counts(1000)) <= 16 + 18


@pytest.mark.parametrize("timestep", ["none", "constant", "sinusoidal", "learned"])
@pytest.mark.parametrize("task", [SORTING, EDITS], ids=["sorting", "padded"])
def test_one_pass_gives_what_a_pass_per_count_gives(task: Task, timestep: str) -> None:
    model = made(task, loops=3, timestep=timestep)
    found = judge_depths(model, task, SAMPLES)
    assert list(found.depths) == ["1", "2", "3", "4", "5", "6"]
    for count, splits in found.depths.items():
        for split, metrics in splits.items():
            assert metrics == pytest.approx(alone(model, task, split, int(count)))


def test_the_trained_count_is_what_an_evaluation_gives_and_its_samples_add_up() -> None:
    model = made(EDITS, loops=2, timestep="none")
    found = judge_depths(model, EDITS, 300)
    for split in ("validation", "test"):
        metrics = evaluate(model, EDITS, split, 300)
        assert found.depths["2"][split] == pytest.approx(metrics)
        tallies = found.tallies[split]
        assert all(len(values) == 300 for values in tallies.values())
        assert EDITS.metrics(weighted_total(tallies)) == pytest.approx(metrics)


def test_a_stack_without_a_loop_is_judged_at_its_own_depth() -> None:
    model = made(SORTING, layers=3, loops=1, timestep="none")
    found = judge_depths(model, SORTING, SAMPLES, looped=False)
    assert list(found.depths) == ["1"]
    assert found.early_exit is None
    assert len(found.tallies["test"]["asked"]) == SAMPLES


class SettlingTask(SortingTask):
    """Scores how near the outputs are to those of another model after all its iterations."""

    kind = "values"
    metric = "rmse"
    higher_is_better = False

    def __init__(self, model: LoopedTransformer, loops: int) -> None:
        super().__init__(length=4, vocab=6)
        self.model, self.loops = model, loops

    def batch(self, split: Split, size: int, step: int) -> Batch:
        drawn = super().batch(split, size, step)
        with torch.no_grad():
            right = outputs_of(self.model, inputs_of(drawn, torch.device("cpu")), loops=self.loops)
        return Batch(inputs=drawn.inputs, targets=right.numpy().astype(np.float64) + 1.0)


def exits_of(model: LoopedTransformer, batch: Batch, tolerance: float) -> tuple[Any, Any]:
    """Return the outputs of each sample where it ends by a tolerance, and after how many iterations, sample by sample."""
    outputs, iterations = [], []
    for row in range(len(batch.inputs)):
        states: list[Any] = []
        inputs = torch.from_numpy(batch.inputs[row : row + 1])
        with torch.no_grad():
            model(inputs, states=states)
        moved = [
            float(np.linalg.norm(after - before) / np.linalg.norm(before))
            for before, after in itertools.pairwise(states)
        ]
        count = next((t for t, x in enumerate(moved, 1) if x <= tolerance), model.loops)
        with torch.no_grad():
            outputs.append(outputs_of(model, (inputs,), loops=count).numpy())
        iterations.append(count)
    return np.concatenate(outputs), np.array(iterations)


@pytest.mark.slow
def test_the_early_exit_is_the_loosest_tolerance_that_keeps_the_validation_metric() -> None:
    model = made(SORTING, loops=6, timestep="none", init_std=0.12)
    task = SettlingTask(model, 6)
    found = judge_depths(model, task, SAMPLES).early_exit
    assert found is not None
    kept = []
    for tolerance in TOLERANCES:
        (validation,) = task.evaluation("validation", SAMPLES, SAMPLES)
        outputs, _ = exits_of(model, validation, tolerance)
        value = float(np.sqrt(np.square(outputs - validation.targets).mean()))
        kept.append(value - 1.0 <= KEPT)  # after all iterations the error is 1
    assert kept[TOLERANCES.index(found["tolerance"])]
    assert not any(kept[: TOLERANCES.index(found["tolerance"])])
    (test,) = task.evaluation("test", SAMPLES, SAMPLES)
    outputs, iterations = exits_of(model, test, found["tolerance"])
    assert 1 < iterations.mean() < 6
    assert found["loops"] == pytest.approx(iterations.mean())
    rmse = float(np.sqrt(np.square(outputs - test.targets).mean()))
    assert found["test"]["rmse"] == pytest.approx(rmse, rel=1e-5)


def test_a_state_that_never_settles_has_no_early_exit() -> None:
    model = made(SORTING, loops=2, timestep="none", init_std=0.9)
    assert judge_depths(model, SORTING, SAMPLES).early_exit is None
