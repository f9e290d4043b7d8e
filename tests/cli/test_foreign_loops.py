"""Loops of other tools: trip counts that are constant, an input, absurd or left to a condition; names that mean something here."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import loopedge
import loopedge_calibration
from loopedge.artifact.artifact import Artifact
from loopedge.deployment.conversion import convert
from loopedge.errors import InputError
from loopedge.graph.core.untied import untie
from loopedge.quantizer.activations.ranges import RangeTable
from tests.cli.conftest import Cli

Array = NDArray[Any]
D = 32
RNG = np.random.default_rng(0)
W = (RNG.normal(size=(D, D)) / np.sqrt(D)).astype(np.float32)
B = (RNG.normal(size=D) / 10).astype(np.float32)
X = np.random.default_rng(1).normal(size=(8, 6, D)).astype(np.float32)
STATE: list[str | int | None] = ["batch", "sequence", D]


def expected(loops: int) -> Array:
    """Return what `looped` computes, in NumPy."""
    state = X
    for _ in range(loops):
        state = np.tanh(state @ W + B)
    return state


def looped(
    path: Path,
    trips: int | str,
    *,
    ends_at: int | None = None,
    names: Sequence[str] = ("w", "b"),
    through: Sequence[str] = (),
    state_is_stored: bool = False,
) -> Path:
    """Write tanh(s @ W + B) in a Loop.

    Args:
        path: Where to.
        trips: The constant trip count, or the name of an input that holds it.
        ends_at: The iteration behind which the condition ends the Loop.
        names: Of the weight and the bias.
        through: Operators that the count passes on its way to the Loop.
        state_is_stored: The body holds an initializer of the name of its state.
    """
    weight, bias = names
    condition = [helper.make_node("Identity", ["c"], ["d"])]
    if ends_at is not None:
        before_last = numpy_helper.from_array(np.array(ends_at - 1, np.int64))
        condition = [
            helper.make_node("Constant", [], ["last"], value=before_last),
            helper.make_node("Less", ["i", "last"], ["d"]),
        ]
    body = helper.make_graph(
        [
            *condition,
            helper.make_node("MatMul", ["s", weight], ["product"], name="lin"),
            helper.make_node("Add", ["product", bias], ["sum"]),
            helper.make_node("Tanh", ["sum"], ["t"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("s", TensorProto.FLOAT, STATE),
        ],
        [
            helper.make_tensor_value_info("d", TensorProto.BOOL, []),
            helper.make_tensor_value_info("t", TensorProto.FLOAT, STATE),
        ],
        [numpy_helper.from_array(X[:1], "s")] if state_is_stored else [],
    )
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, STATE)]
    stored = [
        numpy_helper.from_array(W, weight),
        numpy_helper.from_array(B, bias),
        numpy_helper.from_array(np.array(True), "go"),
    ]
    if isinstance(trips, str):
        inputs.append(helper.make_tensor_value_info(trips, TensorProto.INT64, [1]))
    else:
        stored.append(numpy_helper.from_array(np.array([trips], np.int64), "n"))
    count, passed = trips if isinstance(trips, str) else "n", []
    for place, operator in enumerate(through):
        passed.append(helper.make_node(operator, [count], [f"count.{place}"]))
        count = f"count.{place}"
    loop = helper.make_node("Loop", [count, "go", "x"], ["y"], name="loop", body=body)
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, STATE)
    graph = helper.make_graph([*passed, loop], "other", inputs, [output], stored)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path
    )
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    np.savez(tmp_path / "x.npz", x=X)
    return tmp_path / "x.npz"


@pytest.mark.parametrize(("trips", "shown"), [(0, "0"), (-1, "-1"), (10**12, "1,000,000,000,000")])
@pytest.mark.parametrize("command", ["inspect", "run", "quantize", "profile", "convert"])
def test_a_trip_count_that_cannot_be_meant(
    command: str, trips: int, shown: str, cli: Cli, data: Path, tmp_path: Path
) -> None:
    source = str(looped(tmp_path / "m.onnx", trips))
    result = cli(command, source, *(["--input", str(data)] if command == "run" else []))
    assert result.code == 2
    assert f"Loop loop has the constant trip count {shown}, allowed is 1 to 65,536" in result.err
    assert not [path for path in tmp_path.iterdir() if path.name not in {"m.onnx", "x.npz"}]


UNLOADABLE = {
    "stored": "Loop loop hands 's' to its body, where an initializer has that name",
    "turned": "loop reads 'turned' from outside its body, which Transpose makes of what rounded dequantizes",
}
"""What ONNX Runtime refuses, and what it aborts the process at."""


def unloadable(kind: str, path: Path) -> str:
    if kind == "stored":
        return str(looped(path, 3, state_is_stored=True))
    proto = onnx.load(looped(path, 3))
    loop = next(node for node in proto.graph.node if node.op_type == "Loop")
    before = [
        helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["d"], name="rounded"),
        helper.make_node("Transpose", ["d"], ["turned"], perm=[0, 2, 1]),
    ]
    proto.graph.initializer.extend(
        [
            numpy_helper.from_array(np.array(0.1, np.float32), "step"),
            numpy_helper.from_array(np.array(0, np.uint8), "zero"),
        ]
    )
    body = next(item for item in loop.attribute if item.name == "body").g
    body.node.append(helper.make_node("Neg", ["turned"], ["unread"]))
    nodes = [*before, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    onnx.save(proto, path)
    return str(path)


@pytest.mark.parametrize("kind", UNLOADABLE)
@pytest.mark.parametrize("command", ["run", "quantize", "profile", "convert", "prepare"])
def test_what_onnxruntime_cannot_load_is_refused(
    command: str, kind: str, cli: Cli, data: Path, tmp_path: Path
) -> None:
    source = unloadable(kind, tmp_path / "m.onnx")
    result = cli(command, source, *(["--input", str(data)] if command == "run" else []))
    assert result.code == 2
    assert f"m.onnx cannot be loaded: {UNLOADABLE[kind]}" in result.err
    assert f"hint: loopedge inspect {source}" in result.err
    assert not [path for path in tmp_path.iterdir() if path.name not in {"m.onnx", "x.npz"}]


@pytest.mark.parametrize("kind", UNLOADABLE)
def test_inspect_says_what_cannot_be_loaded(kind: str, cli: Cli, tmp_path: Path) -> None:
    source = unloadable(kind, tmp_path / "m.onnx")
    result = cli("inspect", source)
    assert result.code == 0
    assert f"WARNING: {UNLOADABLE[kind]}" in result.out
    found = cli("inspect", source, "--json").json()
    assert found["unloadable"][0].startswith(UNLOADABLE[kind])
    assert found["rolling"]["command"] is None


@pytest.mark.parametrize("trips", [2**31 - 1, 2**63 - 1, 65_537])
def test_a_count_that_leaves_it_to_the_condition_is_not_counted(
    trips: int, cli: Cli, tmp_path: Path
) -> None:
    source = looped(tmp_path / "m.onnx", trips, ends_at=3)
    found = loopedge.inspect(source)
    assert (found.loops, found.exit) == (None, "its condition")
    assert found.untied_bytes == found.weight_bytes == W.nbytes + B.nbytes
    assert "a Loop that its condition ends" in cli("inspect", str(source)).out
    refused = cli("profile", str(source), "--untied")
    assert refused.code == 2
    assert "the loop count is known only when the graph runs" in refused.err


def test_a_count_that_a_condition_may_undercut_is_the_most(cli: Cli, tmp_path: Path) -> None:
    source = looped(tmp_path / "m.onnx", 8, ends_at=3)
    assert loopedge.inspect(source).loops == 8
    shown = cli("inspect", str(source)).out
    assert "a Loop of at most 8 iterations" in shown
    assert "would take up to" in shown


@pytest.mark.parametrize("through", [(), ("Squeeze",), ("Identity", "Squeeze")])
def test_an_input_that_counts_is_the_loop_count_whatever_it_is_called(
    through: Sequence[str], cli: Cli, data: Path, tmp_path: Path
) -> None:
    source = looped(tmp_path / "m.onnx", "trips", through=through)
    assert loopedge.inspect(source).dynamic_loops
    run = ("run", str(source), "--input", str(data), "-o", str(tmp_path / "y.npz"), "--force")
    for loops in (1, 3):
        assert cli(*run, "--loops", str(loops)).code == 0
        given = np.load(tmp_path / "y.npz")["y"]
        np.testing.assert_allclose(given, expected(loops), rtol=1e-4, atol=1e-5)
    refused = cli(*run)
    assert refused.code == 2
    assert "takes a loop count, its input trips" in refused.err
    assert "--loops N" in refused.err


def test_a_file_of_inputs_may_hold_the_count(cli: Cli, tmp_path: Path) -> None:
    source = looped(tmp_path / "m.onnx", "trips")
    np.savez(tmp_path / "both.npz", x=X, trips=np.array([2]))
    result = cli(
        "run", str(source), "--input", str(tmp_path / "both.npz"), "-o", str(tmp_path / "y.npz")
    )
    assert result.code == 0
    given = np.load(tmp_path / "y.npz")["y"]
    np.testing.assert_allclose(given, expected(2), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_twin_of_as_many_loops_as_are_named(cli: Cli, tmp_path: Path) -> None:
    source = looped(tmp_path / "m.onnx", "trips")
    unnamed = cli("profile", str(source), "--untied")
    assert unnamed.code == 2
    assert "--loops N" in unnamed.err
    sizes = ("--batch", "1", "--sequence", "4", "--runs", "2", "--json")
    tied, twin = cli("profile", str(source), "--untied", "--loops", "3", *sizes).json()["runs"]
    assert (tied["loops"], twin["loops"]) == (3, 3)
    assert twin["weight_bytes"] == 3 * tied["weight_bytes"]
    assert twin["output_error"] < 1e-3  # the copies differ in their last bits


def test_a_loop_count_that_is_fixed_is_named(cli: Cli, tmp_path: Path) -> None:
    source = looped(tmp_path / "m.onnx", 3)
    refused = cli("profile", str(source), "--loops", "5")
    assert refused.code == 2
    assert "runs 3 loops, 5 were asked for" in refused.err


@pytest.mark.parametrize(
    "names", [("timestep.w", "range.b"), ("loopedge.w", "timestep.b"), ("range.w", "loopedge.b")]
)
def test_weights_that_are_called_as_what_loopedge_adds_are_weights(
    names: Sequence[str], tmp_path: Path
) -> None:
    source = looped(tmp_path / "m.onnx", 3, names=names)
    found = loopedge.inspect(source)
    assert found.weight_bytes == W.nbytes + B.nbytes
    assert found.untied_bytes == 3 * found.weight_bytes
    assert found.tables == []
    assert {weight.name for weight in found.tied_weights} == {f"model.{name}" for name in names}


def test_what_a_quantization_adds_to_another_tools_graph_is_no_weight(tmp_path: Path) -> None:
    source = looped(tmp_path / "m.onnx", 3, names=("range.w", "timestep.b"))
    target = tmp_path / "q.onnx"
    loopedge.quantize(source, target, reduce_range=True)
    found = loopedge.inspect(target)
    assert found.weight_bytes == W.size + 4 * D + B.nbytes  # int8, its scales, the bias
    assert {weight.name for weight in found.tied_weights} == {
        "model.range.w",
        "model.range.w.scale",
        "model.timestep.b",
    }


@pytest.mark.parametrize("trips", [0, 10**12])
def test_an_ort_file_is_held_to_the_same(
    trips: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = looped(tmp_path / "m.onnx", 4321)
    convert(source, tmp_path / "m.ort")
    content = (tmp_path / "m.ort").read_bytes()
    old, new = (number.to_bytes(8, "little") for number in (4321, trips))
    assert content.count(old) == 1
    (tmp_path / "m.ort").write_bytes(content.replace(old, new))
    with pytest.raises(InputError, match=f"trip count {trips:,}, allowed is 1 to 65,536"):
        Artifact.open(tmp_path / "m.ort")


def test_branches_of_the_main_graph_are_read_once(tmp_path: Path) -> None:
    """An If beside the Loop does not run once per iteration."""
    source = looped(tmp_path / "m.onnx", 3)
    model = onnx.load(source)
    weight = numpy_helper.from_array(W + 1, "v")
    branch = helper.make_graph(
        [helper.make_node("MatMul", ["x", "v"], ["z"])],
        "branch",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, STATE)],
    )
    model.graph.initializer.append(weight)
    model.graph.node.append(
        helper.make_node("If", ["go"], ["z2"], then_branch=branch, else_branch=branch)
    )
    model.graph.output.append(helper.make_tensor_value_info("z2", TensorProto.FLOAT, STATE))
    onnx.save(model, source)
    uses = {weight.name: weight.uses for weight in loopedge.inspect(source).tied_weights}
    assert uses == {"w": 3, "b": 3, "v": 2}


def test_an_untied_twin_of_the_named_count(tmp_path: Path) -> None:
    graph = Artifact.open(looped(tmp_path / "m.onnx", "trips")).fresh_graph()
    twin = untie(graph, 3)
    assert [value.name for value in twin.graph.inputs] == ["x"]
    assert {f"w.{t}" for t in range(3)} <= set(twin.graph.initializers)


def rounded(source: Path, **options: Any) -> tuple[Array, RangeTable]:
    """Return what static int8 with ranges of the samples gives, and the ranges."""
    table = loopedge_calibration.collect(source, [{"x": X}], smoothing=False, **options)
    target = source.with_suffix(".int8.onnx")
    loopedge.quantize(source, target, ranges=table, reduce_range=True, data=[{"x": X}])
    return loopedge.Session(target).run({"x": X})["y"], table


@pytest.mark.parametrize(("trips", "rows"), [(8, 8), (1000, 1000), (2**31 - 1, 3)])
def test_ranges_of_a_loop_that_its_condition_ends(trips: int, rows: int, tmp_path: Path) -> None:
    source = looped(tmp_path / "m.onnx", trips, ends_at=3)
    given, table = rounded(source)
    states = [expected(iteration) for iteration in range(3)]
    (item,) = table.tensors.values()
    assert (table.loops, len(item.low)) == (rows, rows)
    for iteration, state in enumerate(states):
        assert state.min() * 1.01 <= item.low[iteration] <= state.min() * 0.5
        assert state.max() * 0.5 <= item.high[iteration] <= state.max() * 1.01
    assert set(item.low[3:]) <= {item.low[2]}
    exact = expected(3)
    assert np.linalg.norm(given - exact) < 0.1 * np.linalg.norm(exact)


def test_batches_that_run_other_numbers_of_iterations(tmp_path: Path) -> None:
    """The count comes with the data: the second batch runs further than the first, and the third less."""
    source = looped(tmp_path / "m.onnx", "trips")
    batches = [{"x": X, "trips": np.array([trips])} for trips in (2, 4, 1)]
    table = loopedge_calibration.collect(source, batches, smoothing=False, method="minmax")
    (item,) = table.tensors.values()
    np.testing.assert_allclose(item.high, [expected(t).max() for t in range(4)], rtol=1e-4)


@pytest.mark.parametrize("named", ["option", "file"])
@pytest.mark.parametrize("scheme", ["static", "dynamic"])
def test_a_count_that_is_an_input_is_quantized(
    named: str, scheme: str, cli: Cli, data: Path, tmp_path: Path
) -> None:
    source = looped(tmp_path / "m.onnx", "trips")
    options = ["--loops", "3"]
    if named == "file":
        np.savez(data, x=X, trips=np.array([3]))
        options = []
    words = ("quantize", source, "--data", data, "--scheme", scheme, "-o", tmp_path / "q.onnx")
    result = cli(*words, "--reduce-range", "--save-ranges", tmp_path / "r.json", *options, "--json")
    if scheme == "dynamic":
        result = cli(*words, "--reduce-range", *options, "--json")
    assert result.code == 0, result.err
    found = result.json()
    assert (found["matmuls"]["quantized"], found["matmuls"]["total"]) == (1, 1)
    for loops in (1, 3, 5):
        given = loopedge.Session(tmp_path / "q.onnx").run({"x": X, "trips": np.array([loops])})["y"]
        exact = expected(loops)
        assert np.linalg.norm(given - exact) < 0.1 * np.linalg.norm(exact)


def test_a_count_that_nothing_says_is_asked_for(cli: Cli, data: Path, tmp_path: Path) -> None:
    source = looped(tmp_path / "m.onnx", "trips")
    refused = cli("quantize", source, "--data", data)
    assert refused.code == 2
    assert "the model takes a loop count, its input trips" in refused.err
    assert "--loops N" in refused.err


def test_a_count_that_cannot_be_chosen_is_refused(cli: Cli, data: Path, tmp_path: Path) -> None:
    source = looped(tmp_path / "m.onnx", 3)
    refused = cli("quantize", source, "--data", data, "--loops", "5")
    assert refused.code == 2
    assert "the model runs 3 loops, 5 were asked for" in refused.err
