"""``loopedge reroll``: what it writes and shows, and the files that it cannot roll."""

from __future__ import annotations

import io
import re
import subprocess
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from loopedge.deployment.rerolling import RerollResult
from loopedge.files.targets import FileSize
from loopedge.graph.rolling.rolled_loop import RolledLoop
from loopedge_cli.output import console
from loopedge_cli.reroll_view import reroll_view
from tests.cli.test_bad_input import assert_refused
from tests.cli.test_docs import SECTIONS
from tests.cli.tied_files import OTHERS, D, write_tied

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli

pytestmark = pytest.mark.slow


@pytest.fixture
def tied(tmp_path: Path) -> Path:
    return write_tied(tmp_path / "tied.onnx")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_loop_stands_beside_the_model(cli: Cli, tied: Path) -> None:
    found = cli("reroll", tied, "--json").json()
    target = tied.with_suffix(".loop.onnx")
    assert found["path"] == str(target)
    assert names(tied.parent) == {"tied.onnx", target.name}
    (loop,) = found["loops"]
    assert (loop["name"], loop["iterations"], loop["states"]) == ("core", 4, 1)
    assert (found["source_nodes"], found["verified"]) == (17, True)
    assert found["nodes"] < found["source_nodes"]
    assert found["weight_bytes"] == (D * D + D) * 4
    assert found["source_weight_bytes"] == 4 * found["weight_bytes"]
    keys = [*found, *loop, *found["seconds"]]
    assert [key for key in keys if not re.search(rf"\b{key}\b", SECTIONS["reroll"])] == []


def test_it_computes_the_same_and_says_what_it_is(cli: Cli, tied: Path, tmp_path: Path) -> None:
    assert cli("reroll", tied, "-o", tmp_path / "loop.onnx").code == 0
    np.savez(
        tmp_path / "x.npz", x=np.random.default_rng(3).normal(size=(3, 5, D)).astype(np.float32)
    )
    outputs = []
    for model in ("tied", "loop"):
        words = ("--input", tmp_path / "x.npz", "-o", tmp_path / f"{model}.npz")
        assert cli("run", tmp_path / f"{model}.onnx", *words).code == 0
        outputs.append(np.load(tmp_path / f"{model}.npz")["y"])
    np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-4, atol=1e-5)
    found = cli("inspect", tmp_path / "loop.onnx", "--json").json()
    assert (found["form"], found["loops"]) == ("loop", 4)
    assert [(port["name"], port["shape"]) for port in found["inputs"]] == [
        ("x", ["batch", "sequence", D])
    ]


def test_quiet_prints_the_path_alone(cli: Cli, tied: Path) -> None:
    outcome = cli("reroll", tied, "--quiet")
    assert (outcome.out, outcome.err) == (f"{tied.with_suffix('.loop.onnx')}\n", "")


def test_people_see_what_was_saved(cli: Cli, tied: Path) -> None:
    shown = " ".join(cli("reroll", tied).out.split())
    assert "loops 4 iterations" in shown
    assert "weights 4.25 KiB -> 1.06 KiB, 4.00x less" in shown
    assert "against its source on" in shown


def loop(name: str, iterations: int, peeled: str | None = None) -> RolledLoop:
    return RolledLoop(
        name=name,
        iterations=iterations,
        nodes=20,
        states=2,
        tables=1,
        context=4,
        stacked=0,
        peeled_first="3 x Gelu, 1 x Relu" if peeled == "first" else None,
        peeled_last="its norm is fused [away]" if peeled == "last" else None,
    )


def test_what_was_left_outside_is_shown_with_its_reason() -> None:
    loops = [loop("core", 3, "first"), loop("core2", 5, "last")]
    loops[0].inner.append(loop("core/inner.0", 6))
    result = RerollResult(
        path="loop.onnx",
        source="tied.onnx",
        loops=loops,
        opset=20,
        nodes=40,
        source_nodes=30,
        weight_bytes=10,
        source_weight_bytes=0,
        files=[FileSize(path="loop.onnx", bytes=9)],
        source_bytes=9,
        max_abs_error=0.0,
        max_rel_error=0.0,
        verified=True,
        cases=4,
        notes=[],
        seconds={"reroll": 0.1},
    )
    shown = io.StringIO()
    console(shown).print(reroll_view(result))
    lines = [" ".join(line.split()) for line in shown.getvalue().splitlines()]
    assert "loops 2: 3 iterations, 5 iterations" in lines
    assert "nodes 30 -> 40" in lines
    assert "weights 0 bytes -> 10 bytes" in lines
    assert "core/inner.0 6 20 2 1 4 0" in lines
    assert "core first 3 x Gelu, 1 x Relu" in lines
    assert "core2 last its norm is fused [away]" in lines


def test_weights_beside_the_file(cli: Cli, tmp_path: Path) -> None:
    source = write_tied(tmp_path / "tied.onnx", external=True)
    assert "tied.onnx.data" in names(tmp_path)
    assert cli("reroll", source, "--json").json()["verified"]


def test_what_repeats_behind_a_loop_is_rolled_too(cli: Cli, tied: Path, tmp_path: Path) -> None:
    assert cli("reroll", tied, "-o", tmp_path / "first.onnx").code == 0
    second = onnx.load(write_tied(tmp_path / "second.onnx", weights=(OTHERS[0],) * 4))
    first = onnx.load(tmp_path / "first.onnx")
    behind = onnx.compose.add_prefix(second, "second.")
    onnx.save(
        onnx.compose.merge_models(first, behind, io_map=[("y", "second.x")]), tmp_path / "both.onnx"
    )
    outcome = cli("reroll", tmp_path / "both.onnx", "--json")
    assert outcome.code == 0, outcome.err
    found = outcome.json()
    assert [loop["iterations"] for loop in found["loops"]] == [4]
    assert onnx_operators(tmp_path / "both.loop.onnx").count("Loop") == 2


def onnx_operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path, load_external_data=False).graph.node]


# ---- what cannot be rolled: exit 2, one line with the reason, and nothing written ----


def refused(cli: Cli, source: Path, words: str, *more: object) -> str:
    before = {path: path.read_bytes() for path in source.parent.iterdir() if path.is_file()}
    outcome = cli("reroll", source, *more)
    assert_refused(outcome, words)
    assert {p: p.read_bytes() for p in source.parent.iterdir() if p.is_file()} == before
    return outcome.err


def test_a_graph_that_has_its_loop(cli: Cli, tiny: Path) -> None:
    said = refused(cli, tiny, "cannot be rerolled: it has its Loop already, core")
    assert f"hint: loopedge inspect {tiny}" in said
    assert said.count("has its Loop already") == 1


def test_layers_with_weights_of_their_own(cli: Cli, tmp_path: Path) -> None:
    source = write_tied(tmp_path / "untied.onnx", weights=OTHERS)
    refused(cli, source, "4 blocks of equal")


def test_iterations_that_differ(cli: Cli, tmp_path: Path) -> None:
    source = write_tied(tmp_path / "m.onnx", operators=("Tanh", "Sigmoid", "Relu", "Softplus"))
    said = refused(cli, source, "cannot be rerolled: ")
    assert "iteration" in said


def test_control_flow_in_every_iteration(cli: Cli, tmp_path: Path) -> None:
    source = write_tied(tmp_path / "branches.onnx")
    model = onnx.load(source)
    model.graph.input.append(helper.make_tensor_value_info("go", TensorProto.BOOL, []))
    for node in list(model.graph.node):
        if node.op_type != "Tanh":
            continue
        branches = {
            f"{name}_branch": helper.make_graph(
                [helper.make_node(operator, list(node.input), [f"{node.output[0]}.{name}"])],
                name,
                [],
                [
                    helper.make_tensor_value_info(
                        f"{node.output[0]}.{name}", TensorProto.FLOAT, None
                    )
                ],
            )
            for name, operator in (("then", "Tanh"), ("else", "Neg"))
        }
        place = list(model.graph.node).index(node)
        outputs = list(node.output)
        model.graph.node.remove(node)
        model.graph.node.insert(place, helper.make_node("If", ["go"], outputs, **branches))
    onnx.save(model, source)
    refused(cli, source, "cannot be rerolled: ")


@pytest.mark.parametrize("fault", ["operator", "shape"])
def test_a_file_that_onnxruntime_does_not_load(cli: Cli, tmp_path: Path, fault: str) -> None:
    source = write_tied(tmp_path / "m.onnx")
    model = onnx.load(source)
    if fault == "operator":
        model.graph.node[-1].domain = "of.others"
        model.opset_import.append(helper.make_opsetid("of.others", 1))
    else:
        model.graph.node[0].input[1] = "b0"
        model.graph.node[1].input[1] = "w0"
    onnx.save(model, source)
    refused(cli, source, "m.onnx")


def test_a_file_in_ort_format(cli: Cli, tied: Path) -> None:
    assert cli("convert", tied).code == 0
    said = refused(cli, tied.with_suffix(".ort"), "is in ORT format")
    assert f"hint: loopedge reroll {tied}" in said


def test_an_existing_target(cli: Cli, tied: Path) -> None:
    target = tied.with_suffix(".loop.onnx")
    target.write_text("mine")
    refused(cli, tied, "exists already")
    assert cli("reroll", tied, "--force").code == 0
    assert onnx_operators(target).count("Loop") == 1


def test_a_target_that_cannot_be_written(cli: Cli, tied: Path, tmp_path: Path) -> None:
    refused(cli, tied, "does not exist", "-o", tmp_path / "nowhere" / "loop.onnx")
    (tmp_path / "folder.onnx").mkdir()
    refused(cli, tied, "is a folder", "-o", tmp_path / "folder.onnx", "--force")
    refused(cli, tied, "which it would replace", "-o", tied, "--force")


def test_a_name_that_no_file_has(cli: Cli, tmp_path: Path) -> None:
    refused(cli, tmp_path / "absent.onnx", "does not exist")


def test_an_unknown_way_with_inner_loops(cli: Cli, tied: Path) -> None:
    refused(cli, tied, "'--inner'", "--inner", "maybe")


def test_a_file_that_computes_something_else_is_not_left(
    cli: Cli, tied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from loopedge.deployment import rerolling

    monkeypatch.setattr(rerolling, "tolerated_error", lambda graph, iterations: -1.0)
    outcome = cli("reroll", tied)
    assert_refused(outcome, "differs from", code=3)
    assert names(tied.parent) == {"tied.onnx"}


def test_a_process_that_onnxruntime_ends_leaves_no_file(
    cli: Cli, tied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = "import os, signal; os.kill(os.getpid(), signal.SIGABRT)"
    started = subprocess.run

    def run(words: list[str], **named: Any) -> Any:
        return started([words[0], "-c", killed], **named)

    monkeypatch.setattr(subprocess, "run", run)
    assert_refused(cli("reroll", tied), "by SIGABRT", code=3)
    assert names(tied.parent) == {"tied.onnx"}


def test_what_comes_out_is_measured_on_the_sizes_of_its_source(cli: Cli, tmp_path: Path) -> None:
    source = write_tied(tmp_path / "tied.onnx", axes=("s77", "s27"))
    assert cli("reroll", source).code == 0
    rolled = tmp_path / "tied.loop.onnx"
    found = cli(
        "profile", source, rolled, "--processes", "1", "--seconds", "0.1", "--runs", "3", "--json"
    ).json()
    first, second = ((run["batch"], run["sequence"]) for run in found["runs"])
    assert first == second


def test_a_length_that_its_source_takes_is_enough(cli: Cli, tmp_path: Path) -> None:
    source = write_tied(tmp_path / "tied.onnx", axes=("s77", "s27"))
    model = onnx.load(source)  # positions from a table of 16 rows
    rows = np.random.default_rng(5).normal(size=(16, D)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(rows, "positions"))
    cut = [
        helper.make_node("Shape", ["x"], ["length"], start=1, end=2),
        helper.make_node("Slice", ["positions", "zero", "length"], ["read"]),
        helper.make_node("Add", ["x", "read"], ["placed"]),
    ]
    zero = np.zeros(1, np.int64)
    model.graph.initializer.append(onnx.numpy_helper.from_array(zero, "zero"))
    for node in model.graph.node:
        node.input[:] = ["placed" if name == "x" else name for name in node.input]
    nodes = [*cut, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, source)
    assert cli("reroll", source).code == 0
    rolled = tmp_path / "tied.loop.onnx"
    for command in ("convert", "unroll"):
        assert cli(command, rolled).code == 0


def test_it_says_once_that_a_graph_has_its_loop(cli: Cli, tied: Path, tmp_path: Path) -> None:
    assert cli("reroll", tied).code == 0
    said = refused(cli, tied.with_suffix(".loop.onnx"), "it has its Loop already")
    assert said.count("it has its Loop already") == 1
