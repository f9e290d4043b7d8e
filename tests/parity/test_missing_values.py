"""A model that takes missing values: NaN goes into the graph, in float and in int8."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch

import loopedge
from loopedge.errors import InputError
from loopedge.graph.inputs import generate_inputs
from loopedge.model.config import LoopedConfig
from loopedge.model.transformer import LoopedTransformer
from loopedge.runtime.session import Session
from tests.parity.models import SEVEN_BITS

pytestmark = pytest.mark.long

SIZES = {"d_model": 16, "heads": 2, "loops": 3, "features": 2, "max_length": 8, "read": "last"}


def make(**fields: object) -> LoopedTransformer:
    torch.manual_seed(0)
    model = LoopedTransformer(LoopedConfig(**{**SIZES, "missing": True, **fields}))  # type: ignore[arg-type]
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    outputs = model.config.head_outputs
    scale = torch.ones(outputs) if model.config.classify else torch.full((outputs,), 3.0)
    model.set_scaling(torch.tensor([5.0, -2.0]), torch.tensor([2.0, 4.0]), 0 * scale, scale)
    return model.eval()


def test_a_missing_value_is_the_mean_and_marked() -> None:
    model = make()
    inputs = torch.tensor([[[7.0, torch.nan], [torch.nan, 2.0]]])
    np.testing.assert_allclose(
        model._channels(inputs, None)[0].numpy(), [[[1, 0, 0, 1], [0, 1, 1, 0]]], atol=1e-6
    )
    filled = torch.tensor([[[7.0, -2.0], [5.0, 2.0]]])
    with torch.no_grad():
        outputs, filled_outputs = model(inputs), model(filled)
    assert torch.isfinite(outputs).all()
    assert not torch.allclose(outputs, filled_outputs)


def test_gradients_are_finite_where_values_are_missing() -> None:
    model = make()
    inputs = torch.full((2, 4, 2), torch.nan)
    model(inputs).square().mean().backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("opset", [18, 23])
@pytest.mark.parametrize("padding", [False, True])
def test_the_exported_graph_takes_them_too(tmp_path: Path, opset: int, padding: bool) -> None:
    model = make(padding=padding, horizon=2, outputs=1)
    path = tmp_path / "m.onnx"
    loopedge.export(model, path, opset=opset)
    graph = ir.load(path)
    kinds = [node.op_type for node in graph.graph]
    assert "IsNaN" in kinds
    session = Session(path)
    assert not session.metadata.foreign
    assert session.metadata.missing_values
    generated = generate_inputs(graph, batch=3, sequence=8)["inputs"]
    assert 0 < np.isnan(generated).mean() < 0.5
    tensors = [torch.from_numpy(generated)]
    feeds = {"inputs": generated}
    if padding:
        mask = np.array([[0, 0, 1, 1, 1, 1, 1, 1], [1] * 8, [0] * 7 + [1]])
        tensors.append(torch.from_numpy(mask))
        feeds["attention_mask"] = mask
    with torch.no_grad():
        expected = model(*tensors).numpy()
    (given,) = session.run(feeds).values()
    np.testing.assert_allclose(given, expected, rtol=1e-4, atol=1e-4)
    assert np.isfinite(given).all()


def test_int8_is_calibrated_on_them(tmp_path: Path) -> None:
    import loopedge_calibration

    path = tmp_path / "m.onnx"
    loopedge.export(make(), path)
    samples = generate_inputs(ir.load(path), batch=32, sequence=8)
    np.savez(tmp_path / "x.npz", **samples)  # type: ignore[arg-type]
    ranges = loopedge_calibration.collect(path, tmp_path / "x.npz")
    result = loopedge.quantize(
        path, tmp_path / "q.onnx", scheme="static", ranges=ranges, **SEVEN_BITS
    )
    assert result.sqnr_db > 20
    (given,) = Session(tmp_path / "q.onnx").run(samples).values()
    assert np.isfinite(given).all()
    samples["inputs"][3, 0, 0] = np.inf
    np.savez(tmp_path / "x.npz", **samples)  # type: ignore[arg-type]
    with pytest.raises(
        InputError,
        match=r"inputs: sample 4, position 1, column 1 is inf, the model takes finite",
    ):
        loopedge_calibration.collect(path, tmp_path / "x.npz")


def test_nan_is_no_sample_of_a_model_that_takes_none(tmp_path: Path) -> None:
    import loopedge_calibration

    path = tmp_path / "m.onnx"
    loopedge.export(make(missing=False), path)
    graph = ir.load(path)
    assert "IsNaN" not in [node.op_type for node in graph.graph]
    samples = generate_inputs(graph, batch=4, sequence=8)
    assert np.isfinite(samples["inputs"]).all()
    samples["inputs"][2, 0, 0] = np.nan
    np.savez(tmp_path / "x.npz", **samples)  # type: ignore[arg-type]
    with pytest.raises(
        InputError,
        match=r"inputs: sample 3, position 1, column 1 is nan, the model takes finite",
    ):
        loopedge_calibration.collect(path, tmp_path / "x.npz")


def test_logits_of_classes_are_not_scaled_in_the_graph(tmp_path: Path) -> None:
    model = make(classify=True, outputs=3, missing=False)
    path = tmp_path / "m.onnx"
    loopedge.export(model, path)
    graph = ir.load(path)
    assert [value.name for value in graph.graph.outputs] == ["logits"]
    coda = [node.op_type for node in graph.graph if (node.name or "").startswith("coda/")]
    assert not {"Mul", "Add"} & set(coda), coda
    assert not [name for name in graph.graph.initializers if name.startswith("output_")]


@pytest.mark.parametrize("field", ["classify", "missing"])
def test_what_is_of_continuous_inputs_is_refused_for_tokens(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} is of continuous inputs"):
        LoopedConfig(vocab_size=8, **{field: True})  # type: ignore[arg-type]
