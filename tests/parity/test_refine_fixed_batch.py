"""Refining for a file that takes batches of one size."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

import loopedge
from loopedge_calibration.samples import CHOSE_TOO

BATCH, WIDTH = 4, 32


class TwoLinears(nn.Module):
    """Two products with a ReLU between."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH, bias=False)
        self.last = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Compute y."""
        return self.last(torch.relu(self.first(x)))  # type: ignore[no-any-return]


def written(module: TwoLinears, path: Path) -> Path:
    weights = {
        name: each.weight.detach().numpy().T.copy()
        for name, each in (("first", module.first), ("last", module.last))
    }
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["h"], "first_product"),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("MatMul", ["r", "last"], ["y"], "last_product"),
    ]
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH, WIDTH])
        for name in ("x", "y")
    )
    stored = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    graph = helper.make_graph(nodes, "fixed", [x], [y], stored)
    opsets = [helper.make_opsetid("", 21)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def test_steps_take_batches_of_the_size_that_the_file_takes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = TwoLinears()
    source = written(module, tmp_path / "fixed.onnx")
    data = {"x": np.random.default_rng(0).normal(size=(3 * BATCH, WIDTH)).astype(np.float32)}
    options: dict[str, Any] = {
        "data": data,
        "scheme": "weight-int4",
        "rounding": "nearest",
        "min_sqnr_db": 0,
        "threads": 1,
    }
    result = loopedge.quantize(source, tmp_path / "q.onnx", refine=4, module=module, **options)
    assert result.refined is not None
    assert result.refined.steps == 4
    assert CHOSE_TOO in result.notes  # of three batches none is left to choose
