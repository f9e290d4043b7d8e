"""``loopedge unroll``: Loops written out, of loopedge's own files and of those of others."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import loopedge
from loopedge.deployment import unrolling as verb
from loopedge.deployment.verification import Difference
from loopedge.errors import InputError, VerificationError
from tests.cli.test_bad_input import assert_refused
from tests.cli.test_docs import SECTIONS
from tests.cli.test_foreign_loops import expected, looped
from tests.graph.loop_graphs import LoopSpec, loop_model, tensor

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from tests.cli.conftest import Cli


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Leave the comparison out, which takes a process; return what would have been compared."""
    asked: list[dict[str, Any]] = []

    def compare(source: Any, written: Any, tolerance: Any, **options: Any) -> Difference:
        asked.append({"relative": tolerance.relative, **options})
        return Difference(max_abs_error=0.0, max_rel_error=0.0, cases=1)

    monkeypatch.setattr(verb, "compare_in_child", compare)
    return asked


@pytest.mark.slow
def test_a_file_of_loopedge(cli: Cli, tiny: Path, ids: Path) -> None:
    result = cli("unroll", tiny, "--json").json()
    target = tiny.with_suffix(".unrolled.onnx")
    assert result["path"] == str(target)
    assert (result["form"], result["verified"], result["inner_left"]) == ("unrolled", True, 0)
    assert result["max_rel_error"] <= 1e-5
    assert result["weight_bytes"] == result["source_weight_bytes"]
    (loop,) = result["loops"]
    assert (loop["name"], loop["core"], loop["iterations"]) == ("core", "core", 3)
    missing = [key for key in (*result, *loop) if not re.search(rf"\b{key}\b", SECTIONS["unroll"])]
    assert missing == []
    assert cli("run", target, "-i", ids, "-o", tiny.with_name("a.npz")).code == 0
    assert cli("run", tiny, "-i", ids, "-o", tiny.with_name("b.npz")).code == 0
    given, exact = (np.load(tiny.with_name(name))["logits"] for name in ("a.npz", "b.npz"))
    np.testing.assert_allclose(given, exact, rtol=1e-4, atol=1e-5)
    found = loopedge.inspect(target, verify=True)
    assert (found.form, found.loops, found.verified) == ("unrolled", 3, True)


def test_what_people_see(cli: Cli, tiny: Path, unchecked: list[dict[str, Any]]) -> None:
    outcome = cli("unroll", tiny)
    assert outcome.code == 0
    assert "3 iterations" in outcome.out
    assert "core, as core.<t>/" in outcome.out
    assert (
        cli("unroll", tiny, "--quiet", "--force").out == f"{tiny.with_suffix('.unrolled.onnx')}\n"
    )


@pytest.mark.parametrize(("words", "count"), [((), 3), (("--loops", "2"), 2)])
def test_an_input_that_chose_the_count_is_gone(
    words: tuple[str, ...],
    count: int,
    cli: Cli,
    tiny_dynamic: Path,
    unchecked: list[dict[str, Any]],
) -> None:
    outcome = cli("unroll", tiny_dynamic, *words, "--json")
    assert outcome.json()["loops"][0]["iterations"] == count
    assert f"the input loops is gone: the file runs as if it held {count}" in outcome.err
    assert unchecked[0]["fixed"] == {"loops": count}
    found = loopedge.inspect(tiny_dynamic.with_suffix(".unrolled.onnx"))
    assert [port.name for port in found.inputs] == ["input_ids"]
    assert (found.loops, found.dynamic_loops) == (count, False)


def test_a_count_past_what_the_file_can(cli: Cli, tiny_dynamic: Path) -> None:
    assert_refused(cli("unroll", tiny_dynamic, "--loops", "4"), "Loop core runs 3 iterations; 4 ")


@pytest.mark.slow
def test_a_count_of_another_tool_is_compared_at_what_is_asked_for(cli: Cli, tmp_path: Path) -> None:
    source = looped(tmp_path / "m.onnx", "trips", through=["Squeeze"])
    assert_refused(cli("unroll", source), "the loop count is an input of the graph, trips")
    outcome = cli("unroll", source, "--loops", "4", "--json")
    assert outcome.code == 0, outcome.err
    x = np.random.default_rng(1).normal(size=(8, 6, 32)).astype(np.float32)
    (given,) = loopedge.Session(tmp_path / "m.unrolled.onnx").run({"x": x}).values()
    np.testing.assert_allclose(given, expected(4), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_file_of_another_tool_stays_one(cli: Cli, tmp_path: Path) -> None:
    spec = LoopSpec(iterations=3, inner=2, stacked=1, number=True, weights="constant", tables=1)
    source = tmp_path / "m.onnx"
    onnx.save(loop_model(spec, LoopSpec(iterations=2)), source)
    outcome = cli("unroll", source, "--json")
    result = outcome.json()
    assert (result["form"], result["inner"], result["inner_left"]) == (None, 0, 3)
    assert [loop["core"] for loop in result["loops"]] == ["core", "core2"]
    assert "3 Loops inside stay; --inner unrolled writes them out too" in outcome.err
    assert result["weight_bytes"] == result["source_weight_bytes"]
    flat = cli("unroll", source, "--inner", "unrolled", "-o", tmp_path / "f.onnx", "--json").json()
    assert (flat["inner"], flat["inner_left"]) == (3, 0)
    assert loopedge.inspect(tmp_path / "f.onnx").form is None


def test_weights_beside_the_file_stay_so(
    cli: Cli, external: Path, unchecked: list[dict[str, Any]]
) -> None:
    target = external.with_name("out.onnx")
    result = cli("unroll", external, "-o", target, "--json").json()
    assert result["weight_bytes"] == result["source_weight_bytes"]
    assert sum(file["bytes"] for file in result["files"]) < 1.3 * result["source_bytes"]


def test_the_tolerance_is_that_of_the_type(
    cli: Cli, tmp_path: Path, unchecked: list[dict[str, Any]]
) -> None:
    assert cli("unroll", looped(tmp_path / "m.onnx", 3)).code == 0
    model = onnx.load(tmp_path / "m.onnx")
    model.graph.node.append(helper.make_node("Cast", ["y"], ["h"], to=TensorProto.FLOAT16))
    model.graph.output.append(tensor("h", TensorProto.FLOAT16, ["batch", "sequence", 32]))
    onnx.save(model, tmp_path / "h.onnx")
    assert cli("unroll", tmp_path / "h.onnx").code == 0
    assert [asked["relative"] for asked in unchecked] == [1e-5, 2e-3]


def test_a_result_that_computes_something_else_is_not_left(
    cli: Cli, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def differs(*given: Any, **named: Any) -> None:
        raise VerificationError("the unrolled file differs", measured=1.0, allowed=0.0)

    monkeypatch.setattr(verb, "compare_in_child", differs)
    before = sorted(tiny.parent.iterdir())
    assert_refused(cli("unroll", tiny), "the unrolled file differs", code=3)
    assert sorted(tiny.parent.iterdir()) == before


@pytest.mark.parametrize("ends_at", [None, 2])
def test_loops_that_cannot_be_written_out(cli: Cli, tmp_path: Path, ends_at: int | None) -> None:
    if ends_at is None:
        model = loop_model(LoopSpec())
        loop = model.graph.node[0]
        model.graph.node[0].input[0] = "sizes"
        model.graph.node.insert(0, helper.make_node("Shape", ["x"], ["sizes"], start=0, end=1))
        assert loop.op_type == "Loop"
        source, reason = tmp_path / "m.onnx", "known only when the graph runs: Loop loop0"
        onnx.save(model, source)
    else:
        source = looped(tmp_path / "m.onnx", 3, ends_at=ends_at)
        reason = "a condition can end Loop loop"
    before = sorted(tmp_path.iterdir())
    outcome = cli("unroll", source)
    assert_refused(outcome, reason)
    assert f"{source} cannot be unrolled: " in outcome.err
    assert f"hint: loopedge inspect {source}" in outcome.err
    assert sorted(tmp_path.iterdir()) == before


def test_files_without_a_loop(
    cli: Cli, tiny: Path, tmp_path: Path, unchecked: list[dict[str, Any]]
) -> None:
    assert cli("unroll", tiny).code == 0
    again = cli("unroll", tiny.with_suffix(".unrolled.onnx"))
    assert_refused(again, "the graph is unrolled already")
    model = loop_model()
    model.graph.node.append(helper.make_node("Tanh", ["x"], ["y"]))
    model.graph.output.append(tensor("y", TensorProto.FLOAT, ["batch", "sequence", 4]))
    onnx.save(model, tmp_path / "none.onnx")
    assert_refused(cli("unroll", tmp_path / "none.onnx"), "holds no Loop that could be unrolled")


@pytest.mark.slow
def test_other_formats_are_refused(cli: Cli, tiny: Path) -> None:
    assert cli("convert", tiny).code == 0
    outcome = cli("unroll", tiny.with_suffix(".ort"))
    assert_refused(outcome, "is in ORT format, the last step: unroll the .onnx file")
    assert cli("prepare", tiny).code == 0
    assert_refused(cli("unroll", tiny.with_suffix(".prepared.onnx")), "prepared for one device")


def test_options_of_python(tiny: Path) -> None:
    with pytest.raises(InputError, match="inner is 'both', not loop or unrolled"):
        loopedge.unroll(tiny, inner="both")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="loops is 0, 1 to 65,536 are allowed"):
        loopedge.unroll(tiny, loops=0)


@pytest.mark.slow
def test_a_model_with_a_tokenizer_takes_it_along(
    cli: Cli, tiny: Path, unchecked: list[dict[str, Any]]
) -> None:
    content = b'{"a": 1}'
    name = "tiny.0123456789abcdef.tokenizer.json"
    tiny.with_name(name).write_bytes(content)
    model = onnx.load(tiny)
    companion = {"file": name, "sha256": hashlib.sha256(content).hexdigest()}
    entry = model.metadata_props.add()
    entry.key, entry.value = "loopedge.companions", json.dumps({"tokenizer.json": companion})
    onnx.save(model, tiny)
    elsewhere = tiny.parent / "elsewhere"
    elsewhere.mkdir()
    assert cli("unroll", tiny, "-o", elsewhere / "out.onnx").code == 0
    assert (elsewhere / name).read_bytes() == content
