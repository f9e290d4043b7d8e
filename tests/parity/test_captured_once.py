"""What the suite captures once is what an own capture gives; whatever may differ is captured anew."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
import torch
from torch import nn

import loopedge
from loopedge.exporter.capture import capture
from loopedge.model.contract import Tensors
from tests.captured_once import shared
from tests.parity.small import WIDTH, Small, check

TEXT = '<ir_version: 10, opset_import: ["": 23]> g (float[2] x) => (float[2] y) { y = Relu (x) }'
X = torch.ones(2, 7, WIDTH)


class Counted:
    """Stands for a capture, and counts."""

    def __init__(self, folder: Path) -> None:
        self.calls = 0
        self.shared = shared(self._capture, folder)

    def _capture(self, *given: Any) -> ir.Model:
        self.calls += 1
        return ir.from_onnx_text(TEXT)

    def captures(self, module: nn.Module, *, x: torch.Tensor = X, opset: int = 23) -> bool:
        """Tell whether a module is captured anew."""
        before = self.calls
        self.shared("core", module, {"x": x}, {"x": {0: "batch"}}, opset)
        return self.calls > before


def scaled(factor: float) -> nn.Module:
    """Return a module whose code knows a variable of the function around it."""

    class Scaled(Small):
        def coda(self, state: Tensors, context: Tensors) -> Tensors:
            assert isinstance(state, torch.Tensor)
            return state * factor

    return Scaled()


def halved() -> nn.Module:
    class Written(Small):
        def coda(self, state: Tensors, context: Tensors) -> Tensors:
            assert isinstance(state, torch.Tensor)
            return state / 2

    return Written()


def doubled() -> nn.Module:
    class Written(Small):
        def coda(self, state: Tensors, context: Tensors) -> Tensors:
            assert isinstance(state, torch.Tensor)
            return state * 2

    Written.__qualname__ = "halved.<locals>.Written"
    return Written()


def test_what_differs_is_captured_anew(tmp_path: Path) -> None:
    counted = Counted(tmp_path)
    assert counted.captures(Small())
    assert not counted.captures(Small())
    other = Small()
    with torch.no_grad():
        other.linear.bias[0] += 1e-7
    assert counted.captures(other)
    assert counted.captures(Small(), opset=20)
    assert counted.captures(Small(), x=X[:, :5])
    assert counted.captures(Small(), x=X * 2)
    changed = Small()
    changed.loops = 4
    assert counted.captures(changed)
    assert counted.captures(Small().train(False).requires_grad_(False))
    tied, apart = Small(), Small()
    tied.other, apart.other = tied.linear, deepcopy(apart.linear)
    assert counted.captures(tied)
    assert counted.captures(apart)
    assert not counted.captures(deepcopy(apart))


def test_code_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(tmp_path)
    assert counted.captures(halved())
    assert not counted.captures(halved())
    assert counted.captures(doubled())
    assert counted.captures(scaled(2.0))
    assert counted.captures(scaled(2.0)), "the value that it knows is not seen"
    assert counted.captures(Small())
    monkeypatch.setattr(Small, "coda", vars(type(doubled()))["coda"])
    assert counted.captures(Small())


def test_a_file_of_a_user_s_is_always_captured(tmp_path: Path) -> None:
    counted = Counted(tmp_path)
    written = halved()
    type(written).__module__ = "my_model"
    assert counted.captures(written)
    assert counted.captures(written)


def test_what_is_handed_out_may_be_changed(tmp_path: Path) -> None:
    counted = Counted(tmp_path)
    for _ in range(3):
        graph = counted.shared("core", Small(), {"x": X}, {}, 23).graph
        assert [node.op_type for node in graph] == ["Relu"]
        graph.remove(graph[0])
    assert counted.calls == 1


@pytest.mark.slow
def test_an_export_is_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = getattr(capture._capture, "__wrapped__", capture._capture)
    calls: list[str] = []

    def counting(*given: Any) -> ir.Model:
        calls.append(given[0])
        return own(*given)

    model = Small()
    files = [tmp_path / f"{name}.onnx" for name in ("own", "first", "second")]
    monkeypatch.setattr(capture, "_capture", counting)
    check(model, loopedge.export(model, files[0]))
    monkeypatch.setattr(capture, "_capture", shared(counting, tmp_path))
    for path in files[1:]:
        loopedge.export(model, path)
    assert calls == ["prelude", "core", "coda"] * 2
    assert len({path.read_bytes() for path in files}) == 1
