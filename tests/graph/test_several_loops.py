"""Graphs whose main graph holds several Loops: what is a core, what each reads, and what passes make of them."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

import loopedge
from loopedge.artifact.artifact import Artifact, write_artifact
from loopedge.errors import InputError
from loopedge.graph.core.cores import Cores
from loopedge.graph.core.names import (
    core_in_name,
    core_name,
    is_core,
    iteration_in_name,
    name_in_iteration,
)
from loopedge.graph.core.number_reads import number_reads, tables_read
from loopedge.graph.core.probe import probe, stack_probed
from loopedge.graph.core.selectable_count import make_count_selectable
from loopedge.graph.core.ties import tied_weights, untied_bytes
from loopedge.graph.core.unrolling import unroll
from loopedge.graph.core.untied import untie
from loopedge.graph.core.view import NoCore, view_core, view_cores
from loopedge.graph.metadata import MOST_LOOPS, ArtifactMetadata, read_metadata, write_metadata
from loopedge.graph.positions.last_iteration import narrow_last_iteration
from loopedge.graph.weights import weight_bytes
from tests.graph.chained_loops import COUNTS, LINEARS, X, chained
from tests.graph.loop_graphs import LoopSpec, as_ir, loop_model

FEW = {"inputs": X[:2]}
OWN = pytest.mark.parametrize("own", [True, False], ids=["ours", "foreign"])


def graph(**options: Any) -> ir.Model:
    return as_ir(chained(**options))


def run(model: ir.Model, feeds: dict[str, NDArray[Any]] = FEW) -> list[NDArray[Any]]:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    return [np.asarray(array) for array in ReferenceEvaluator(proto).run(None, feeds)]


def opened(path: Path, model: onnx.ModelProto) -> ir.Model:
    """Return a graph as the verbs read it: nodes and values have names of their own."""
    onnx.save(model, path)
    return Artifact.open(path).float32_graph()


def test_cores_are_counted_from_one_and_iterations_are_none() -> None:
    assert [core_name(place) for place in range(3)] == ["core", "core2", "core3"]
    assert all(map(is_core, ["core", "core2", "core10", "core99"]))
    assert not any(
        map(is_core, [None, "", "core0", "core1", "core01", "core.2", "score", "core2/x"])
    )
    assert [
        core_in_name(name) for name in ("core2/x", "core2.5/x", "core.2/x", "core.last/x", "x")
    ] == [
        "core2",
        "core2",
        "core",
        "core",
        None,
    ]
    assert (iteration_in_name("core2.5/x"), iteration_in_name("core.2/x")) == (5, 2)
    assert name_in_iteration("core12/x/y", 3) == "core12.3/x/y"
    assert name_in_iteration("coda/x", 3) is None


@pytest.mark.parametrize(
    "cores", [{"core": 4}, {"core": 4, "loop": 3}, {"core": 5, "core2": 3}, {"core": 4, "core2": 0}]
)
def test_damaged_counts_of_cores_are_refused(cores: dict[str, int]) -> None:
    metadata = ArtifactMetadata(version="0", form="loop", loops=4, trained_loops=4)
    properties: dict[str, str] = {}
    write_metadata(metadata.model_copy(update={"cores": cores}), properties)
    with pytest.raises(InputError, match="metadata of the model is damaged"):
        read_metadata(properties)


@OWN
@pytest.mark.parametrize("form", ["loop", "unrolled"])
def test_every_core_is_found_with_its_own_count(form: str, own: bool) -> None:
    model = graph(own=own)
    cores = view_cores(model if form == "loop" else unroll(model))
    assert [core.form for core in cores] == [form, form]
    assert [len(core.linears) for core in cores] == [6, 6]
    assert [len(core.states) for core in cores] == [1, 1]
    assert [len(core.tables) for core in cores] == [1, 1]
    assert [set(core.weights.values()) for core in cores] == [{4}, {3}]
    if own or form == "loop":  # the metadata says it, or the trip counts
        assert [core.iterations for core in cores] == list(COUNTS)
    if own:
        assert [core.name for core in cores] == ["core", "core2"]
        assert [core.states for core in cores] == [["core/next"], ["core2/next"]]
    for first, second in ((cores[0], cores[1]), (cores[1], cores[0])):
        assert not any(second.contains(node) for node in first.nodes)


@OWN
def test_of_several_none_is_the_only_core(own: bool) -> None:
    model = graph(own=own)
    assert isinstance(view_core(model), NoCore)
    outcome = narrow_last_iteration(model)
    assert not outcome.applied
    assert outcome.reason is not None


def test_a_loop_beside_the_cores_is_none() -> None:
    """Ours are those that are called so: a Loop of the prelude runs over something else."""
    model = graph()
    next(node for node in model.graph if node.name == "core2").name = "prelude/over_time"
    assert [core.name for core in view_cores(model)] == ["core"]


@OWN
def test_a_number_is_that_of_the_core_that_a_node_stands_in(own: bool) -> None:
    model = graph(own=own)
    cores = Cores(model)
    for core in cores.loops:
        assert {cores.of(node) for node in core.nodes} == {core}
        assert {cores.number_at(node) for node in core.nodes} == {core.loop.iteration}
    outside = cores.number_at(model.graph[0])
    assert outside.const_value is not None
    assert outside.const_value.numpy().item() == 0


@pytest.mark.parametrize(
    ("own", "form"), [(True, "loop"), (True, "unrolled"), (False, "loop")]
)  # what another tool unrolled is not known to repeat
def test_probes_look_into_every_core(own: bool, form: str, tmp_path: Path) -> None:
    loop = opened(tmp_path / "m.onnx", chained(own=own))
    names = [f"{item.node.name}.input" for core in view_cores(loop) for item in core.linears]
    names += [name for core in view_cores(loop) for name in core.states]
    counts = [4] * len(LINEARS) + [3] * len(LINEARS) + [4, 3]
    model = loop if form == "loop" else unroll(loop)
    write_artifact(probe(model, names), tmp_path / "probed.onnx")
    found = stack_probed(loopedge.Session(tmp_path / "probed.onnx").run(FEW), names)
    assert [len(found[name]) for name in names] == counts
    exact = loopedge.Session(tmp_path / "m.onnx").run(FEW)["outputs"]
    again = loopedge.Session(tmp_path / "probed.onnx").run(FEW)["outputs"]
    assert np.array_equal(exact, again) or np.allclose(exact, again, rtol=1e-5, atol=1e-6)
    # What the second core starts from is what the first ends with.
    assert not np.allclose(found[names[-2]][-1], found[names[-1]][-1])


@OWN
@pytest.mark.parametrize("shared", [False, True])
def test_untied_bytes_are_those_of_all_iterations(own: bool, shared: bool) -> None:
    model = graph(own=own, shared=shared)
    uses = {weight.name: weight.uses for weight in tied_weights(model)}
    block, ones = 4 * (4 * 32 * 32 + 2 * 32 * 64), 4 * 32  # six linears, and what both norms read
    outside = weight_bytes(model) - (1 if shared else 2) * block - ones
    assert untied_bytes(model) == outside + sum(COUNTS) * (block + ones)
    assert {uses[f"{name}0"] for name in LINEARS} == {sum(COUNTS) if shared else 4}
    if not shared:
        assert {uses[f"{name}1"] for name in LINEARS} == {3}
    assert not any("scale" in name for name in uses), "a table ties nothing"


@OWN
@pytest.mark.parametrize("shared", [False, True])
def test_the_untied_twin_has_own_weights_in_every_iteration_of_every_loop(
    own: bool, shared: bool
) -> None:
    model = graph(own=own, shared=shared)
    twin = untie(model)
    assert not view_cores(twin) or {core.form for core in view_cores(twin)} == {"unrolled"}
    assert weight_bytes(twin) == untied_bytes(model)
    copies = [name for name in twin.graph.initializers if name.startswith("up")]
    assert len(copies) == sum(COUNTS)
    stored = [twin.graph.initializers[name].const_value for name in copies]
    assert len({tensor.tobytes() for tensor in stored if tensor is not None}) == sum(COUNTS)
    (exact,), (given,) = run(model), run(twin)
    assert np.abs(given - exact).max() < 1e-3 * np.abs(exact).max()


# The count of a Loop as an input.


@OWN
@pytest.mark.parametrize("opset", [17, 21])
def test_an_input_chooses_the_count(own: bool, opset: int, tmp_path: Path) -> None:
    model = graph(counts=(4,), own=own, opset=opset)
    (exact,) = run(model)
    assert make_count_selectable(model) == 4
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    write_artifact(model, tmp_path / "m.onnx")
    session = loopedge.Session(tmp_path / "m.onnx")
    assert session.takes_loops
    given = {n: session.run(FEW, loops=n)["outputs"] for n in (1, 2, 4, 5, 2**40)}
    for count in (4, 5, 2**40):
        assert np.allclose(given[count], exact, rtol=1e-4, atol=1e-5)
    short = graph(counts=(2,), own=own, opset=opset)
    table = next(name for name in short.graph.initializers if "scale0" in name)
    long = model.graph.initializers[table].const_value
    assert long is not None
    for name, value in model.graph.initializers.items():
        if name in short.graph.initializers and not name.startswith("count"):
            short.graph.initializers[name].const_value = value.const_value
    rows = np.ascontiguousarray(long.numpy()[:2])
    short.graph.initializers[table].const_value = ir.tensor(rows)
    assert np.allclose(given[2], run(short)[0], rtol=1e-4, atol=1e-5)
    assert not np.allclose(given[1], given[2], rtol=1e-2)
    metadata = read_metadata(model.metadata_props)
    assert metadata.foreign == (not own)
    if own:
        assert (metadata.dynamic_loops, metadata.loops, metadata.max_loops) == (True, 4, 4)


def test_without_tables_any_count_may_be_chosen() -> None:
    model = as_ir(loop_model(LoopSpec(iterations=3)))
    assert make_count_selectable(model) == MOST_LOOPS
    x = np.random.default_rng(1).normal(size=(2, 3, 4)).astype(np.float32)
    for count in (0, 1, 5):
        (given, *_) = run(model, {"x": x, "loops": np.array(count)})
        (exact, *_) = run(as_ir(loop_model(LoopSpec(iterations=max(count, 1)))), {"x": x})
        assert np.allclose(given, exact)


@pytest.mark.parametrize("opset", [11, 12])
def test_before_opset_12_a_count_is_clamped_as_a_float(opset: int) -> None:
    model = as_ir(loop_model(LoopSpec(iterations=3), opset=opset))
    make_count_selectable(model)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    kinds = {node.op_type for node in model.graph}
    assert ("Cast" in kinds) == (opset < 12)


def test_a_stack_that_is_an_output_grows_with_the_count() -> None:
    model = as_ir(loop_model(LoopSpec(iterations=3, stacked=1)))
    make_count_selectable(model)
    (stack,) = [value for value in model.graph.outputs if "stack" in (value.name or "")]
    assert stack.shape is not None
    assert not isinstance(stack.shape[0], int)


NUMBER_USED = """
    <ir_version: 8, opset_import: ["": 18]>
    other (float[2, 4] x) => (float[2, 4] y)
    <int64 n = {3}, bool go = {1}, float[4, 2] wide = {1, 2, 3, 4, 5, 6, 7, 8}, int64 two = {2}> {
        LAST
        y = Loop (n, go, x) <body = step (int64 i, bool c, float[2, 4] s) => (bool k, float[2, 4] t) {
            k = Identity (c)
            BODY
        }>
    }
"""


@pytest.mark.parametrize(
    ("body", "most"),
    [
        ("f = Cast <to=1> (i) t = Add (s, f)", MOST_LOOPS),
        ("j = Min (i, two) r = Gather <axis=0> (x3, j) t = Add (s, r)", MOST_LOOPS),
        (
            "a = Constant <value_ints=[0]> () j = Unsqueeze (i, a) r = Gather (x3, j) t = Add (s, r)",
            3,
        ),
        ("j = Cast <to=6> (i) r = Gather (x3, j) t = Add (s, r)", 3),
    ],
)
def test_what_the_number_of_the_iteration_may_reach(body: str, most: int) -> None:
    text = NUMBER_USED.replace("BODY", body).replace("LAST", "").replace("x3", "rows")
    text = text.replace(
        "int64 two = {2}", "int64 two = {2}, float[3, 4] rows = {1,2,3,4,5,6,7,8,9,10,11,12}"
    )
    model = ir.from_onnx_text(text)
    assert make_count_selectable(model) == most


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            "r = Gather <axis=1> (wide, i) t = Add (s, r)",
            "Gather.* reads the number of the iteration",
        ),
        ("r = Gather (s, i) t = Add (s, r)", "Gather.* reads the number of the iteration"),
        (
            "j = Add (i, two) r = Gather <axis=0> (wide, j) q = ReduceSum <keepdims=0> (r) t = Add (s, q)",
            "Add",
        ),
    ],
)
def test_what_else_needs_the_number_refuses(body: str, reason: str) -> None:
    model = ir.from_onnx_text(NUMBER_USED.replace("BODY", body).replace("LAST", ""))
    with pytest.raises(InputError, match=reason):
        make_count_selectable(model)
    assert [value.name for value in model.graph.inputs] == ["x"]


def test_a_count_that_is_not_one_number_for_all_refuses() -> None:
    with pytest.raises(InputError, match=r"2 Loops \(core 4, core2 3\)"):
        make_count_selectable(graph())
    with pytest.raises(InputError, match="no constant trip count"):
        make_count_selectable(graph(counts=(4,), count_input=True))
    with pytest.raises(InputError, match="holds no Loop"):
        make_count_selectable(unroll(graph(counts=(4,))))
    with pytest.raises(InputError, match=r"gather \(Gather\) reads what every iteration"):
        make_count_selectable(as_ir(loop_model(LoopSpec(iterations=3, stacked=1, reads=2))))
    named = graph(counts=(4,))
    named.graph.inputs[0].name = "loops"
    with pytest.raises(InputError, match="has an input loops already"):
        make_count_selectable(named)


def test_tables_are_those_that_the_number_picks_rows_of() -> None:
    (core,) = Cores(graph(counts=(4,), own=False)).loops
    assert [table.name for table in tables_read(core.loop)] == ["rows.scale0"]
    (read,) = number_reads(core.loop)
    assert (read.rows, read.limit, read.last) == (4, 4, None)


@pytest.mark.slow
@pytest.mark.parametrize(("counts", "chosen"), [((4,), True), (COUNTS, False)])
def test_a_rerolled_file_may_take_its_count(
    counts: tuple[int, ...], chosen: bool, tmp_path: Path
) -> None:
    flat = unroll(graph(counts=counts))
    flat.metadata_props.clear()
    for place, node in enumerate(flat.graph):
        node.name = f"n{place}"
    source, target = tmp_path / "flat.onnx", tmp_path / "m.onnx"
    write_artifact(flat, source)
    if not chosen:
        with pytest.raises(InputError, match=r"cannot become an input: .* 2 Loops"):
            loopedge.reroll(source, target, dynamic_loops=True)
        assert not target.exists()
        rolled = {loop.name: loop.iterations for loop in loopedge.reroll(source, target).loops}
        found = loopedge.inspect(target)
        assert list(rolled) == ["core", "core2"]
        assert found.metadata["cores"] == rolled
        assert {core.name: core.iterations for core in found.cores} == rolled
        return
    loopedge.reroll(source, target, dynamic_loops=True)
    inspected = loopedge.inspect(target)
    assert (inspected.loops, inspected.dynamic_loops) == (4, True)
    session = loopedge.Session(target)
    exact = loopedge.Session(source).run(FEW)["outputs"]
    given = [session.run(FEW, loops=count)["outputs"] for count in (1, 4, 9)]
    assert np.allclose(given[1], exact, rtol=1e-4, atol=1e-5)
    assert np.array_equal(given[1], given[2])
    assert not np.allclose(given[0], exact, rtol=1e-2)
