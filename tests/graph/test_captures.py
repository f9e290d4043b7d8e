"""What bodies read that ONNX Runtime aborts at: found in the graph, and nothing else is."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

import loopedge
from loopedge.artifact.artifact import Artifact, open_artifact, write_artifact
from loopedge.errors import InputError, VerificationError
from loopedge.graph.core.captures import captured_roundings

TINY = Path(__file__).parents[1] / "fixtures" / "tiny.onnx"

LOAD = """
import sys, onnxruntime
for path in sys.argv[1:]:
    onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
"""


def node(operator: str, inputs: str, output: str, **attributes: Any) -> NodeProto:
    return helper.make_node(operator, inputs.split(), [output], name=f"make_{output}", **attributes)


def floats(name: str, shape: Sequence[int] | None = None) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


QUANTIZE = node("QuantizeLinear", "x s z", "q")
DEQUANTIZE = node("DequantizeLinear", "q s z", "d")
TURN = node("Transpose", "d", "w", perm=[1, 0])
PAIR = [QUANTIZE, DEQUANTIZE]
ADD = [node("Add", "state w", "next")]
STORED: dict[str, np.ndarray] = {
    "s": np.array(0.1, np.float32),
    "z": np.array(0, np.uint8),
    "two": np.array([0.1, 0.2], np.float32),
    "zeros": np.zeros(2, np.uint8),
    "six": np.array([6], np.int64),
    "one": np.array(1, np.float32),
    "table": np.ones((2, 3), np.uint8),
    "trips": np.array(3, np.int64),
    "go": np.array(True),
}


def loop(body: Sequence[NodeProto], start: str = "y", output: str = "out") -> NodeProto:
    """Return a Loop over one state."""
    ports = [
        helper.make_tensor_value_info(f"{output}.i", TensorProto.INT64, []),
        helper.make_tensor_value_info(f"{output}.go", TensorProto.BOOL, []),
        floats("state" if output == "out" else "inner"),
    ]
    on = node("Identity", f"{output}.go", f"{output}.on")
    ends = [
        helper.make_tensor_value_info(f"{output}.on", TensorProto.BOOL, []),
        floats("next" if output == "out" else "inner_next"),
    ]
    graph = helper.make_graph([on, *body], "body", ports, ends)
    return helper.make_node("Loop", ["trips", "go", start], [output], name=output, body=graph)


def model(
    nodes: Sequence[NodeProto],
    body: Sequence[NodeProto] | NodeProto = ADD,
    also: Sequence[str] = (),
    inputs: Sequence[ValueInfoProto] = (),
    opset: int = 21,
) -> onnx.ModelProto:
    last = body if isinstance(body, NodeProto) else loop(body)
    made = [*nodes, last]
    read = {name for each in made for name in each.input} | {"trips", "go", "s", "z"}
    graph = helper.make_graph(
        made,
        "g",
        [floats("x", (2, 3)), floats("y"), *inputs],
        [floats(name) for name in ("out", *also)],
        [numpy_helper.from_array(array, name) for name, array in STORED.items() if name in read],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def branches(reader: str, condition: str) -> NodeProto:
    graphs = [
        helper.make_graph(
            [node(operator, read, f"{operator}.out")], operator, [], [floats(f"{operator}.out")]
        )
        for operator, read in (("Relu", reader), ("Neg", "y"))
    ]
    return helper.make_node(
        "If", [condition], ["out"], name="out", then_branch=graphs[0], else_branch=graphs[1]
    )


INNER = loop([node("Add", "inner w", "inner_next")], "state", "next")

ABORTING = {
    "Transpose": model([*PAIR, TURN]),
    "Reshape": model([*PAIR, node("Reshape", "d six", "w")]),
    "Squeeze": model([*PAIR, node("Squeeze", "d", "w")]),
    "no zero point": model([node("QuantizeLinear", "x s", "q"), node("DequantizeLinear", "q s", "d"), TURN]),
    "two in a row": model([*PAIR, node("Transpose", "d", "t", perm=[1, 0]), node("Reshape", "t six", "w")]),
    "an Identity between": model([*PAIR, node("Identity", "d", "e"), node("Transpose", "e", "w", perm=[1, 0])]),
    "an Identity behind": model([*PAIR, node("Transpose", "d", "t", perm=[1, 0]), node("Identity", "t", "w")]),
    "times one between": model([*PAIR, node("Mul", "d one", "e"), node("Transpose", "e", "w", perm=[1, 0])]),
    "a Cast of nothing between": model([*PAIR, node("Cast", "d", "e", to=1), node("Transpose", "e", "w", perm=[1, 0])]),
    "another reader": model([*PAIR, TURN, node("Relu", "w", "r")], also=["r"]),
    "another reader of the DequantizeLinear": model([*PAIR, TURN, node("Relu", "d", "r")], also=["r"]),
    "a scale that is computed": model([node("Mul", "s one", "s2"), QUANTIZE, node("DequantizeLinear", "q s2 z", "d"), TURN]),
    "If": model([*PAIR, TURN], branches("w", "which"), inputs=[helper.make_tensor_value_info("which", TensorProto.BOOL, [])]),
    "Loop in a Loop": model([*PAIR, TURN], [INNER]),
    "inside a body": model([], [node("QuantizeLinear", "state s z", "q"), DEQUANTIZE, TURN, INNER]),
    "integers as input": model([DEQUANTIZE, TURN], inputs=[helper.make_tensor_value_info("q", TensorProto.UINT8, (2, 3))]),
    "microsoft": model([node("QuantizeLinear", "x s z", "q", domain="com.microsoft"), node("DequantizeLinear", "q s z", "d", domain="com.microsoft"), TURN]),
    "opset 13": model([*PAIR, TURN], opset=13),
}  # fmt: skip

LOADING = {
    "nothing between": model([QUANTIZE, node("DequantizeLinear", "q s z", "w")]),
    "an Identity alone": model([*PAIR, node("Identity", "d", "w")]),
    "Flatten": model([*PAIR, node("Flatten", "d", "w")]),
    "Relu before": model([*PAIR, node("Relu", "d", "e"), node("Transpose", "e", "w", perm=[1, 0])]),
    "Relu behind": model([*PAIR, node("Transpose", "d", "t", perm=[1, 0]), node("Relu", "t", "w")]),
    "a scale per axis": model([node("QuantizeLinear", "x two zeros", "q", axis=0), node("DequantizeLinear", "q two zeros", "d", axis=0), TURN]),
    "a scale that is an input": model([QUANTIZE, node("DequantizeLinear", "q given z", "d"), TURN], inputs=[floats("given", [])]),
    "quantized again": model([*PAIR, TURN, node("QuantizeLinear", "w s z", "q2"), node("DequantizeLinear", "q2 s z", "r")], also=["r"]),
    "quantized on the way": model([*PAIR, node("Transpose", "d", "t", perm=[1, 0]), node("Reshape", "t six", "w"), node("QuantizeLinear", "t s z", "q2"), node("DequantizeLinear", "q2 s z", "r")], also=["r"]),
    "a constant If": model([*PAIR, TURN], branches("w", "go")),
    "an Identity that is an output": model([*PAIR, node("Transpose", "d", "t", perm=[1, 0]), node("Relu", "t", "r"), node("Identity", "t", "w")], also=["r", "w"]),
    "an Identity inside that nothing reads": model([*PAIR, TURN], [node("Identity", "w", "dead"), node("Relu", "state", "next")]),
    "a stored weight": model([node("DequantizeLinear", "table s z", "d"), TURN]),
    "Transpose inside": model(PAIR, [TURN, *ADD]),
    "Transpose inside, read further inside": model(PAIR, [TURN, INNER]),
    "both inside": model([QUANTIZE], [DEQUANTIZE, TURN, *ADD]),
    "not captured": model([*PAIR, TURN, node("Neg", "w", "r")], [node("Relu", "state", "next")], also=["r"]),
}  # fmt: skip


@pytest.mark.parametrize("name", ABORTING)
def test_what_onnxruntime_aborts_at_is_found(name: str) -> None:
    found = captured_roundings(ir.from_proto(ABORTING[name]))
    assert [each.value for each in found] == ["w"]
    assert found[0].dequantizer == "make_d"


@pytest.mark.parametrize("name", LOADING)
def test_what_it_loads_is_left_alone(name: str) -> None:
    assert captured_roundings(ir.from_proto(LOADING[name])) == []


def test_it_loads_what_is_left_alone(tmp_path: Path) -> None:
    paths = [tmp_path / f"{place}.onnx" for place in range(len(LOADING))]
    for path, proto in zip(paths, LOADING.values(), strict=True):
        onnx.save(proto, path)
    subprocess.run([sys.executable, "-c", LOAD, *map(str, paths)], check=True, timeout=60)


@pytest.mark.skipif(sys.platform != "linux", reason="where nothing checks, memory is overwritten")
def test_it_aborts_at_what_is_found(tmp_path: Path) -> None:
    """The day it does not, the check can go."""
    onnx.save(ABORTING["Transpose"], tmp_path / "m.onnx")
    command = [sys.executable, "-c", LOAD, str(tmp_path / "m.onnx")]
    assert subprocess.run(command, capture_output=True, check=False, timeout=60).returncode < 0


def test_a_function_is_looked_into() -> None:
    proto = model([*PAIR, helper.make_node("Turned", ["d"], ["w"], domain="own")])
    turned = helper.make_function(
        "own", "Turned", ["a"], ["b"], [node("Transpose", "a", "b")], [helper.make_opsetid("", 21)]
    )
    proto.functions.append(turned)
    proto.opset_import.append(helper.make_opsetid("own", 1))
    assert [each.operator for each in captured_roundings(ir.from_proto(proto))] == ["Transpose"]


def test_nothing_opens_such_a_file(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(ABORTING["Reshape"], path)
    said = "out reads 'w' from outside its body, which Reshape makes of what make_d dequantizes"
    for opening in (Artifact.open, loopedge.Session):
        with pytest.raises(InputError, match=said) as caught:
            opening(path)
        assert caught.value.hint == f"loopedge inspect {path}"
    assert Artifact.open(path, unloadable=True).graph.graph.name == "g"


def test_nothing_writes_such_a_file(tmp_path: Path) -> None:
    source = ir.from_proto(ABORTING["Reshape"])
    with pytest.raises(VerificationError, match="is not written: out reads 'w' from outside"):
        write_artifact(source, tmp_path / "m.onnx", verify=loopedge.Session)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_own_files_dequantize_for_products_alone(tmp_path: Path) -> None:
    """So nothing of them is ever moved behind what a body reads."""
    np.savez(tmp_path / "x.npz", input_ids=np.arange(64).reshape(8, 8) % 48)
    loopedge.quantize(
        TINY, tmp_path / "int8.onnx", data=tmp_path / "x.npz", scheme="static", ops="standard"
    )
    written = open_artifact(tmp_path / "int8.onnx")
    readers = {
        user.op_type
        for each in written.graph.all_nodes()
        if each.op_type == "DequantizeLinear"
        for user in each.outputs[0].consumers()
    }
    assert readers <= {"MatMul"}
    assert captured_roundings(written) == []
