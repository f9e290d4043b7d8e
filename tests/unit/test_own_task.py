"""A task of the user's own: found, tried out, and refused in one line that says what is wrong."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import loopedge
from loopedge.errors import InputError
from loopedge.tasks.own import check_task, load_task
from loopedge.tasks.task import Batch, Split, Task
from loopedge.trainer.evaluation import evaluate

PARITY = "examples.own_task:RunningParity"


class Small(Task):
    """Copies tokens; its parts can be spoiled."""

    name = "small"
    odd = np.int64(3)

    def __init__(self, **spoiled: Any) -> None:
        self.spoiled = spoiled
        self.calls = 0

    def __getattribute__(self, name: str) -> Any:
        spoiled = object.__getattribute__(self, "__dict__").get("spoiled", {})
        if name in {"name", "kind", "metric", "settings", "evaluation"} and name in spoiled:
            return spoiled[name]
        return super().__getattribute__(name)

    def batch(self, split: Split, size: int, step: int) -> Any:
        self.calls += 1
        inputs = np.arange(size * 3).reshape(size, 3) % 5
        fields = {"inputs": inputs, "targets": inputs.copy()}
        for name in ("inputs", "targets", "attention_mask", "units"):
            if name in self.spoiled:
                fields[name] = self.spoiled[name]
        if self.spoiled.get("drifts"):
            fields["targets"] = fields["targets"] + self.calls
        return self.spoiled.get("batch", Batch(**fields))

    def model_fields(self) -> dict[str, Any]:
        return {"vocab_size": 5, "max_length": 3, "read": "all", **self.spoiled.get("fields", {})}


def test_the_example_is_found_seeded_and_described() -> None:
    task = load_task(PARITY, seed=7)
    assert task.seed == 7
    assert task.describe() == {
        "name": "running-parity",
        "kind": "classes",
        "length": 16,
        "seed": 7,
        "metric": "accuracy",
    }
    batch = task.batch("train", 2, 0)
    np.testing.assert_array_equal(batch.targets[:, -1], batch.inputs.sum(axis=1) % 2)


def test_a_task_that_fits_is_taken() -> None:
    check_task(Small())
    mask = np.ones((4, 3), np.int64)
    check_task(Small(attention_mask=mask, fields={"padding": True}))


class Weighed(Small):
    """Scores by the units of each sample."""

    def tally_batch(self, outputs: Any, batch: Batch) -> Any:
        found = self.tally(outputs, batch.targets)
        assert batch.units is not None
        return found | {"units": batch.units.sum()}

    def metrics(self, tally: Any) -> Any:
        return {"accuracy": tally["right"] / tally["units"]}


def test_a_score_may_take_more_of_a_batch_than_its_targets() -> None:
    check_task(Weighed(units=np.ones((4, 5))))
    with pytest.raises(InputError, match="small: tally_batch failed: AssertionError"):
        check_task(Weighed())


@pytest.mark.parametrize(
    ("units", "words"),
    [
        (np.ones((4, 5), np.float32), r"units are float32 \(4, 5\), float64 \(4, 5\) is needed"),
        (np.ones(4), r"units are float64 \(4,\), float64 \(4, 5\) is needed"),
        ([1.0] * 4, "units is list, an array is needed"),
    ],
)
def test_units_that_do_not_fit_are_reported(units: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_task(Small(units=units))


def test_what_scores_a_batch_is_the_users_own_tally() -> None:
    class Half(Small):
        def tally(self, outputs: Any, targets: Any) -> Any:
            return {"right": len(targets), "asked": 2 * len(targets)}

    task = Half()
    batch = task.batch("test", 6, 0)
    assert task.metrics(task.tally_batch(np.zeros((6, 3, 5)), batch)) == {"accuracy": 0.5}
    metrics = evaluate(Constant(), task, "test", 10)
    assert metrics == {"accuracy": 0.5}


class Constant(torch.nn.Module):
    """Says the same everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(5))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.weight.expand(*tokens.shape, 5)


@pytest.mark.parametrize(
    ("spoiled", "words"),
    [
        ({"fields": {"vocab_size": None}}, "must give one of vocab_size and features"),
        ({"name": ""}, "Small has no name"),
        ({"settings": ("width",)}, "settings names width, which is not an attribute"),
        ({"settings": ("odd",)}, "describe holds more than plain values: .*int64"),
        ({"batch": [1, 2]}, "batch of train is list, a Batch is needed"),
        ({"drifts": True}, "batch of train differs from call to call"),
        ({"inputs": [1, 2]}, "inputs is list, an array is needed"),
        ({"inputs": np.zeros((4, 3), np.int32)}, r"are int32 \(4, 3\), int64 \(4, 3\) is needed"),
        ({"inputs": np.full((4, 3), 9)}, "token 9, allowed are 0 to 4"),
        ({"inputs": np.full((4, 3), -1)}, "token -1, allowed are 0 to 4"),
        ({"inputs": np.zeros((3, 3), np.int64)}, r"inputs are int64 \(3, 3\), int64 \(4, 3\)"),
        ({"inputs": np.zeros(4, np.int64)}, r"inputs are int64 \(4,\)"),
        ({"targets": np.zeros((4, 3), np.float32)}, r"targets are float32 .* int64 \(4, 3\) is"),
        ({"targets": np.zeros((4, 2), np.int64)}, r"targets are int64 \(4, 2\), int64 \(4, 3\)"),
        ({"targets": np.full((4, 3), 7)}, "class 7, allowed are 0 to 4"),
        ({"targets": np.full((4, 3), -100)}, "nothing is asked"),
        ({"kind": "values"}, r"targets are int64 \(4, 3\), float32 \(4, 3, 5\) is needed"),
        ({"fields": {"read": "last"}}, r"targets are int64 \(4, 3\), int64 \(4,\) is needed"),
        ({"metric": "f1"}, "metrics gives accuracy, sequence_accuracy, metric says 'f1'"),
        ({"evaluation": lambda *given: iter(())}, "evaluation of train gives no batch"),
        ({"attention_mask": np.ones((4, 3), np.int64)}, "has an attention_mask"),
        ({"fields": {"padding": True}}, "has no attention_mask"),
        (
            {"attention_mask": np.ones((4, 2), np.int64), "fields": {"padding": True}},
            r"attention_mask are int64 \(4, 2\), int64 \(4, 3\) is needed",
        ),
        ({"fields": {"vocab_size": None, "features": 2}}, r"float32 \(4, 3, 2\) is needed"),
    ],
)
def test_what_does_not_fit_is_reported(spoiled: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_task(Small(**spoiled))


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "mine_to_load.py"
    path.write_text(
        "import loopedge\n"
        "def broken(): raise ValueError('no data')\n"
        "def number(): return 3\n"
        "value = 3\n"
        "class Half(loopedge.Task):\n"
        "    name = 'half'\n"
        "    def model_fields(self): return {'vocab_size': 3}\n"
        "    def batch(self, split, size, step): return 1 // 0\n"
        "from loopedge.tasks.generated.sorting import SortingTask\n"
        "def Taken(): return SortingTask(length=4, vocab=6)\n"
    )
    return path


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nowhere:Task", "no Python module nowhere"),
        ("Task", "names no module"),
        ("mine_to_load:Absent", "mine_to_load has no Absent"),
        ("mine_to_load:value", "is neither a class nor a function"),
        ("mine_to_load:number", "gives int, a loopedge.Task is needed"),
        ("mine_to_load:broken", r"failed: ValueError: no data \(mine_to_load.py, line 2\)"),
        (
            "mine_to_load:Half",
            r"half: batch failed: ZeroDivisionError: .* \(mine_to_load.py, line 8\)",
        ),
        ("loopedge:Task", "failed: TypeError"),
        ("mine_to_load:Taken", "sorting is the name of a task of loopedge's own"),
    ],
)
def test_what_cannot_be_loaded_is_reported(module: Path, source: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_task(source)


def test_it_trains_and_its_parts_have_defaults(tmp_path: Path) -> None:
    from loopedge.trainer.config import make_model_config, make_train_config

    task = load_task(PARITY)
    sizes = {"d_model": 16, "heads": 2, "loops": 2}
    config = make_train_config(steps=4, batch_size=8, samples=32)
    result = loopedge.train(task, make_model_config(task, **sizes), config, tmp_path / "m.pt")
    assert set(result.test) == {"accuracy", "sequence_accuracy"}
    assert result.baselines == {}
