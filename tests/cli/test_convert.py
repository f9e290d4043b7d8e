"""``loopedge convert``, and what the other commands make of a file in ORT format."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from loopedge.artifact.seal import config_path
from tests.cli.test_bad_input import assert_refused
from tests.cli.test_docs import SECTIONS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli


@pytest.fixture
def converted(cli: Cli, tiny: Path) -> Path:
    assert cli("convert", tiny).code == 0
    return tiny.with_suffix(".ort")


def test_both_files_appear_under_the_default_names(cli: Cli, tiny: Path) -> None:
    result = cli("convert", tiny, "--json").json()
    assert result["path"] == str(tiny.with_suffix(".ort"))
    assert [file["path"] for file in result["files"]] == [
        str(tiny.with_suffix(".ort")),
        str(config_path(tiny.with_suffix(".ort"))),
    ]
    missing = [key for key in result if not re.search(rf"\b{key}\b", SECTIONS["convert"])]
    assert missing == []
    assert result["verified"]
    assert result["weight_bytes"] == result["source_weight_bytes"]


def test_a_model_that_says_only_how_many_positions_it_takes(cli: Cli, tiny: Path) -> None:
    """It was run at 128, more than it takes, and the hint named an option that this command lacks."""
    model = onnx.load(tiny)
    for entry in model.metadata_props:
        if entry.key == "loopedge.trained_length":
            entry.value = "null"
    onnx.save(model, tiny)
    outcome = cli("convert", tiny)
    assert outcome.code == 0, outcome.err


def test_an_existing_file_is_refused_without_force(cli: Cli, tiny: Path) -> None:
    target = tiny.with_suffix(".ort")
    target.write_text("old")
    assert_refused(cli("convert", tiny), "exists already")
    assert set(tiny.parent.iterdir()) == {tiny, target}
    assert target.read_text() == "old"
    assert cli("convert", tiny, "--force").code == 0
    assert "Loop" in config_path(target).read_text()


def test_another_conversion_drops_the_list_of_operators_of_the_one_before(
    cli: Cli, tiny: Path
) -> None:
    target = tiny.with_suffix(".ort")
    assert cli("convert", tiny).code == 0
    first = config_path(target)
    assert cli("quantize", tiny, "-o", tiny.with_name("int8.onnx")).code == 0
    assert cli("convert", tiny.with_name("int8.onnx"), "-o", target, "--force").code == 0
    assert config_path(target) != first
    assert list(tiny.parent.glob("*.config")) == [config_path(target)]


def test_quiet_prints_the_path_alone(cli: Cli, tiny: Path) -> None:
    outcome = cli("convert", tiny, "--quiet")
    assert outcome.out == f"{tiny.with_suffix('.ort')}\n"
    assert outcome.err == ""


def test_a_target_of_another_name_is_refused(cli: Cli, tiny: Path) -> None:
    assert_refused(cli("convert", tiny, "-o", tiny.parent / "x.bin"), "does not end in .ort")


def test_a_converted_file_is_not_converted_again(cli: Cli, converted: Path) -> None:
    target = converted.parent / "again.ort"
    assert_refused(cli("convert", converted, "-o", target), "in ORT format already")


def test_run_gives_what_the_source_gives(
    cli: Cli, tiny: Path, converted: Path, ids: Path, tmp_path: Path
) -> None:
    outputs = []
    for model in (tiny, converted):
        target = tmp_path / f"{model.suffix[1:]}.npz"
        assert cli("run", model, "--input", ids, "-o", target).code == 0
        outputs.append(np.load(target)["logits"])
    np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-5)


def test_inspect_tells_the_same_of_both(cli: Cli, tiny: Path, converted: Path) -> None:
    first, second = (cli("inspect", model, "--json").json() for model in (tiny, converted))
    for key in ("form", "loops", "opset", "weight_bytes", "untied_bytes", "inputs"):
        assert first[key] == second[key]
    for key in ("tables", "tied_weights"):
        assert sorted(map(str, first[key])) == sorted(map(str, second[key]))
    assert first["metadata"] == second["metadata"]


@pytest.mark.slow
def test_profile_measures_it(cli: Cli, converted: Path) -> None:
    (run,) = cli("profile", converted, "--runs", 2, "--json").json()["runs"]
    assert run["form"] == "loop"
    assert run["file_bytes"] == converted.stat().st_size


def test_quantize_refuses_it(cli: Cli, converted: Path) -> None:
    outcome = cli("quantize", converted)
    assert_refused(outcome, "is in ORT format, the last step")
    assert "loopedge convert" in outcome.err


@pytest.mark.parametrize("command", ["inspect", "run"])
@pytest.mark.parametrize("damage", ["text", "truncated"])
def test_a_damaged_file_is_refused(
    damage: str, command: str, cli: Cli, converted: Path, ids: Path
) -> None:
    whole = converted.read_bytes()
    converted.write_bytes(b"no model" if damage == "text" else whole[: len(whole) // 2])
    words = ["--input", ids] if command == "run" else []
    assert cli(command, converted, *words).code == 2


def test_a_file_of_another_format_named_ort_is_refused(cli: Cli, tiny: Path) -> None:
    other = shutil.copy(tiny, tiny.with_suffix(".ort"))
    assert_refused(cli("inspect", other), "is not an ORT format file")
