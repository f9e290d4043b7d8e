"""Modules that cannot be looped: refused in one line, with the line of their code where PyTorch tells it."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import loopedge
from loopedge.errors import InputError, VerificationError
from loopedge.model.contract import Tensors
from tests.parity.small import WIDTH, Small


class Counting(Small):
    def core(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        self.t = getattr(self, "t", 0) + 1
        return super().core(state, context, row) if self.t < 3 else state


class Noisy(Small):
    def core(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        assert isinstance(state, Tensor)
        return state + torch.randn_like(state)


class Growing(Small):
    def core(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        assert isinstance(state, Tensor)
        return torch.cat([state, state[:, :1]], dim=1)


class Halving(Small):
    def core(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        assert isinstance(state, Tensor)
        return state.half()


class Branching(Small):
    """Reads the iteration through Python control flow."""

    def timestep_table(self, loops: int) -> dict[str, Tensor]:
        return {"t": torch.arange(float(loops))}

    def core(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        if row["t"] > 1:  # the line of Branching
            return state
        return super().core(state, context, row)


class Choosing(Small):
    """The number of chosen positions depends on their values."""

    def core(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        assert isinstance(state, Tensor)
        chosen = state[state > 0]
        return state + chosen.reshape(-1)[: int(chosen.sum())].mean()  # the line of Choosing


OUTSIDE = nn.Parameter(torch.randn(WIDTH, WIDTH))


OUTSIDE_TENSOR = torch.randn(16, WIDTH)


class Reaching(Small):
    def core(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        assert isinstance(state, Tensor)
        return torch.tanh(state @ OUTSIDE)


class ReachingTensor(Small):
    def coda(self, state: Tensors, context: Tensors) -> Tensors:
        assert isinstance(state, Tensor)
        return state @ OUTSIDE_TENSOR.T


class Ignoring(Small):
    def core(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        return context


class Counted(Small):
    def core(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        assert isinstance(state, Tensor)
        return torch.tanh(self.linear(state)) + torch.arange(int(state.shape[1]))[None, :, None]


class Drawing(Small):
    def prelude(self, x: Tensor) -> tuple[Tensors, Tensors]:  # type: ignore[override]
        return torch.randn_like(x), x


class Bare(Small):
    def core(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        return (super().core(state, context, row),)  # type: ignore[return-value]


class Failing(Small):
    def coda(self, state: Tensors, context: Tensors) -> Tensors:
        raise RuntimeError("no such head")


class Dictionary(Small):
    def coda(self, state: Tensors, context: Tensors) -> Tensors:
        return {"logits": state}  # type: ignore[return-value]


class Alone(Small):
    def prelude(self, x: Tensor) -> tuple[Tensors, Tensors]:  # type: ignore[override]
        return x  # type: ignore[return-value]


class Narrow(Small):
    def __init__(self) -> None:
        super().__init__()
        self.bfloat16()


class Broken(Small):
    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            self.linear.bias[2] = float("nan")


def line_of(kind: str) -> str:
    """Return how an error names the line of this file that is marked as a kind's."""
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    number = next(i for i, line in enumerate(lines, 1) if line.endswith(f"# the line of {kind}"))
    return rf"\({Path(__file__).name}, line {number}\)"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Ignoring, "the same state whatever it is given"),
        (Counting, "gives another result each time .* counts its calls"),
        (Noisy, "gives another result each time .* random numbers"),
        (Growing, r"changes state 0 from torch.float32 \(2, 7, 8\) to torch.float32 \(2, 8, 8\)"),
        (Halving, "changes state 0 from torch.float32 .* to torch.float16"),
        (
            Branching,
            f"Python control flow or a shape depends on the values .*{line_of('Branching')}",
        ),
        (
            Choosing,
            f"Python control flow or a shape depends on the values .*{line_of('Choosing')}",
        ),
        (Reaching, r"the core reads a tensor of shape \(8, 8\) that is neither a parameter"),
        (ReachingTensor, r"the coda reads a tensor of shape \(16, 8\) that is neither"),
    ],
)
def test_a_core_that_cannot_be_looped_is_refused(
    kind: type[Small], text: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=text) as caught:
        loopedge.export(kind(), tmp_path / "model.onnx")
    assert caught.value.hint
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Counted, r"the core fixes axis 1 \(sequence\) .* reads that size as a Python number"),
        (Drawing, "the prelude gives another result each time"),
        (Bare, "one state as a tensor and the core as a tuple"),
        (Failing, r"coda fails on the example inputs: RuntimeError: no such head \(test_refused"),
        (Dictionary, "the coda must give outputs of tensors.* it gives dict"),
        (Alone, r"the prelude must give \(state, context\)"),
        (Narrow, "linear.weight is bfloat16, float32 is needed"),
        (Broken, "linear.bias holds a value that is not finite"),
    ],
)
def test_more_that_is_refused(kind: type[Small], text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=text) as caught:
        loopedge.export(kind(), tmp_path / "model.onnx")
    assert caught.value.hint or kind is Broken
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"loops": 0}, "Small.loops is 0"),
        ({"loops": "3"}, "Small.loops is '3'"),
        ({"input_names": ("a", "b")}, "names 2 inputs, its example has 1"),
        ({"random_inputs": {"noise": 1.0}}, "names noise, which is not an input"),
        ({"random_inputs": ["noise"]}, "a dict of deviations is needed"),
        ({"input_names": ("loops",)}, "holds loops, which the graph needs itself"),
        ({"output_names": ("inputs",)}, "calls two inputs or outputs inputs"),
        ({"output_names": "logits"}, "a tuple of names is needed"),
        ({"loop_range": (3, 1)}, "least, most"),
        ({"loop_range": 7}, "least, most"),
        ({"max_length": 7.5}, "a number of positions is needed"),
        ({"example_inputs": None}, "needs example inputs"),
        ({"example_inputs": lambda: ()}, "must be tensors"),
    ],
)
def test_a_wrong_description_is_refused(
    change: dict[str, object], text: str, tmp_path: Path
) -> None:
    model = Small()
    for name, value in change.items():
        object.__setattr__(model, name, value)
    with pytest.raises(InputError, match=text):
        loopedge.export(model, tmp_path / "model.onnx")


def test_a_module_without_the_contract_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Linear is not a LoopedModule") as caught:
        loopedge.export(nn.Linear(2, 2), tmp_path / "model.onnx")
    assert "bring_your_own" in (caught.value.hint or "")


@pytest.mark.slow
def test_a_model_that_amplifies_rounding_is_reported(tmp_path: Path) -> None:
    class Chaotic(Small):
        loops = 200

        def core(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
            assert isinstance(state, Tensor)
            x = (torch.sigmoid(self.linear(state)) / 64 + state) / (1 + 1 / 64)
            return 3.99 * x * (1 - x)

        def prelude(self, x: Tensor) -> tuple[Tensors, Tensors]:  # type: ignore[override]
            return torch.sigmoid(x), ()

    with pytest.raises(
        VerificationError, match=r"PyTorch's own float32 is .* from float64"
    ) as caught:
        loopedge.export(Chaotic(), tmp_path / "model.onnx")
    assert "amplifies rounding" in (caught.value.hint or "")
