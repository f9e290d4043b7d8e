"""``loopedge prepare``, and ``--memory`` of the other commands."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from tests.cli.test_docs import SECTIONS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli, Said


@pytest.fixture
def prepared(cli: Cli, tiny: Path) -> Path:
    assert cli("prepare", tiny).code == 0
    return tiny.with_suffix(".prepared.onnx")


def edit(path: Path, **changes: Any) -> None:
    """Change what a prepared file says of the device that it was made for."""
    model = onnx.load(path, load_external_data=False)
    [entry] = [item for item in model.metadata_props if item.key == "loopedge.prepared"]
    entry.value = json.dumps(json.loads(entry.value) | changes)
    path.write_bytes(model.SerializeToString())


def assert_refused(outcome: Said, words: str, hint: str) -> None:
    assert (outcome.code, outcome.out) == (2, "")
    first, second = outcome.err.splitlines()
    assert first.startswith("error: ")
    assert words in first
    assert second.startswith(f"hint: {hint}")


def test_it_says_what_was_packed(cli: Cli, tiny: Path) -> None:
    outcome = cli("prepare", tiny)
    assert outcome.code == 0, outcome.err
    for words in ("made for", "6 weights", "mapped when it is loaded", "tiny.prepared.onnx."):
        assert words in outcome.out


def test_json_is_documented(cli: Cli, tiny: Path) -> None:
    found = cli("prepare", tiny, "--json").json()
    keys = [*found, *found["files"][0], *found["not_packed"][0], *found["seconds"]]
    assert [key for key in keys if not re.search(rf"\b{key}\b", SECTIONS["prepare"])] == []
    assert (found["packed"], found["max_abs_error"], found["verified"]) == (6, 0.0, True)
    [table] = found["not_packed"]
    assert table["weight"] == "embedding.weight"


def test_quiet_prints_the_path_alone(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    target = tmp_path / "m.onnx"
    outcome = cli("prepare", tiny, "-o", target, "--quiet")
    assert (outcome.out, outcome.err) == (f"{target}\n", "")
    [data] = tmp_path.glob("m.onnx.*.data")
    assert set(tmp_path.iterdir()) == {target, data, tiny}


def test_run_gives_the_same(cli: Cli, tiny: Path, prepared: Path, ids: Path) -> None:
    outputs = {}
    for name, model, words in (
        ("balanced", tiny, ()),
        ("low", tiny, ("--memory", "low")),
        ("mapped", prepared, ()),
    ):
        target = tiny.parent / f"{name}.npz"
        outcome = cli("run", model, "-i", ids, "-o", target, "--json", *words)
        assert outcome.json()["memory"] == name
        with np.load(target) as stored:
            outputs[name] = stored["logits"]
    np.testing.assert_array_equal(outputs["mapped"], outputs["balanced"])
    np.testing.assert_allclose(outputs["low"], outputs["balanced"], atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"onnxruntime": "1.0.0"}, "prepared with onnxruntime 1.0.0, this is onnxruntime"),
        ({"processor": "Other"}, "prepared for another processor: Other, here"),
        ({"features": []}, "prepared for another processor: instructions , here"),
    ],
)
@pytest.mark.parametrize("command", ["run", "profile"])
def test_another_device_is_refused(
    cli: Cli, prepared: Path, ids: Path, command: str, changes: dict[str, Any], words: str
) -> None:
    edit(prepared, **changes)
    further = ("-i", ids) if command == "run" else ()
    source = prepared.with_name("tiny.onnx")
    assert_refused(cli(command, prepared, *further), words, f"loopedge prepare {source}")


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (("prepare",), "is prepared for one device", "loopedge prepare"),
        (("quantize", "-o", "q.onnx"), "is prepared for one device", "loopedge quantize"),
        (("profile", "--untied"), "is prepared for one device", "loopedge profile"),
        (("profile", "--memory", "balanced"), "balanced needs its source", "loopedge run"),
    ],
)
def test_what_needs_the_source(
    cli: Cli, prepared: Path, words: tuple[str, ...], message: str, hint: str
) -> None:
    command, *rest = words
    assert_refused(cli(command, prepared, *rest), message, hint)


def test_mapped_needs_a_prepared_file(cli: Cli, tiny: Path, ids: Path) -> None:
    outcome = cli("run", tiny, "-i", ids, "--memory", "mapped")
    assert_refused(outcome, "holds no packed weights", f"loopedge prepare {tiny}")


@pytest.mark.parametrize("command", ["run", "profile", "quantize", "export"])
def test_an_unknown_profile(cli: Cli, tiny: Path, command: str) -> None:
    outcome = cli(command, tiny, "--memory", "lean")
    assert_refused(outcome, "lean", f"loopedge {command} --help")


def test_a_file_that_loopedge_did_not_write(cli: Cli, tiny: Path) -> None:
    model = onnx.load(tiny)
    del model.metadata_props[:]
    onnx.save(model, tiny)
    assert_refused(cli("prepare", tiny), "was not written by loopedge", "loopedge inspect")
    outcome = cli("quantize", tiny, "--memory", "low")
    assert_refused(outcome, "cannot hold a memory profile", "loopedge run --memory low")


def test_the_source_is_no_target(cli: Cli, external: Path) -> None:
    outcome = cli("prepare", external, "-o", external, "--force")
    assert_refused(outcome, "is also a file of MODEL", "name another file with --output")


@pytest.mark.parametrize("kind", ["no data", "short data", "no packed weights"])
def test_a_damaged_prepared_file(cli: Cli, prepared: Path, ids: Path, kind: str) -> None:
    [data] = prepared.parent.glob(f"{prepared.name}.*.data")
    if kind == "no data":
        data.unlink()
    elif kind == "short data":
        data.write_bytes(data.read_bytes()[:1000])
    else:
        model = onnx.load(prepared, load_external_data=False)
        for item in model.metadata_props:
            if item.key == "loopedge.prepared":
                item.value = "{}"
        prepared.write_bytes(model.SerializeToString())
    outcome = cli("run", prepared, "-i", ids)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("error: ")
    assert len(outcome.err.splitlines()) <= 2


def test_inspect_says_what_it_was_prepared_for(cli: Cli, prepared: Path, tiny: Path) -> None:
    found = cli("inspect", prepared, "--json").json()
    assert found["memory"] == "mapped"
    assert set(found["prepared"]) == {"onnxruntime", "architecture", "processor", "features"}
    outcome = cli("inspect", prepared)
    assert outcome.err == ""
    assert f"made for  {found['prepared']['processor']}" in outcome.out
    plain = cli("inspect", tiny, "--json").json()
    assert (plain["memory"], plain["prepared"]) == ("balanced", None)
    for key in ("int8", "weight_bytes", "tied_weights", "tables", "loops"):
        assert found[key] == plain[key]


@pytest.mark.slow
def test_quantize_keeps_or_sets_the_profile(cli: Cli, tiny: Path, ids: Path) -> None:
    low, kept, wish = (tiny.with_name(f"{name}.onnx") for name in ("low", "kept", "wish"))
    assert cli("quantize", tiny, "-o", low, "--memory", "low").code == 0
    assert cli("inspect", low, "--json").json()["memory"] == "low"
    assert cli("run", low, "-i", ids, "--json").json()["memory"] == "low"
    model = onnx.load(tiny)
    model.metadata_props.add(key="loopedge.memory", value='"low"')
    onnx.save(model, tiny)
    assert cli("quantize", tiny, "-o", kept).code == 0
    assert cli("inspect", kept, "--json").json()["memory"] == "low"
    assert "is a wish" in cli("quantize", tiny, "-o", wish, "--memory", "mapped").err
    outcome = cli("run", wish, "-i", ids, "--json")
    assert outcome.json()["memory"] == "balanced"
    assert outcome.err.count("is a wish until 'loopedge prepare'") == 1
    assert cli("prepare", wish).code == 0
    outcome = cli("run", wish.with_suffix(".prepared.onnx"), "-i", ids, "--json")
    assert (outcome.json()["memory"], outcome.err) == ("mapped", "")


def test_weight_only_without_packing_is_warned_of(cli: Cli, tiny: Path) -> None:
    outcome = cli("quantize", tiny, "--scheme", "weight-int8", "--memory", "low")
    assert "takes more memory and two to four times the time" in outcome.err


@pytest.mark.slow
def test_profile_tells_the_memory_profile(cli: Cli, tiny: Path, prepared: Path) -> None:
    found = cli("profile", tiny, prepared, "--runs", "1", "--processes", "1", "--json").json()
    assert [run["memory"] for run in found["runs"]] == ["balanced", "mapped"]
    assert [run["name"] for run in found["runs"]] == [*("tiny.onnx", "tiny.prepared.onnx (mapped)")]


def test_ort_format_is_refused(cli: Cli, tiny: Path) -> None:
    assert cli("convert", tiny).code == 0
    outcome = cli("prepare", tiny.with_suffix(".ort"))
    assert outcome.code == 2
    assert "is in ORT format" in outcome.err
    assert not list(tiny.parent.glob("*.prepared*"))


def test_the_profile_travels_into_ort_format(cli: Cli, tiny: Path, ids: Path) -> None:
    low = tiny.with_name("low.onnx")
    assert cli("quantize", tiny, "-o", low, "--scheme", "dynamic", "--memory", "low").code == 0
    assert cli("convert", low).code == 0
    result = cli("run", low.with_suffix(".ort"), "-i", ids, "--json").json()
    assert result["memory"] == "low"


def test_a_wish_for_mapped_has_no_use_in_ort_format(cli: Cli, tiny: Path, ids: Path) -> None:
    wish = tiny.with_name("wish.onnx")
    assert cli("quantize", tiny, "-o", wish, "--scheme", "dynamic", "--memory", "mapped").code == 0
    assert cli("convert", wish).code == 0
    ort = wish.with_suffix(".ort")
    outcome = cli("run", ort, "-i", ids)
    assert (outcome.code, "has no use in ORT format" in outcome.err) == (0, True)
    refused = cli("run", ort, "-i", ids, "--memory", "mapped")
    assert (refused.code, "which ORT format is not" in refused.err) == (2, True)
