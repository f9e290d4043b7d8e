"""MLPs computed in chunks of their hidden channels: which are, which are not, and that nothing changes."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from loopedge.graph.core.ties import tied_weights, untied_bytes
from loopedge.graph.core.unrolling import unroll
from loopedge.graph.core.untied import untie
from loopedge.graph.core.view import view_core
from loopedge.graph.editing import add_initializer
from loopedge.graph.metadata import ArtifactMetadata, write_metadata
from loopedge.graph.split.hidden_chunks import split_hidden
from loopedge.graph.weights import linears, weight_bytes

Array = NDArray[Any]
NAMES = re.compile(r'"name" *: *"([^"]*)_kernel_time"')
WIDTH, HIDDEN = 16, 64
GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(2, 5, WIDTH)).astype(np.float32)
STATE = f"float[B, S, {WIDTH}]"

UP, DOWN = "up = MatMul (x, up_weight)", "y = MatMul (hidden, down_weight)"
SIGMOID = f"gate = MatMul (x, gate_weight) {UP} sigmoid = Sigmoid (gate) "
VARIANTS = {
    "relu": f"{UP} hidden = Relu (up)",
    "gelu": f"{UP} hidden = Gelu (up)",
    "bias": f"{UP} biased = Add (up, up_bias) hidden = Relu (biased)",
    "bias first": f"{UP} biased = Add (up_bias, up) hidden = Relu (biased)",
    "silu": f"{UP} sigmoid = Sigmoid (up) hidden = Mul (up, sigmoid)",
    "erf": f"{UP} scaled = Div (up, two) erf = Erf (scaled) more = Add (erf, one) half = Mul (up, two) "
    "hidden = Mul (half, more)",
    "tanh": f"{UP} cube = Pow (up, three) sum = Add (up, cube) tanh = Tanh (sum) hidden = Mul (up, tanh)",
    "sine": f"{UP} sine = Sin (up) hidden = Add (up, sine)",
    "glu": f"{SIGMOID} hidden = Mul (sigmoid, up)",
    "swiglu": f"{SIGMOID} swish = Mul (gate, sigmoid) hidden = Mul (swish, up)",
    "halves": "both = MatMul (x, both_weight) gate, up = Split <axis = -1, num_outputs = 2> (both) "
    "sigmoid = Sigmoid (gate) hidden = Mul (sigmoid, up)",
    "halves with bias": "both = MatMul (x, both_weight) all = Add (both, both_bias) "
    "gate, up = Split <axis = 2, num_outputs = 2> (all) sigmoid = Sigmoid (gate) "
    "hidden = Mul (sigmoid, up)",
}
WHOLE = {
    "no nonlinearity": f"{UP} hidden = Identity (up)",
    "over the channels": f"{UP} hidden = Softmax <axis = -1> (up)",
    "a norm between": f"{UP} hidden = RMSNormalization <axis = -1> (up, up_bias)",
    "computed factor": f"{UP} mean = ReduceMean <keepdims = 1> (x) hidden = Mul (up, mean)",
    "weight read elsewhere": f"{UP} other = MatMul (x, up_weight) relu = Relu (up) "
    "sum = ReduceMax <keepdims = 1> (other) z = Add (x, sum) hidden = Relu (up)",
}


def stored(shape: tuple[int, ...]) -> Array:
    return GENERATOR.normal(size=shape).astype(np.float32) / np.float32(shape[0] ** 0.5)


ARRAYS = {
    "up_weight": stored((WIDTH, HIDDEN)),
    "gate_weight": stored((WIDTH, HIDDEN)),
    "both_weight": stored((WIDTH, 2 * HIDDEN)),
    "up_bias": stored((HIDDEN,)),
    "both_bias": stored((2 * HIDDEN,)),
    "down_weight": stored((HIDDEN, WIDTH)),
    "one": np.array(1, np.float32),
    "two": np.array(2, np.float32),
    "three": np.array([3], np.float32),
}


def parse(nodes: str, outputs: str = f"{STATE} y") -> ir.Model:
    text = (
        f'<ir_version: 11, opset_import: ["": 24]> agraph ({STATE} x) => ({outputs}) {{ {nodes} }}'
    )
    if "RMSNorm" not in nodes:
        text = text.replace('"": 24', '"": 20').replace("ir_version: 11", "ir_version: 9")
    else:
        text = text.replace('"": 24', '"": 23')
    model = ir.from_onnx_text(text)
    store(model)
    for node in model.graph:
        for output in node.outputs:
            output.type = ir.TensorType(ir.DataType.FLOAT)
            wide = {"both": 2 * HIDDEN, "all": 2 * HIDDEN, "y": WIDTH, "mid": WIDTH}.get(
                output.name or "", HIDDEN
            )
            output.shape = ir.Shape(["B", "S", wide])
    return model


def store(model: ir.Model) -> None:
    for graph in (model.graph, *model.graph.subgraphs()):
        for node in graph:
            for index, value in enumerate(node.inputs):
                if value is not None and value.name in ARRAYS and value.const_value is None:
                    found = add_initializer(model.graph, value.name, ARRAYS[value.name])
                    node.replace_input_with(index, found)


def run(model: ir.Model) -> Array:
    session = ort.InferenceSession(
        ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"x": X})[0])


def split(model: ir.Model, **options: Any) -> dict[str, int]:
    return split_hidden(model, **({"least_width": WIDTH, "least_bytes": 0} | options))


@pytest.mark.parametrize("name", VARIANTS)
def test_every_kind_of_mlp_is_split_and_computes_the_same(name: str) -> None:
    model = parse(f"{VARIANTS[name]} {DOWN}")
    before, size, products = run(model), weight_bytes(model), len(linears(model))
    parts = split(model)
    assert set(parts.values()) == {4}
    assert {value.name for value in model.graph.initializers.values()}.isdisjoint(parts)
    assert weight_bytes(model) == size  # one copy
    assert len(linears(model)) == 4 * products
    np.testing.assert_allclose(run(model), before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", WHOLE)
def test_what_is_no_mlp_stays_as_it_is(name: str) -> None:
    model = parse(f"{WHOLE[name]} {DOWN}")
    names = [node.op_type for node in model.graph]
    assert split(model) == {}
    assert [node.op_type for node in model.graph] == names


def test_a_hidden_value_that_the_graph_gives_stays_whole() -> None:
    nodes = f"{VARIANTS['relu']} {DOWN}"
    model = parse(nodes, f"{STATE} y, float[B, S, {HIDDEN}] hidden")
    assert split(model) == {}


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"least_width": 32}, 2),
        ({"least_width": 33}, 0),  # two chunks would be narrower
        ({"least_width": 20}, 2),  # three are not equal
        ({"least_bytes": 4 * HIDDEN * 128}, 4),
        ({"least_bytes": 4 * HIDDEN * 128 + 1}, 0),
        ({"least_bytes": 4 * HIDDEN * 128, "length": 127}, 0),
    ],
)
def test_only_what_is_large_is_split(options: dict[str, int], count: int) -> None:
    model = parse(f"{VARIANTS['gelu']} {DOWN}")
    assert set(split(model, **options).values()) == ({count} if count else set())


def test_small_models_stay_whole_by_default() -> None:
    assert split_hidden(parse(f"{VARIANTS['gelu']} {DOWN}")) == {}


def test_each_partial_sum_is_taken_before_the_next_chunk_is_computed(tmp_path: Path) -> None:
    model = parse(f"{VARIANTS['gelu']} {DOWN}")
    split(model)
    options = ort.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "trace")
    session = ort.InferenceSession(
        ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    session.run(None, {"x": X})
    trace = Path(session.end_profiling()).read_text(encoding="utf-8")
    names = [name for name in NAMES.findall(trace) if name.startswith(("up", "y"))]
    chunks = [name for i in range(2, 4) for name in (f"up.{i}", f"y.{i}", f"y.sum.{i}")]
    assert names[-7:] == ["y.sum.1", *chunks]


def looped() -> ir.Model:
    """state <- table[t] * mlp(state) + state, three times."""
    model = ir.from_onnx_text(
        f"""<ir_version: 9, opset_import: ["": 20]>
        agraph ({STATE} x) => ({STATE} y)
        <int64 count = {{3}}, bool always = {{1}}> {{
          y = Loop <body = core (int64 t, bool go, {STATE} state) => (bool still, {STATE} next) {{
            still = Identity (go)
            up = MatMul (state, up_weight)
            biased = Add (up, up_bias)
            hidden = Gelu (biased)
            down = MatMul (hidden, down_weight)
            row = Gather <axis = 0> (table, t)
            gated = Mul (down, row)
            next = Add (state, gated)
          }}> (count, always, x)
        }}"""
    )
    ARRAYS.setdefault("table", stored((3, WIDTH)))
    store(model)
    model.graph.initializers["table"].name = "timestep.table"
    loop = next(node for node in model.graph if node.op_type == "Loop")
    loop.name = "core"
    for node in loop.attributes["body"].as_graph():
        node.name = f"core/{node.op_type}.{node.outputs[0].name}"
        for output in node.outputs:
            if output.name in {"up", "biased", "hidden", "down"}:
                wide = WIDTH if output.name == "down" else HIDDEN
                output.type = ir.TensorType(ir.DataType.FLOAT)
                output.shape = ir.Shape(["B", "S", wide])
            output.name = f"core/{output.name}"
    metadata = ArtifactMetadata(version="0", form="loop", loops=3, trained_loops=3)
    write_metadata(metadata, model.metadata_props)
    return model


def test_a_loop_keeps_its_ties_and_its_forms_agree() -> None:
    model = looped()
    before, size, untied = run(model), weight_bytes(model), untied_bytes(model)
    assert split(model) == {"down_weight": 4, "up_weight": 4, "up_bias": 4}
    names = {f"{name}.{i}" for name in ("up_weight", "down_weight", "up_bias") for i in range(4)}
    assert set(view_core(model).weights) == names
    assert {weight.name for weight in tied_weights(model)} == names
    assert {weight.uses for weight in tied_weights(model)} == {3}
    assert (weight_bytes(model), untied_bytes(model)) == (size, untied)
    unrolled, twin = unroll(model), untie(model)
    assert weight_bytes(unrolled) == size
    assert weight_bytes(twin) == untied
    for other in (model, unrolled, twin):
        np.testing.assert_allclose(run(other), before, rtol=1e-4, atol=1e-5)


def test_two_layers_that_share_weights_are_split_alike_or_not_at_all() -> None:
    twice = (
        "up = MatMul (x, up_weight) hidden = Relu (up) mid = MatMul (hidden, down_weight) "
        "up2 = MatMul (mid, up_weight) hidden2 = Relu (up2) y = MatMul (hidden2, down_weight)"
    )
    model = parse(twice)
    before, size = run(model), weight_bytes(model)
    assert set(split(model)) == {"up_weight", "down_weight"}
    assert weight_bytes(model) == size
    np.testing.assert_allclose(run(model), before, rtol=1e-5, atol=1e-5)
    odd = parse(twice.replace("hidden2 = Relu (up2)", "hidden2 = Softmax <axis = -1> (up2)"))
    assert split(odd) == {}
