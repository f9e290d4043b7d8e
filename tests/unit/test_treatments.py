"""The rule of static int8 in a file: what result and metadata say, which names win, values that leave every range."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import pytest

import loopedge
import loopedge_calibration
from loopedge.errors import InputError
from loopedge.quantizer.activations.ranges import RangeTable, read_ranges
from loopedge.quantizer.recipe import Recipe
from loopedge.quantizer.source import FloatSource
from loopedge_calibration.sensitivity import measure_sensitivity
from tests.parity.models import SEVEN_BITS

if TYPE_CHECKING:
    from numpy.typing import NDArray

TINY = Path(__file__).parents[1] / "fixtures" / "tiny.onnx"
D, FEATURES, STEPS = 32, 2, 3
BY_PLACE = {
    "first.product": "float",
    "second.product": "weight-int8",
    "third.product": "static",
    "last.product": "weight-int8",
}


@pytest.fixture
def drifting(tmp_path: Path) -> Path:
    return forecaster(tmp_path, opset=23)


def forecaster(folder: Path, *, opset: int) -> Path:
    """A forecaster of two features: normalised by stored numbers, embedded, a core behind norms, a head."""
    generator = np.random.default_rng(0)
    shapes = {
        "first": (FEATURES, D),
        "second": (D, D),
        "step": (D, D),
        "third": (D, D),
        "last": (D, 4),
    }
    drawn = {
        name: (generator.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32)
        for name, shape in shapes.items()
    }
    parameters = ", ".join(f"float[{a}, {b}] {name}" for name, (a, b) in shapes.items())
    model = ir.from_onnx_text(f"""<ir_version: 11, opset_import: ["": {opset}]>
    series (float[B, S, {FEATURES}] x, {parameters}) => (float[B, S, 4] y)
    <int64 n = {{{STEPS}}}, bool go = {{1}}, float mean = {{5.0}}, float scale = {{2.0}}> {{
      a = Sub (x, mean)
      b = Div (a, scale)
      c = MatMul (b, first)
      e = MatMul (c, second)
      z = Loop (n, go, e) <body = step_of (int64 i, bool on, float[B, S, {D}] before)
        => (bool d, float[B, S, {D}] after) {{
          d = Identity (on)
          r = LpNormalization <axis = -1, p = 2> (before)
          p = MatMul (r, step)
          after = Add (before, p)
      }}>
      f = LpNormalization <axis = -1, p = 2> (z)
      g = MatMul (f, third)
      y = MatMul (g, last)
    }}""")
    for value in [model.graph.inputs.pop() for _ in shapes]:
        value.const_value = ir.tensor(drawn[value.name or ""], name=value.name)
        model.graph.register_initializer(value)
    for node, name in zip(
        [node for node in model.graph.all_nodes() if node.op_type == "MatMul"],
        ("first", "second", "step", "third", "last"),
        strict=True,
    ):
        node.name = f"{name}.product"
    ir.save(model, folder / f"series.{opset}.onnx")
    return folder / f"series.{opset}.onnx"


def windows(level: float, batches: int = 4) -> list[dict[str, NDArray[np.float32]]]:
    generator = np.random.default_rng(1)
    shape = (8, 6, FEATURES)
    return [
        {"x": (level + generator.normal(size=shape)).astype(np.float32)} for _ in range(batches)
    ]


def sqnr_db(source: Path, given: Path, feeds: dict[str, NDArray[np.float32]]) -> float:
    exact, found = (loopedge.Session(path, threads=1).run(feeds)["y"] for path in (source, given))
    return float(10 * np.log10(np.square(exact).sum() / np.square(found - exact).sum()))


def treatments(result: Any) -> dict[str, str]:
    return {item.name: item.treatment for item in result.treatments}


@pytest.mark.slow
def test_inputs_that_leave_every_range_cost_nothing(drifting: Path, tmp_path: Path) -> None:
    calibration, later = windows(5.0), windows(11.0, 1)[0]
    found = {}
    for as_core in ((), ("all",)):
        ranges = loopedge_calibration.collect(drifting, calibration, as_core=as_core)
        options = {"data": calibration[:1], "min_sqnr_db": 0, "force": True, **SEVEN_BITS}
        result = loopedge.quantize(
            drifting, tmp_path / "q.onnx", ranges=ranges, as_core=as_core, **options
        )
        found[as_core] = sqnr_db(drifting, tmp_path / "q.onnx", later)
        assert result.sqnr_db > 20
    loopedge.quantize(drifting, tmp_path / "d.onnx", min_sqnr_db=0, **SEVEN_BITS)
    assert found[()] > 25
    assert found[()] > sqnr_db(drifting, tmp_path / "d.onnx", later) - 2
    assert found[("all",)] < 15


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, BY_PLACE),
        (
            {"ops": "standard"},
            BY_PLACE | dict.fromkeys(("second.product", "last.product"), "dynamic"),
        ),
        (
            {"keep": ["last.product"], "weight_only": ["third.product"]},
            BY_PLACE | {"third.product": "weight-int8", "last.product": "float"},
        ),
        (
            {"as_core": ["last.product"], "keep": ["first.product"]},
            BY_PLACE | {"last.product": "static"},
        ),
        ({"scheme": "dynamic"}, {}),
        ({"scheme": "dynamic", "keep": ["second.product"]}, {"second.product": "float"}),
    ],
)
def test_every_treatment_is_listed(
    options: dict[str, Any], expected: dict[str, str], drifting: Path, tmp_path: Path
) -> None:
    static = options.get("scheme") != "dynamic"
    ranges = loopedge_calibration.collect(drifting, windows(5.0)) if static else None
    result = loopedge.quantize(
        drifting, tmp_path / "q.onnx", ranges=ranges, **options, **SEVEN_BITS
    )
    assert treatments(result) == expected
    by_name = {item.name: item for item in result.treatments}
    if expected.get("third.product") == "static":
        assert (by_name["third.product"].method, by_name["third.product"].margin) == (
            "minmax",
            1.25,
        )
    if options == {}:
        assert "reads raw inputs" in by_name["first.product"].reason
        assert "made of raw inputs" in by_name["second.product"].reason
    skipped = {item["name"] for item in result.matmuls["skipped"]}
    assert skipped == {name for name, how in expected.items() if how == "float"}
    assert set(result.weight_only) == {
        name for name, how in expected.items() if how == "weight-int8"
    }


def test_a_file_for_earlier_releases_holds_no_blocks(tmp_path: Path) -> None:
    source = forecaster(tmp_path, opset=20)
    ranges = loopedge_calibration.collect(source, windows(5.0))
    result = loopedge.quantize(source, tmp_path / "q.onnx", ranges=ranges, **SEVEN_BITS)
    assert treatments(result) == BY_PLACE | dict.fromkeys(
        ("second.product", "last.product"), "dynamic"
    )
    kinds = {node.op_type for node in ir.load(tmp_path / "q.onnx").graph.all_nodes()}
    assert "DynamicQuantizeMatMul" in kinds
    assert "MatMulNBits" not in kinds


def test_ranges_around_the_core_have_a_margin(drifting: Path) -> None:
    plain, wide = (
        loopedge_calibration.collect(
            drifting, windows(5.0), method="minmax", as_core=as_core, smoothing=False
        ).tensors
        for as_core in (("all",), ())
    )
    for name, item in wide.items():
        margin = 1.0 if name == "step.product" else 1.25
        assert (item.method, item.margin) == ("minmax", margin)
        assert np.allclose(item.high, np.array(plain[name].high) * margin, rtol=1e-6)
        assert np.allclose(item.low, np.array(plain[name].low) * margin, rtol=1e-6)


@pytest.mark.slow
def test_the_file_says_how_its_linears_are_treated(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    data = [{"input_ids": generator.integers(0, 8, (8, 6))} for _ in range(3)]
    ranges = loopedge_calibration.collect(TINY, data)
    for memory, treatment in (("balanced", "weight-int8"), ("low", "dynamic")):
        path = tmp_path / f"{memory}.onnx"
        result = loopedge.quantize(
            TINY, path, ranges=ranges, data=data, memory=memory, **SEVEN_BITS
        )
        assert treatments(result)["coda/linear"] == treatment
        described = loopedge.inspect(path).metadata["quantization"]["treatments"]
        assert described == result.to_json()["treatments"]
    with pytest.raises(InputError, match="no linear core/nothing to treat as the core's"):
        loopedge.quantize(TINY, tmp_path / "x.onnx", ranges=ranges, as_core=["core/nothing"])
    with pytest.raises(InputError, match="treated as the core's and otherwise"):
        loopedge.quantize(
            TINY,
            tmp_path / "x.onnx",
            ranges=ranges,
            as_core=["coda/linear"],
            keep=["coda/linear"],
        )


def test_sensitivity_follows_the_rule(drifting: Path) -> None:
    """What stays float cannot be sensitive; the last linear is as its blocks are, not as its range would be."""
    data = windows(5.0)
    source = FloatSource.open(drifting)
    table = loopedge_calibration.collect(drifting, data)
    errors = {}
    for as_core in ((), ("all",)):
        recipe = Recipe(scheme="static", table=table, as_core=as_core, reduce_range=True)
        found = measure_sensitivity(source.graph, recipe, data[:1], threads=1)
        errors[as_core] = {item.name: item.error for item in found}
    assert set(errors[("all",)]) - set(errors[()]) == {"first.product"}
    assert errors[()]["last.product"] < errors[("all",)]["last.product"]
    assert errors[()]["third.product"] == errors[("all",)]["third.product"]


def test_ranges_of_an_earlier_version_are_read_with_a_warning(
    drifting: Path, tmp_path: Path
) -> None:
    table = loopedge_calibration.collect(drifting, windows(5.0))
    table.save(tmp_path / "now.json")
    assert read_ranges(tmp_path / "now.json") == table
    content = json.loads((tmp_path / "now.json").read_text())
    content["version"] = 1
    for item in content["tensors"].values():
        del item["method"], item["margin"]
    (tmp_path / "before.json").write_text(json.dumps(content))
    before = read_ranges(tmp_path / "before.json")
    assert isinstance(before, RangeTable)
    assert any("an earlier version" in warning for warning in before.warnings)
    result = loopedge.quantize(drifting, tmp_path / "q.onnx", ranges=before, **SEVEN_BITS)
    assert treatments(result) == {n: how for n, how in BY_PLACE.items() if how != "static"}
    content["version"] = 3
    (tmp_path / "later.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="version"):
        read_ranges(tmp_path / "later.json")
