from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli


KEYS = {
    "copies",
    "dynamic_loops",
    "files",
    "form",
    "int8",
    "ir_version",
    "loops",
    "metadata",
    "opset",
    "path",
    "rolling",
    "tables",
    "tied_weights",
    "ties",
    "trained_loops",
    "unloadable",
    "untied_bytes",
    "weight_bytes",
}


def test_json_holds_the_documented_keys(cli: Cli, tiny: Path) -> None:
    outcome = cli("inspect", tiny, "--json")
    assert outcome.code == 0
    assert outcome.err == ""
    found = outcome.json()
    assert set(found) >= KEYS
    assert (found["form"], found["loops"], found["trained_loops"]) == ("loop", 3, 3)
    assert (found["opset"], found["ir_version"], found["dynamic_loops"]) == (23, 11, False)
    assert {tuple(table["shape"]) for table in found["tables"]} == {(3, 32)}
    assert (found["int8"]["quantized"], found["int8"]["total"]) == (0, 7)
    assert 0 == found["int8"]["bytes"] < found["int8"]["total_bytes"] < found["weight_bytes"]
    assert found["files"] == [{"path": str(tiny), "bytes": tiny.stat().st_size}]
    assert found["metadata"]["form"] == "loop"


def test_bytes_are_those_of_the_initializers(cli: Cli, tiny: Path) -> None:
    found = cli("inspect", tiny, "--json").json()
    weights = {
        str(name): value.const_value.nbytes
        for name, value in ir.load(tiny).graph.initializers.items()
        if value.const_value is not None
        and not name.startswith(("timestep.", "loopedge."))
        and value.const_value.dtype.is_floating_point()
        and value.const_value.size > 1
    }
    assert found["weight_bytes"] == sum(weights.values())
    core = sum(size for name, size in weights.items() if name.startswith("core_layers."))
    assert found["untied_bytes"] == found["weight_bytes"] + 2 * core
    ties = {tie["name"]: (tie["uses"], tie["bytes"]) for tie in found["tied_weights"]}
    expected = {n: (3, size) for n, size in weights.items() if n.startswith("core_layers.")}
    assert ties == expected | {"embedding.weight": (2, weights["embedding.weight"])}


def test_people_see_the_same(cli: Cli, tiny: Path) -> None:
    outcome = cli("inspect", tiny)
    assert outcome.code == 0
    assert outcome.err == ""
    for words in ("loop, 3 loops", "input_ids", "stored once", "0 of 7", "timestep.", "3x"):
        assert words in outcome.out


def test_dynamic_loops(cli: Cli, tiny_dynamic: Path) -> None:
    assert cli("inspect", tiny_dynamic, "--json").json()["dynamic_loops"] is True
    assert "selectable" in cli("inspect", tiny_dynamic).out


def test_external_data_is_listed(cli: Cli, external: Path) -> None:
    files = cli("inspect", external, "--json").json()["files"]
    assert [file["path"] for file in files] == [str(external), f"{external}.data"]


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Two readers of one weight, another weight in a Constant node, an attention product."""
    weight = helper.make_tensor("w[0]", TensorProto.FLOAT, (4, 4), [0.5] * 16)
    other = helper.make_tensor("other", TensorProto.FLOAT, (4, 4), [0.25] * 16)
    nodes = [
        helper.make_node("MatMul", ["x", "w[0]"], ["a"]),
        helper.make_node("MatMul", ["a", "w[0]"], ["b"]),
        helper.make_node("Constant", [], ["c"], value=other),
        helper.make_node("MatMul", ["b", "c"], ["d"]),
        helper.make_node("MatMul", ["d", "b"], ["y"]),
    ]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (4, 4)) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], [weight])
    path = tmp_path / "foreign.onnx"
    model = helper.make_model(graph, producer_name="else", ir_version=10)
    onnx.save(model, path)
    return path


def test_a_foreign_file_is_counted(cli: Cli, foreign: Path) -> None:
    found = cli("inspect", foreign, "--json").json()
    assert (found["form"], found["loops"], found["trained_loops"]) == (None, None, None)
    assert found["producer"] == "else"
    assert found["weight_bytes"] == 2 * 64
    assert found["untied_bytes"] == 3 * 64
    assert found["tied_weights"] == [{"name": "w[0]", "uses": 2, "bytes": 64}]
    assert found["int8"] == {"quantized": 0, "total": 3, "bytes": 0, "total_bytes": 2 * 64}
    outcome = cli("inspect", foreign)
    assert "not written by loopedge but by else" in outcome.out
    assert "w[0]" in outcome.out  # square brackets are not markup


@pytest.fixture
def written_out(tmp_path: Path) -> Path:
    """Three iterations of two layers as an exporter writes them, its weights copied for each of them."""
    nodes, stored, value = [], [], "x"
    for t in range(3):
        for layer in ("first", "second"):
            array = np.random.default_rng(len(layer)).standard_normal((4, 4)).astype(np.float32)
            name = f"{layer}.{t}"
            turned = np.ascontiguousarray(array.T) if (t, layer) == (2, "first") else array
            stored.append(numpy_helper.from_array(turned, name))
            operator = "MatMul" if turned is array else "Gemm"
            more: dict[str, Any] = {} if turned is array else {"transB": 1}
            nodes.append(helper.make_node(operator, [value, name], [f"a.{name}"], **more))
            nodes.append(helper.make_node("Tanh", [f"a.{name}"], [f"b.{name}"]))
            value = f"b.{name}"
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, (2, 4)) for name in ("x", value)
    ]
    path = tmp_path / "written out.onnx"
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]), path)
    return path


def test_what_could_be_rolled_is_shown(cli: Cli, written_out: Path) -> None:
    found = cli("inspect", written_out, "--json").json()
    assert found["ties"]["order"] == "3 x (A B)"
    assert found["ties"]["repeats"] == [{"times": 3, "parts": ["A", "B"]}]
    assert [group["reads"] for group in found["ties"]["groups"]] == [3, 3]
    assert {
        copies["names"][0]: (len(copies["names"]), copies["transposed"], copies["saved_bytes"])
        for copies in found["copies"]
    } == {"first.0": (2, ["first.2"], 128), "second.0": (3, [], 128)}
    command = f"loopedge reroll '{written_out}'"
    assert found["rolling"] == {
        "rollable": True,
        "iterations": 3,
        "reason": None,
        "notes": [],
        "command": command,
    }
    shown = " ".join(cli("inspect", written_out).out.split())
    for words in (
        "4 equal copies of 2 weights, 256 bytes could be saved",
        "3 x (A B)",
        "A: 1 weight, 64 bytes, read 3 times one after the other",
        "to give it its Loop of 3 iterations",
    ):
        assert words in shown


def test_why_nothing_can_be_rolled_is_shown(cli: Cli, foreign: Path, tiny: Path) -> None:
    found = cli("inspect", tiny, "--json").json()
    assert (found["copies"], found["ties"]["order"]) == ([], "")
    assert found["rolling"]["reason"] == "it has its Loop already: core of 3 iterations"
    assert found["rolling"]["command"] is None
    assert "rolling" not in cli("inspect", tiny).out
    assert "2 x A" in cli("inspect", foreign).out


def test_int8_coverage_of_a_quantized_model(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    target = tmp_path / "int8.onnx"
    made = cli("quantize", tiny, "-o", target, "--json").json()
    found = cli("inspect", target, "--json").json()
    assert found["int8"] == {name: made["matmuls"][name] for name in found["int8"]}
    assert set(found["int8"]) == {"quantized", "total", "bytes", "total_bytes"}
    assert found["int8"]["quantized"] == 7
    assert found["weight_bytes"] == made["weight_bytes"]


@pytest.mark.parametrize(
    ("scheme", "name"), [("weight-int4", "int4"), ("weight-int2", "int2"), ("dynamic", "int8")]
)
def test_integers_are_called_by_their_bits(
    scheme: str, name: str, cli: Cli, tiny: Path, tmp_path: Path
) -> None:
    path = tmp_path / "q.onnx"
    options = ("--scheme", scheme, "--min-sqnr-db", "-50")
    assert cli("quantize", tiny, "-o", path, *options).code == 0
    assert f"{name}  7 of 7 linears" in cli("inspect", path).out
