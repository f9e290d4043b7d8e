"""Convolutions with kernels larger than one, in the Loop and around it: int8 under every scheme, weights stored once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import loopedge
import loopedge_calibration
from loopedge.artifact.artifact import open_artifact
from loopedge.errors import VerificationError
from loopedge.graph.passes.windows import unfold_convolutions
from loopedge.model.contract import Tensors
from loopedge.quantizer import source as source_module

pytestmark = pytest.mark.slow

Array = NDArray[Any]
CHANNELS, LOOPS = 32, 3


class Transition(nn.Module):
    """The feed-forward of a Universal Transformer: two convolutions along the sequence, and a residual."""

    loops = LOOPS

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.LayerNorm(CHANNELS)
        self.up = nn.Conv1d(CHANNELS, 2 * CHANNELS, 3, padding=1)
        self.down = nn.Conv1d(2 * CHANNELS, CHANNELS, 3, padding=1)
        self.head = nn.Linear(CHANNELS, 8)

    def prelude(self, inputs: Tensor) -> tuple[Tensor, Tensors]:
        return inputs, ()

    def core(self, state: Tensor, context: Tensors, row: dict[str, Tensor]) -> Tensor:
        hidden = self.up(self.norm(state).transpose(1, 2)).relu()
        moved: Tensor = self.down(hidden).transpose(1, 2)
        return state + moved

    def coda(self, state: Tensor, context: Tensors) -> Tensor:
        out: Tensor = self.head(state)
        return out

    def timestep_table(self, loops: int) -> dict[str, Tensor]:
        return {}


class DeepThinking(nn.Module):
    """A recurrent residual block of two-dimensional convolutions that recalls its input."""

    loops = LOOPS

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.project = nn.Conv2d(3, CHANNELS, 3, padding=1)
        self.recall = nn.Conv2d(CHANNELS + 3, CHANNELS, 3, padding=1)
        self.first = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False)
        self.head = nn.Conv2d(CHANNELS, 2, 3, padding=1)

    def prelude(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        return self.project(inputs).relu(), inputs

    def core(self, state: Tensor, context: Tensor, row: dict[str, Tensor]) -> Tensor:
        recalled = self.recall(torch.cat([state, context], 1)).relu()
        new: Tensor = (recalled + self.first(recalled)).relu()
        return new

    def coda(self, state: Tensor, context: Tensor) -> Tensor:
        out: Tensor = self.head(state)
        return out

    def timestep_table(self, loops: int) -> dict[str, Tensor]:
        return {}


SUBJECTS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "sequence": (Transition, (12, CHANNELS)),
    "image": (DeepThinking, (3, 9, 7)),
}


def drawn(shape: tuple[int, ...], seed: int, samples: int) -> Array:
    drawn = np.random.default_rng(seed).normal(size=(samples, *shape))
    return drawn.astype(np.float32)


@pytest.fixture(scope="module", params=SUBJECTS)
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, nn.Module, tuple[int, ...]]:
    make, shape = SUBJECTS[request.param]
    module, folder = make().eval(), tmp_path_factory.mktemp(request.param)
    example = (torch.from_numpy(drawn(shape, 0, 2)),)
    shapes = ({0: "batch"},) if request.param == "image" else None
    loopedge.export(module, folder / "m.onnx", example=example, dynamic_shapes=shapes)
    return folder / "m.onnx", module, shape


def operators(path: Path) -> list[str]:
    return [node.op_type for node in open_artifact(path).graph.all_nodes()]


@pytest.mark.parametrize("scheme", ["static", "dynamic", "weight-int8"])
def test_every_convolution_of_the_core_becomes_int8(
    scheme: str, exported: tuple[Path, nn.Module, tuple[int, ...]], tmp_path: Path
) -> None:
    source, module, shape = exported
    ranges = None
    if scheme == "static":
        batches = [{"inputs": drawn(shape, seed, 8)} for seed in range(1, 4)]
        ranges = loopedge_calibration.collect(source, batches, smoothing=False)
    result = loopedge.quantize(
        source,
        tmp_path / "q.onnx",
        scheme=scheme,
        ranges=ranges,
        reduce_range=scheme != "weight-int8",
        min_sqnr_db=20,
    )
    left = {item["name"] for item in result.matmuls["skipped"] if "core/" in item["name"]}
    assert not left
    stored = {each.name: each for each in onnx.load(tmp_path / "q.onnx").graph.initializer}
    x = drawn(shape, 9, 4)
    with torch.no_grad():
        state, context = module.prelude(torch.from_numpy(x))  # type: ignore[operator]
        for _ in range(LOOPS):
            state = module.core(state, context, {})  # type: ignore[operator]
        exact = module.coda(state, context).numpy()  # type: ignore[operator]
    (given,) = loopedge.Session(tmp_path / "q.onnx").run({"inputs": x}).values()
    assert np.linalg.norm(given - exact) < 0.1 * np.linalg.norm(exact)
    for name in ("up.weight", "down.weight") if "up.weight" in stored else ("first.weight",):
        assert stored[name].data_type in {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}


def test_ranges_are_applied_before_windows_are_cut(
    exported: tuple[Path, nn.Module, tuple[int, ...]], tmp_path: Path
) -> None:
    source, _, shape = exported
    ranges = loopedge_calibration.collect(source, [{"inputs": drawn(shape, 1, 8)}], smoothing=False)
    loopedge.quantize(source, tmp_path / "q.onnx", ranges=ranges, reduce_range=True)
    rounded = [
        node
        for node in open_artifact(tmp_path / "q.onnx").graph.all_nodes()
        if node.op_type == "QuantizeLinear"
    ]
    readers = {user.op_type for node in rounded for user in node.outputs[0].consumers()}
    assert rounded
    assert "Pad" in readers
    assert operators(tmp_path / "q.onnx").count("QuantizeLinear") == len(rounded)


def test_what_is_kept_stays_a_convolution(
    exported: tuple[Path, nn.Module, tuple[int, ...]], tmp_path: Path
) -> None:
    source, _, _shape = exported
    kept = "core/" + next(
        (node.name or "").removeprefix("core/")
        for node in open_artifact(source).graph.all_nodes()
        if node.op_type == "Conv" and (node.name or "").startswith("core/")
    )
    loopedge.quantize(source, tmp_path / "q.onnx", scheme="dynamic", keep=[kept], reduce_range=True)
    floats = {
        node.name
        for node in open_artifact(tmp_path / "q.onnx").graph.all_nodes()
        if node.op_type == "Conv"
    }
    assert floats == {kept}


def test_a_working_graph_that_computes_something_else_is_found(
    exported: tuple[Path, nn.Module, tuple[int, ...]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The quantized file is held to the source's file, not to the graph that was made of it to work on."""

    def unfold_wrongly(model: ir.Model) -> bool:
        changed = unfold_convolutions(model)
        for weight in model.graph.initializers.values():
            if str(weight.name).endswith("weight") and weight.const_value is not None:
                turned = np.ascontiguousarray(weight.const_value.numpy()[::-1])
                weight.const_value = ir.tensor(turned, name=weight.name)
        return changed

    monkeypatch.setattr(source_module, "unfold_convolutions", unfold_wrongly)
    with pytest.raises(VerificationError, match="SQNR of the outputs"):
        loopedge.quantize(exported[0], tmp_path / "q.onnx", scheme="weight-int8")
    assert not list(tmp_path.iterdir())
