"""The smallest looped module of a user's own, which tests vary."""

import torch
from torch import Tensor, nn

import loopedge
from loopedge.exporter.pipeline import ExportResult
from loopedge.model.contract import Tensors
from tests.parity.models import relative_error

WIDTH = 8


class Small(loopedge.LoopedModule):
    """x = tanh(linear(x) + injected); what the tests below vary."""

    loops = 3

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.linear = nn.Linear(WIDTH, WIDTH)

    def example_inputs(self) -> tuple[Tensor, ...]:
        return (torch.randn(2, 7, WIDTH, generator=torch.Generator().manual_seed(0)),)

    def prelude(self, x: Tensor) -> tuple[Tensors, Tensors]:  # type: ignore[override]
        return x, x

    def core(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        assert isinstance(state, Tensor)
        assert isinstance(context, Tensor)
        return torch.tanh(self.linear(state) + context)

    def coda(self, state: Tensors, context: Tensors) -> Tensors:
        return state


def check(model: Small, result: ExportResult, length: int = 5) -> None:
    x = torch.randn(3, length, WIDTH)
    with torch.no_grad():
        expected = model(x)
    given = loopedge.Session(result.path).run({"inputs": x.numpy()})["outputs"]
    assert relative_error(given, expected.numpy()) < 1e-5
