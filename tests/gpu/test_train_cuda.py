"""On a CUDA device: training there reaches what training on the CPU reaches."""

from pathlib import Path
from typing import Any

import pytest
import torch

import loopedge
from loopedge.tasks.generated.sorting import SortingTask
from loopedge.trainer.config import make_model_config, make_train_config
from loopedge.trainer.pipeline import TrainResult

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this PyTorch finds no CUDA device"),
]

TASK = SortingTask(length=4, vocab=6)


def run(target: Path, device: str, **options: Any) -> TrainResult:
    config = make_train_config(steps=40, batch_size=16, samples=128, lr=5e-3, **options)
    sizes = {"d_model": 32, "heads": 2, "loops": 3}
    return loopedge.train(TASK, make_model_config(TASK, **sizes), config, target, device=device)


def test_the_loss_is_that_of_the_cpu(tmp_path: Path) -> None:
    on_cpu, on_gpu = run(tmp_path / "cpu.pt", "cpu"), run(tmp_path / "gpu.pt", "cuda")
    assert on_gpu.train_loss == pytest.approx(on_cpu.train_loss, rel=0.05)
    state = loopedge.load(tmp_path / "gpu.pt").state_dict()
    assert {value.device.type for value in state.values()} == {"cpu"}


@pytest.mark.parametrize("options", [{"precision": "bfloat16"}, {"ema": 0.9}, {"accumulate": 2}])
def test_the_options_of_a_run_work_there(tmp_path: Path, options: dict[str, Any]) -> None:
    result = run(tmp_path / "m.pt", "cuda", **options)
    assert result.stability is not None
    assert result.train_loss < 2.0
