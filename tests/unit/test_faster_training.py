"""Compiled layers and bfloat16: the same training, faster."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from loopedge.model.transformer import LoopedTransformer
from loopedge.tasks.generated.sorting import SortingTask
from loopedge.trainer.config import make_model_config, make_train_config
from loopedge.trainer.pipeline import TrainResult, train
from loopedge.trainer.steps.objective import Objective
from loopedge.trainer.steps.step import Stepper
from loopedge.trainer.world import World

# What PyTorch's compiler warns of is its own code, and what it looks at.
pytestmark = [
    pytest.mark.filterwarnings(r"ignore:`torch\.jit\.script_method` is deprecated"),
    pytest.mark.filterwarnings(r"ignore:The \.grad attribute of a Tensor that is not a leaf"),
]
TASK = SortingTask(length=4, vocab=6)
SIZES: dict[str, Any] = {"d_model": 16, "heads": 2, "loops": 3, "timestep": "sinusoidal"}


def losses(steps: int = 3, **options: Any) -> list[float]:
    """Make steps from the same weights; return their losses."""
    torch.manual_seed(0)
    model = LoopedTransformer(make_model_config(TASK, **SIZES)).train()
    # The gates start at zero; a stack that is the identity would compare nothing.
    torch.nn.init.normal_(model.get_submodule("timestep").last.weight, std=0.5)  # type: ignore[union-attr, arg-type]
    config = make_train_config(batch_size=8, lr=1e-2, **options)
    stepper = Stepper(TASK, model, config, Objective(kind="classes"), World())
    made = []
    for step in range(steps):
        made.append(stepper.compute(step))
        stepper.apply(step, made[-1])
    return [one.loss for one in made]


def run(target: Path, **options: Any) -> TrainResult:
    config = make_train_config(**{"steps": 6, "batch_size": 8, "samples": 200, **options})
    return train(TASK, make_model_config(TASK, layers=2, **SIZES), config, target)


@pytest.mark.long  # compiles
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_compiled_layers_give_the_same_losses(precision: str) -> None:
    eager = losses(precision=precision)
    torch.compiler.reset()
    compiled = losses(precision=precision, compile=True)
    # Fused kernels round to bfloat16 less often.
    assert compiled == pytest.approx(eager, rel=1e-5 if precision == "float32" else 2e-2)
    assert len(set(eager)) == len(eager), "the weights move"


@pytest.mark.long  # compiles
def test_a_run_compiles_once_whatever_it_evaluates(tmp_path: Path) -> None:
    torch.compiler.reset()
    counters.clear()
    # Two layers, three iterations; evaluations and the probe have other batch sizes and no gradients.
    compiled = run(tmp_path / "compiled.pt", compile=True, evaluate_every=2)
    assert counters["stats"]["unique_graphs"] == 1
    eager = run(tmp_path / "eager.pt", evaluate_every=2)
    assert counters["stats"]["unique_graphs"] == 1, "a run that does not ask is not compiled"
    assert compiled.train_loss == pytest.approx(eager.train_loss, rel=1e-3)
    states = [
        torch.load(tmp_path / f"{name}.pt", weights_only=True)["state_dict"]
        for name in ("compiled", "eager")
    ]
    assert list(states[0]) == list(states[1])


@pytest.mark.slow
def test_bfloat16_trains_weights_that_stay_float32(tmp_path: Path) -> None:
    result = run(tmp_path / "model.pt", precision="bfloat16", steps=60, lr=1e-2)
    assert result.train_loss < 0.75 * math.log(TASK.vocab + 2), "better than a guess"
    state = torch.load(tmp_path / "model.pt", weights_only=True)["state_dict"]
    assert {value.dtype for value in state.values()} == {torch.float32}
    assert losses(precision="bfloat16") != losses(), "products are rounded"
    assert losses(precision="bfloat16") == pytest.approx(losses(), rel=2e-2)


@pytest.mark.parametrize("timestep", ["sinusoidal", "learned", "constant"])
def test_the_timestep_table_is_not_rounded(timestep: str) -> None:
    torch.manual_seed(0)
    model = LoopedTransformer(make_model_config(TASK, **{**SIZES, "timestep": timestep}))
    for parameter in model.get_submodule("timestep").parameters():
        torch.nn.init.normal_(parameter)
    exact = model.timestep_table(3)
    with torch.autocast("cpu", torch.bfloat16):
        table = model.timestep_table(3)
    assert all(torch.equal(table[name], exact[name]) for name in exact)
