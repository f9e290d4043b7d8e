"""Files with several Loops, ours and of other tools, through the verbs: quantized, profiled, converted, run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import loopedge
import loopedge_calibration
from loopedge.artifact.artifact import Artifact, write_artifact
from loopedge.errors import InputError
from loopedge.graph.core.cores import Cores
from loopedge.graph.core.unrolling import unroll
from loopedge.graph.weights import linears
from loopedge.quantizer.activations.ranges import read_ranges
from loopedge.quantizer.activations.smoothing import apply_smoothing, smoothable
from loopedge.quantizer.recipe import Recipe
from loopedge.quantizer.source import FloatSource
from loopedge_calibration.sensitivity import measure_sensitivity
from tests.cli.conftest import Cli
from tests.cli.in_process import run_words
from tests.graph.chained_loops import COUNTS, LINEARS, X, chained, write_chained
from tests.graph.loop_graphs import LoopSpec, loop_model
from tests.parity.models import FLIPS, ROUNDING, SEVEN_BITS, relative_error

DATA = {"inputs": X}
OWN = pytest.mark.parametrize("own", [True, False], ids=["ours", "foreign"])
EITHER = pytest.mark.parametrize(("own", "shared"), [(True, True), (False, False), (True, False)])


@pytest.fixture
def cli() -> Cli:
    def run(*words: object) -> Any:
        return run_words(words)

    return run


def quantized(source: Path, target: Path, **options: Any) -> loopedge.QuantizeResult:
    options = {"scheme": "static", "data": DATA, "force": True, **SEVEN_BITS, **options}
    return loopedge.quantize(source, target, **options)


def core_coverage(path: Path) -> list[int]:
    """Return how many products of each core are integer ones."""
    products = {"MatMulIntegerToFloat", "DynamicQuantizeMatMul", "MatMulInteger", "MatMulNBits"}
    cores = Cores(Artifact.open(path).graph)
    return [sum(node.op_type in products for node in core.nodes) for core in cores]


@pytest.mark.slow
@EITHER
def test_static_int8_gives_each_core_ranges_of_its_own(
    own: bool, shared: bool, tmp_path: Path
) -> None:
    source = write_chained(tmp_path / "m.onnx", own=own, shared=shared)
    target, table = tmp_path / "q.onnx", tmp_path / "r.json"
    result = quantized(source, target, save_ranges=table)
    assert core_coverage(target) == [6, 6]
    assert [item["name"] for item in result.matmuls["skipped"]] == ["prelude/enter"]
    assert len(result.sqnr_db_per_iteration) == sum(COUNTS)
    graph = Artifact.open(target).graph
    ranges = {
        name: value.shape.numpy()
        for name, value in graph.graph.initializers.items()
        if name.startswith("range.") and value.shape is not None
    }
    cores = Cores(Artifact.open(source).float32_graph())
    counted = {
        f"range.{item.node.name}.scale": core.iterations for core in cores for item in core.linears
    }
    # Query, key and value read one activation, which the first of them names.
    expected = sorted(4 * [4] + 4 * [3])
    found = [shape[0] for name, shape in ranges.items() if name in counted and shape]
    assert sorted(found) == expected
    assert all(ranges[name] == (counted[name],) for name in ranges if name in counted)
    read = read_ranges(table)
    assert (read.loops, list(read.cores.values())) == (4, list(COUNTS))
    weights = [value for value in graph.graph.initializers.values() if value.name in {"up0", "up1"}]
    assert len(weights) == (1 if shared else 2)
    assert {str(value.dtype) for value in weights} == {"INT8"}
    # The same ranges, read from the file, make the same file.
    again = loopedge.quantize(source, tmp_path / "again.onnx", ranges=table, reduce_range=True)
    assert again.matmuls["quantized"] == result.matmuls["quantized"]
    first, second = (
        loopedge.Session(path).run(DATA)["outputs"] for path in (target, tmp_path / "again.onnx")
    )
    assert np.array_equal(first, second)


@pytest.mark.slow
@EITHER
def test_the_loops_are_as_good_as_written_out(own: bool, shared: bool, tmp_path: Path) -> None:
    source = write_chained(tmp_path / "m.onnx", own=own, shared=shared)
    write_artifact(unroll(Artifact.open(source).graph), tmp_path / "u.onnx")
    found = [
        quantized(path, tmp_path / f"{path.stem}.int8.onnx").sqnr_db
        for path in (source, tmp_path / "u.onnx")
    ]
    assert min(found) > 15
    if own:  # of another tool's written-out iterations nothing is known: a range for each of them
        assert abs(found[0] - found[1]) < 1
    else:
        assert found[0] > found[1] - 1


@pytest.mark.slow
@OWN
@pytest.mark.parametrize(
    ("scheme", "ops"),
    [("dynamic", "microsoft"), ("dynamic", "standard"), ("weight-int8", "microsoft")],
)
def test_the_other_schemes_reach_every_core(
    own: bool, scheme: str, ops: str, tmp_path: Path
) -> None:
    source = write_chained(tmp_path / "m.onnx", own=own, shared=True)
    bits = {} if scheme == "weight-int8" else SEVEN_BITS
    options: dict[str, Any] = {"scheme": scheme, "ops": ops, "data": DATA, "min_coverage": 0.9}
    loopedge.quantize(source, tmp_path / "q.onnx", **options, **bits)
    assert core_coverage(tmp_path / "q.onnx") == [6, 6]
    exact, given = (
        loopedge.Session(path).run(DATA)["outputs"] for path in (source, tmp_path / "q.onnx")
    )
    assert relative_error(given, exact) < 0.5


@pytest.mark.slow
def test_standard_operators_with_ranges(tmp_path: Path) -> None:
    source = write_chained(tmp_path / "m.onnx")
    for ops in ("microsoft", "standard"):
        quantized(source, tmp_path / f"{ops}.onnx", ops=ops, as_core=("all",))
    one, two = (
        loopedge.Session(tmp_path / f"{ops}.onnx").run(DATA)["outputs"]
        for ops in ("microsoft", "standard")
    )
    assert relative_error(one, two) < FLIPS


def test_ranges_of_other_counts_are_refused(tmp_path: Path) -> None:
    source = write_chained(tmp_path / "m.onnx")
    table = loopedge_calibration.collect(source, DATA, method="minmax", smoothing=False)
    other = table.model_copy(update={"cores": {"core": 4, "core2": 2}})
    with pytest.raises(InputError, match=r"hold 2 iterations, .* runs 3 in core2"):
        loopedge.quantize(source, tmp_path / "q.onnx", ranges=other)
    alone = table.model_copy(update={"cores": {}})
    with pytest.raises(InputError, match="hold no core core"):
        loopedge.quantize(source, tmp_path / "q.onnx", ranges=alone)
    swapped = {**table.tensors, "core2/up": table.tensors["core/up"]}
    with pytest.raises(InputError, match=r"core2/up have 4 rows, .* runs 3 iterations in core2"):
        loopedge.quantize(
            source, tmp_path / "q.onnx", ranges=table.model_copy(update={"tensors": swapped})
        )
    assert not (tmp_path / "q.onnx").exists()


def test_of_one_core_a_table_is_as_earlier_versions_read_it(tmp_path: Path) -> None:
    source = write_chained(tmp_path / "m.onnx", (4,))
    loopedge_calibration.collect(source, DATA).save(tmp_path / "one.json")
    assert "cores" not in json.loads((tmp_path / "one.json").read_text())


@pytest.mark.slow
def test_a_count_may_be_an_input_beside_one_that_is_fixed(tmp_path: Path) -> None:
    source = write_chained(tmp_path / "m.onnx", own=False, count_input=True)
    quantized(source, tmp_path / "q.onnx", loops=3, save_ranges=tmp_path / "r.json")
    assert list(read_ranges(tmp_path / "r.json").cores.values()) == [3, 3]
    for count in (1, 3, 4):  # past the ranges the last row holds
        feeds = {**DATA, "n": np.array(count)}
        exact, given = (
            loopedge.Session(path).run(feeds)["outputs"] for path in (source, tmp_path / "q.onnx")
        )
        assert relative_error(given, exact) < 0.5


def test_a_table_that_two_cores_read_is_not_smoothed_for_one(tmp_path: Path) -> None:
    source = write_chained(tmp_path / "m.onnx", (4, 4), one_table=True)
    assert smoothable(FloatSource.open(source).graph) == {}
    apart = write_chained(tmp_path / "apart.onnx", (4, 4))
    assert list(smoothable(FloatSource.open(apart).graph)) == ["core/q", "core2/q"]


def test_outliers_of_every_core_are_smoothed(tmp_path: Path) -> None:
    source = write_chained(tmp_path / "m.onnx", outlier=12.0)
    factors = loopedge_calibration.collect(source, DATA).factors()
    assert set(factors) == {"core/q", "core2/q"}
    graph = FloatSource.open(source).graph.clone()
    apply_smoothing(graph, factors)
    write_artifact(graph, tmp_path / "smoothed.onnx")
    exact, given = (
        loopedge.Session(path).run(DATA)["outputs"] for path in (source, tmp_path / "smoothed.onnx")
    )
    assert relative_error(given, exact) < 1e-3


@OWN
def test_sensitivity_by_iteration_is_as_long_as_its_core(own: bool, tmp_path: Path) -> None:
    source = FloatSource.open(write_chained(tmp_path / "m.onnx", own=own))
    table = loopedge_calibration.collect(source.path, DATA)
    recipe = Recipe(scheme="static", table=table)
    found = measure_sensitivity(source.graph, recipe, [DATA], detailed=20)
    cores = Cores(source.graph)
    lengths = {item.name: len(item.per_iteration) for item in found}
    for item in linears(source.graph):
        core = cores.of(item.node)
        if core is not None:
            assert lengths[item.node.name or ""] == core.iterations
    assert sorted(set(lengths.values())) == [0, 3, 4]
    assert all(error > 0 for each in found for error in each.per_iteration)


@pytest.mark.parametrize("shared", [False, True])
def test_a_file_of_many_kinds_of_loops(shared: bool, tmp_path: Path) -> None:
    """Stacks, weights of the bodies' own, states that change places, a condition that is absent."""
    specs = (
        LoopSpec(stacked=1, tables=1, number=True),
        LoopSpec(iterations=2, weights="outside" if shared else "initializer", states=2, swap=True),
        LoopSpec(iterations=4, weights="constant", condition="absent"),
    )
    onnx.save(loop_model(*specs), tmp_path / "m.onnx")
    x = np.random.default_rng(0).normal(size=(20, 3, 4)).astype(np.float32)
    options: dict[str, Any] = {"scheme": "static", "reduce_range": True, "min_sqnr_db": 10}
    result = loopedge.quantize(tmp_path / "m.onnx", tmp_path / "q.onnx", data={"x": x}, **options)
    assert (result.matmuls["quantized"], result.matmuls["total"]) == (3, 3)
    cores = loopedge.inspect(tmp_path / "q.onnx").cores
    assert [(core.name, core.iterations) for core in cores] == [
        ("loop0", 3),
        ("loop1", 2),
        ("loop2", 4),
    ]


@OWN
def test_a_loop_inside_another_is_refused_in_one_line(own: bool, cli: Cli, tmp_path: Path) -> None:
    onnx.save(loop_model(LoopSpec(inner=2), LoopSpec(iterations=2)), tmp_path / "m.onnx")
    source = tmp_path / "m.onnx"
    hint = f"loopedge unroll {source} --inner unrolled"
    if own:
        model = onnx.load(source)
        for place, node in enumerate(model.graph.node):
            node.name = "core" if not place else f"core{place + 1}"
        model.metadata_props.extend(chained((3, 2)).metadata_props)
        onnx.save(model, source)
        hint = "loopedge export model.pt --inner unrolled"
    for scheme in ("dynamic", "weight-int8"):
        refused = cli("quantize", source, "--scheme", scheme, "-o", tmp_path / "q.onnx")
        assert refused.code == 2
        assert "holds the inner Loop inside, whose linears cannot be calibrated" in refused.err
        assert hint in refused.err
    assert len(loopedge.inspect(source).cores) == 2


@pytest.mark.slow
@OWN
def test_the_command_line_on_several_loops(own: bool, cli: Cli, tmp_path: Path) -> None:
    source = write_chained(tmp_path / "m.onnx", own=own)
    np.savez(tmp_path / "x.npz", inputs=X)
    inspected = cli("inspect", source, "--json").json()
    assert inspected["loops"] == (4 if own else None)
    names = ["core", "core2"] if own else ["/layer.0/Loop", "/layer.1/Loop"]
    assert [core["name"] for core in inspected["cores"]] == names
    assert inspected["cores"][1] == {
        "name": names[1],
        "form": "loop",
        "iterations": 3,
        "dynamic_loops": False,
        "exit": None,
        "states": 1,
        "tables": ["timestep.scale1" if own else "rows.scale1"],
        "weights": 7,
        "weight_bytes": 4 * (4 * 32 * 32 + 2 * 32 * 64 + 32),
    }
    shown = cli("inspect", source)
    assert (
        "loop, 4 and 3 loops" if own else "2 Loops of 4 and 3 iterations"
    ) in shown.out + shown.err
    ran = cli("run", source, "--input", tmp_path / "x.npz", "-o", tmp_path / "y.npz", "--json")
    assert ran.code == 0, ran.err
    for words in (
        ("run", source, "--input", tmp_path / "x.npz", "--loops", "4"),
        ("quantize", source, "--data", tmp_path / "x.npz", "--loops", "4"),
        ("profile", source, "--loops", "4"),
    ):
        refused = cli(*words)
        assert refused.code == 2
        assert "4 were asked for" in refused.err
    converted = cli("convert", source, "-o", tmp_path / "m.ort", "--json")
    assert converted.code == 0, converted.err
    assert converted.json()["notes"] == []
    assert [core.iterations for core in loopedge.inspect(tmp_path / "m.ort").cores] == list(COUNTS)
    quantizing = cli(
        *("quantize", source, "--data", tmp_path / "x.npz", "--scheme", "static", "--reduce-range"),
        *("--keep", "core2/up" if own else "up_", "-o", tmp_path / "q.onnx", "--json"),
    )
    assert quantizing.code == 0, quantizing.err
    kept = quantizing.json()["matmuls"]["skipped"][-1]
    assert kept == {"name": "core2/up" if own else "up_", "reason": "kept in float on request"}
    assert core_coverage(tmp_path / "q.onnx") == [6, 5]


def test_a_prepared_file_of_several_loops(tmp_path: Path) -> None:
    source = write_chained(tmp_path / "m.onnx")
    result = loopedge.prepare(source)
    assert result.packed >= 2 * len(LINEARS)
    one, two = (loopedge.Session(path).run(DATA)["outputs"] for path in (source, result.path))
    assert relative_error(one, two) < ROUNDING


@OWN
@pytest.mark.slow
def test_a_profile_with_twins(own: bool, tmp_path: Path) -> None:
    source = write_chained(tmp_path / "m.onnx", own=own)
    result = loopedge.profile(
        [source], untied=True, unrolled=True, processes=1, runs=3, seconds=0.2
    )
    assert result.failures == []
    plain, unrolled, untied = result.runs
    assert plain.weight_bytes == unrolled.weight_bytes
    assert untied.weight_bytes == loopedge.inspect(source).untied_bytes
    for run in result.runs:
        assert [item.iteration for item in run.iterations] == list(range(sum(COUNTS)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_loops_that_pytorch_exports(tmp_path: Path) -> None:
    import torch
    from torch import Tensor, nn

    class Chained(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(16, 16), nn.Linear(16, 16)

        def forward(self, x: Tensor) -> Tensor:
            for count, linear in ((4, self.first), (3, self.second)):
                _, x = torch.while_loop(  # type: ignore[no-untyped-call]
                    lambda i, x, count=count: i < count,
                    lambda i, x, linear=linear: (i + 1, torch.tanh(linear(x))),
                    (torch.tensor(0), x),
                )
            return x

    torch.manual_seed(0)
    x = torch.randn(20, 5, 16)
    exported = torch.onnx.export(
        Chained(), (x,), dynamo=True, opset_version=21, input_names=["x"], verbose=False
    )
    assert exported is not None
    exported.save(tmp_path / "m.onnx")
    cores = loopedge.inspect(tmp_path / "m.onnx").cores
    assert [(core.iterations, core.exit) for core in cores] == [(None, "its condition")] * 2
    result = loopedge.quantize(
        *(tmp_path / "m.onnx", tmp_path / "q.onnx"),
        data={"x": x.numpy()},
        scheme="static",
        reduce_range=True,
        save_ranges=tmp_path / "r.json",
    )
    assert (result.matmuls["quantized"], result.matmuls["total"]) == (2, 2)
    assert list(read_ranges(tmp_path / "r.json").cores.values()) == [4, 3]
