"""Training with rounded weights: what is rounded, by the rules of the file, and what a run keeps of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import loopedge
from loopedge.errors import InputError
from loopedge.graph.integer_weights.blocks import quantize_blocks
from loopedge.graph.integer_weights.channels import quantize_weight
from loopedge.model.checkpoint import load_checkpoint
from loopedge.model.transformer import LoopedTransformer
from loopedge.tasks.generated.sorting import SortingTask
from loopedge.trainer.config import make_model_config, make_train_config
from loopedge.trainer.pipeline import TrainResult, train
from loopedge.trainer.quantization_aware.nearest import round_blocks, round_channels
from loopedge.trainer.quantization_aware.products import Products
from loopedge.trainer.quantization_aware.rounded_forward import rounded_weights
from loopedge.trainer.steps.objective import Objective
from loopedge.trainer.steps.step import Stepper
from loopedge.trainer.world import World
from tests.parity.models import FLIPS, Sizes, make_inputs, make_model, noise_share
from tests.unit.improving import Improving

TASK = SortingTask(length=4, vocab=6)
SIZES: dict[str, Any] = {"d_model": 16, "heads": 2, "loops": 3, "timestep": "sinusoidal"}


def weight(rows: int = 5, columns: int = 40) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("bits", "size"), [(8, 128), (4, 32), (4, 16), (2, 32)])
def test_blocks_are_rounded_as_a_file_stores_them(bits: int, size: int) -> None:
    exact = weight()
    exact[0] = 0  # a block of zeros
    stored = quantize_blocks(exact.numpy(), bits=bits, block_size=size).floats()
    given = round_blocks(exact, bits=bits, block_size=size).numpy()
    np.testing.assert_allclose(given, stored, atol=1e-6)


def test_channels_are_rounded_as_a_file_stores_them() -> None:
    exact = weight()
    exact[2] = 0
    values, scales = quantize_weight(exact.numpy(), axis=0)
    np.testing.assert_allclose(round_channels(exact).numpy(), values * scales[:, None], atol=1e-6)


def test_gradients_pass_the_rounding() -> None:
    for rounded in (
        round_channels(exact := weight().requires_grad_()),
        round_blocks(exact, bits=4, block_size=32),
    ):
        (gradient,) = torch.autograd.grad(rounded.sum(), exact)
        assert torch.equal(gradient, torch.ones_like(exact))


@pytest.mark.slow
@pytest.mark.parametrize(("aware", "scheme"), [("int8", "dynamic"), ("int4", "weight-int4")])
def test_the_forward_pass_is_that_of_the_file(aware: Any, scheme: str, tmp_path: Path) -> None:
    model = make_model("padded")
    tensors, feeds = make_inputs(model, Sizes(3, 9))
    loopedge.export(model, tmp_path / "model.onnx")
    loopedge.quantize(tmp_path / "model.onnx", tmp_path / "q.onnx", scheme=scheme)
    written = loopedge.Session(tmp_path / "q.onnx").run(feeds)["logits"]
    with torch.no_grad():
        exact = model(*tensors).numpy()
        with rounded_weights(model, aware):
            given = model(*tensors).numpy()
    kept = feeds["attention_mask"].astype(bool)
    # Four bits: the kernel also rounds what it reads, at a fifth of the noise of the weights.
    assert noise_share(given[kept], written[kept], exact[kept]) < FLIPS


def test_iterations_without_gradients_leave_the_weights_theirs() -> None:
    torch.manual_seed(0)
    model = LoopedTransformer(make_model_config(TASK, **SIZES)).train()
    torch.nn.init.normal_(model.get_submodule("timestep").last.weight, std=0.5)  # type: ignore[union-attr, arg-type]
    config = make_train_config(batch_size=8, backprop_loops=1, quantization_aware="int4")
    Stepper(TASK, model, config, Objective(kind="classes"), World()).compute(0)
    gradients = {name: value.grad for name, value in model.named_parameters()}
    assert all(found is not None and bool(found.any()) for found in gradients.values())


def test_the_network_of_the_timestep_table_is_not_rounded() -> None:
    model = make_model("tokens")
    exact = model.timestep_table(3)
    with rounded_weights(model, "int8"):
        given = model.timestep_table(3)
    assert all(torch.equal(given[name], rows) for name, rows in exact.items())


def run(target: Path, task: SortingTask = TASK, **options: Any) -> TrainResult:
    verbs = {name: options.pop(name) for name in ("resume", "teacher") if name in options}
    fields = {"steps": 6, "batch_size": 8, "samples": 60, "evaluate_every": 2, **options}
    return train(
        task, make_model_config(task, **SIZES), make_train_config(**fields), target, **verbs
    )


def test_a_run_is_recorded_and_can_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Improving(length=4, vocab=6)
    options: dict[str, Any] = {"quantization_aware": "int4", "ema": 0.9, "patience": 5}
    whole, parts = tmp_path / "whole.pt", tmp_path / "parts.pt"
    run(whole, task, **options)
    apply = Stepper.apply

    def stopping(self: Stepper, step: int, made: Any) -> None:
        if step == 4:
            raise KeyboardInterrupt
        apply(self, step, made)

    with monkeypatch.context() as patched:
        patched.setattr(Stepper, "apply", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(parts, task, checkpoint_every=2, **options)
    with pytest.raises(InputError, match="quantization_aware was 'int4' and is None"):
        run(parts, task, resume=True, ema=0.9, patience=5)
    run(parts, task, resume=True, checkpoint_every=2, **options)
    one, other = (load_checkpoint(path) for path in (whole, parts))
    assert one["quantization_aware"] == other["quantization_aware"] == "int4"
    for name, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name


def test_a_plain_run_records_nothing_and_a_teacher_stays_exact(tmp_path: Path) -> None:
    run(tmp_path / "plain.pt")
    assert "quantization_aware" not in load_checkpoint(tmp_path / "plain.pt")
    run(tmp_path / "taught.pt", quantization_aware="int8", teacher=tmp_path / "plain.pt")
    assert load_checkpoint(tmp_path / "taught.pt")["quantization_aware"] == "int8"


def test_what_does_not_go_together() -> None:
    with pytest.raises(InputError, match="compiled layers cannot be trained quantization-aware"):
        make_train_config(quantization_aware="int8", compile=True)
    with pytest.raises(InputError, match="quantization-aware is 'int2'"):
        make_train_config(quantization_aware="int2")


class Doubling:
    """Stands for a rounding: it doubles every weight that it is asked for, and counts them."""

    def __init__(self) -> None:
        self.asked = 0

    def product(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        self.asked += 1
        return x @ weight.mT * 2

    def weight(self, weight: torch.Tensor) -> torch.Tensor | None:
        self.asked += 1
        return weight * 2

    def rounded_input(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return x

    def table(self, table: torch.Tensor) -> torch.Tensor:
        return table * 2


X, W = torch.randn(2, 3, 4), torch.randn(5, 4)
PRODUCTS = {
    "linear": lambda: torch.nn.functional.linear(X, W),
    "matmul": lambda: torch.matmul(X, W.T),
    "operator": lambda: X @ W.T,
    "from the left": lambda: W @ X.mT,
    "method": lambda: X.matmul(W.T),
    "mm": lambda: torch.mm(X[0], W.T),
    "addmm": lambda: torch.addmm(torch.zeros(5), X[0], W.T),
    "einsum": lambda: torch.einsum("bsd,ed->bse", X, W),
    "convolution": lambda: torch.nn.functional.conv1d(X.mT, W[:, :, None]),
    "embedding": lambda: torch.nn.functional.embedding(torch.tensor([1, 3]), W),
    "index": lambda: W[torch.tensor([1, 3])],
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_is_found_however_it_is_written(name: str) -> None:
    exact, doubling = PRODUCTS[name](), Doubling()
    with Products(doubling):
        given = PRODUCTS[name]()
    torch.testing.assert_close(given, 2 * exact)


def test_attention_of_torch_computes_with_rounded_weights() -> None:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, bias=False, batch_first=True).eval()
    x = torch.randn(2, 3, 8)
    doubling = Doubling()
    with Products(doubling), torch.no_grad():
        given = attention(x, x, x)[0]
    twice = nn.MultiheadAttention(8, 2, bias=False, batch_first=True).eval()
    twice.load_state_dict({name: 2 * value for name, value in attention.state_dict().items()})
    with torch.no_grad():
        torch.testing.assert_close(given, twice(x, x, x)[0])
