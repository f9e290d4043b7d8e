"""Modules of the user's own: what the exporter finds out about them."""

import typing
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

import loopedge
from loopedge.errors import InputError, LoopCountWarning, VerificationError
from loopedge.model.contract import Tensors
from tests.parity.models import relative_error
from tests.parity.small import WIDTH, Small, check


@pytest.mark.slow
def test_one_tensor_may_be_state_and_context(tmp_path: Path) -> None:
    model = Small()
    check(model, loopedge.export(model, tmp_path / "model.onnx"))


class Doubled(Small):
    """One tensor is two states, and both are outputs."""

    output_names = ("first", "second")

    def prelude(self, x: Tensor) -> tuple[Tensors, Tensors]:  # type: ignore[override]
        y = self.linear(x)
        return (y, y), ()

    def core(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        first, second = state
        return second, torch.tanh(self.linear(first) + second)

    def coda(self, state: Tensors, context: Tensors) -> Tensors:
        return state


@pytest.mark.slow
def test_one_tensor_may_be_two_states(tmp_path: Path) -> None:
    model = Doubled()
    result = loopedge.export(model, tmp_path / "model.onnx")
    x = torch.randn(3, 5, WIDTH)
    given = loopedge.Session(result.path).run({"inputs": x.numpy()})
    with torch.no_grad():
        for name, expected in zip(model.output_names, model(x), strict=True):
            assert relative_error(given[name], expected.numpy()) < 1e-5


class Positioned(Small):
    """Learned positions: it takes no more than ``length`` of them."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.randn(length, WIDTH))

    def prelude(self, x: Tensor) -> tuple[Tensors, Tensors]:  # type: ignore[override]
        return x + self.position[: x.shape[1]], x


@pytest.mark.slow
@pytest.mark.parametrize("length", [9, 16, 28, 48])
def test_a_short_table_of_positions_is_found(length: int, tmp_path: Path) -> None:
    model = Positioned(length)
    result = loopedge.export(model, tmp_path / "model.onnx")
    assert result.notes == [f"the model takes at most {length} positions: longer inputs fail in it"]
    assert loopedge.inspect(result.path).to_json()["metadata"]["max_length"] == length
    check(model, result, length)
    check(model, result, 1)
    longer = torch.randn(1, length + 1, WIDTH)
    with pytest.raises(InputError, match=f"{length + 1} positions, .* at most {length}"):
        loopedge.Session(result.path).run({"inputs": longer.numpy()})


@pytest.mark.slow
def test_a_table_of_one_length_fixes_it(tmp_path: Path) -> None:
    class Fixed(Small):
        def __init__(self) -> None:
            super().__init__()
            self.position = nn.Parameter(torch.randn(7, WIDTH))

        def prelude(self, x: Tensor) -> tuple[Tensors, Tensors]:  # type: ignore[override]
            return x * self.position, x

    model = Fixed()
    result = loopedge.export(model, tmp_path / "model.onnx")
    assert "fixed to 7" in result.notes[0]
    check(model, result, 7)


@pytest.mark.slow
def test_the_inputs_keep_the_names_of_the_prelude(tmp_path: Path) -> None:
    class Two(Small):
        def prelude(self, x: Tensor, extra: Tensor) -> tuple[Tensors, Tensors]:  # type: ignore[override]
            return x, extra

    x = torch.randn(2, 7, WIDTH)
    result = loopedge.export(Two(), tmp_path / "model.onnx", example=(x, x + 1))
    names = [port.name for port in loopedge.inspect(result.path).inputs]
    assert names == ["inputs", "extra"]


@pytest.mark.slow
def test_a_loop_range_and_noise_travel_in_the_file(tmp_path: Path) -> None:
    class Started(Small):
        loop_range = (2, 5)
        random_inputs = {"noise": 0.5}  # noqa: RUF012

        def prelude(self, x: Tensor, noise: Tensor) -> tuple[Tensors, Tensors]:  # type: ignore[override]
            return noise, x

    x = torch.randn(2, 7, WIDTH)
    model = Started()
    result = loopedge.export(
        model, tmp_path / "model.onnx", loops=6, dynamic_loops=True, example=(x, x)
    )
    assert result.notes == ["6 loops asked for, the model was trained with 2 to 5"]
    session = loopedge.Session(result.path)
    with pytest.warns(LoopCountWarning, match="1 loop asked for, .* with 2 to 5"):
        session.run({"inputs": x.numpy()}, loops=1)
    given = session.run({"inputs": x.numpy()}, loops=3, seed=7)["outputs"]
    noise = np.random.default_rng(7).standard_normal((2, 7, WIDTH)) * 0.5
    with torch.no_grad():
        expected = model(x, torch.from_numpy(noise).float(), loops=3).numpy()
    assert relative_error(given, expected) < 1e-5
    outputs = session.run({"inputs": x.numpy(), "noise": noise.astype(np.float32)}, loops=3)
    assert np.array_equal(outputs["outputs"], given)


@pytest.mark.slow
def test_the_forms_agree_for_a_foreign_module(tmp_path: Path) -> None:
    model = Small()
    result = loopedge.export(model, tmp_path / "unrolled.onnx", form="unrolled")
    check(model, result)
    assert not list(ir.load(result.path).graph.subgraphs())


class Literal(Small):
    """Constants of the code in every part: PyTorch gives them all the same name."""

    def prelude(self, x: Tensor) -> tuple[Tensors, Tensors]:  # type: ignore[override]
        return x + torch.tensor(0.5), x

    def core(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        assert isinstance(state, Tensor)
        return torch.tanh(self.linear(state) * torch.tensor([0.25] * WIDTH))

    def coda(self, state: Tensors, context: Tensors) -> Tensors:
        assert isinstance(state, Tensor)
        return state * torch.tensor(3.0)


class Attending(Small):
    """Its padding mask is one row for all queries, which ONNX Runtime's Attention does not take."""

    input_names = ("inputs", "attention_mask")

    def example_inputs(self) -> tuple[Tensor, ...]:
        mask = torch.ones(2, 7, dtype=torch.int64)
        mask[1, 5:] = 0
        return (*super().example_inputs(), mask)

    def prelude(self, x: Tensor, mask: Tensor) -> tuple[Tensors, Tensors]:  # type: ignore[override]
        return x, mask.bool()[:, None, None]

    def core(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        assert isinstance(state, Tensor)
        assert isinstance(context, Tensor)
        q = self.linear(state)[:, None]
        read = nn.functional.scaled_dot_product_attention(q, q, q, attn_mask=context)
        return torch.tanh(state + read[:, 0])


class Rowed(Small):
    """Its table takes only its own values: numbers of rows, and what has a root."""

    def timestep_table(self, loops: int) -> dict[str, Tensor]:
        number = torch.arange(1, loops + 1)
        return {"number": number, "share": number / (loops + 1), "even": number % 2 == 0}

    def core(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        assert isinstance(state, Tensor)
        scale = torch.sqrt(1 - row["share"]) + torch.arange(8.0)[row["number"] - 1]
        return torch.tanh(self.linear(state) * scale) + row["even"]


class Infinite(Small):
    def coda(self, state: Tensors, context: Tensors) -> Tensors:
        assert isinstance(state, Tensor)
        return state.masked_fill(state < 0, float("-inf"))


class InPlace(Small):
    def core(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        assert isinstance(state, Tensor)
        assert isinstance(context, Tensor)
        return state.mul_(0.5).add_(context)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Literal, Attending, Rowed, Infinite, InPlace])
def test_odd_but_right_modules_are_exported(kind: type[Small], tmp_path: Path) -> None:
    loopedge.export(kind(), tmp_path / "model.onnx")


class Plain(nn.Module):
    """No base class and no table: what the contract requires, and that alone."""

    loops = 4

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.seen: list[int] = []

    def prelude(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(x), x

    def core(self, state: Tensor, context: Tensor, row: dict[str, Tensor]) -> Tensor:
        self.seen.append(len(row))
        return torch.tanh(self.linear(state + context))

    def coda(self, state: Tensor, context: Tensor) -> Tensor:
        return state * 2


@pytest.mark.slow
@pytest.mark.parametrize("form", ["loop", "unrolled"])
def test_a_plain_module_without_a_table_is_exported(
    form: typing.Literal["loop", "unrolled"], tmp_path: Path
) -> None:
    model, x = Plain(), torch.randn(3, 5, WIDTH, generator=torch.Generator().manual_seed(0))
    path = loopedge.export(model, tmp_path / "model.onnx", form=form, example=(x[:2],)).path
    weight, bias = model.linear.weight.detach(), model.linear.bias.detach()
    state = torch.zeros_like(x)
    for _ in range(4):
        state = torch.tanh((state + x) @ weight.T + bias)
    given = loopedge.Session(path).run({"inputs": x.numpy()})["outputs"]
    assert relative_error(given, 2 * state.numpy()) < 1e-5
    assert loopedge.inspect(path).tables == []
    assert set(model.seen) == {0}, "the timestep row is an empty dict"


@pytest.mark.slow
def test_a_mask_that_is_added_hides_no_position(tmp_path: Path) -> None:
    """0 keeps a position there: compared at ones alone, nothing would be."""

    class Added(Attending):
        def example_inputs(self) -> tuple[Tensor, ...]:
            return (*Small.example_inputs(self), torch.zeros(2, 7))

        def prelude(self, x: Tensor, mask: Tensor) -> tuple[Tensors, Tensors]:  # type: ignore[override]
            return x, mask[..., None]

        def core(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
            assert isinstance(state, Tensor)
            moved = torch.tanh(self.linear(state) + context)
            return moved * 0 if state.shape[1] > 10 else moved

    with pytest.raises((InputError, VerificationError), match=r"fixes axis 1|differs"):
        loopedge.export(Added(), tmp_path / "model.onnx")


def test_a_module_trains_on_after_export(tmp_path: Path) -> None:
    model = Small().train()
    model.linear.eval()
    loopedge.export(model, tmp_path / "model.onnx")
    assert (model.training, model.linear.training) == (True, False)


def test_an_inner_loop_that_is_not_there_is_reported(tmp_path: Path) -> None:
    result = loopedge.export(Small(), tmp_path / "model.onnx", inner="loop")
    assert "calls no loopedge.inner_loop" in result.notes[0]
