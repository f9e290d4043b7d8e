"""``loopedge package`` and ``loopedge inspect`` of a bundle."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING

import pytest

from loopedge.artifact.artifact import Artifact, write_artifact
from loopedge.graph.metadata import write_metadata
from tests.cli.test_bad_input import assert_refused
from tests.cli.test_docs import SECTIONS
from tests.graph.generate_files import BYTES_TASK, GenerateModel, write_generate_file

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli


def test_a_bundle_for_python(cli: Cli, tiny: Path) -> None:
    result = cli("package", tiny, "--for", "python", "--json").json()
    target = tiny.with_suffix(".bundle")
    assert result["path"] == str(target)
    assert result["clients"] == ["python"]
    keys = [*result, *result["models"][0], *result["vectors"][0]]
    assert [key for key in keys if not re.search(rf"\b{key}\b", SECTIONS["package"])] == []
    manifest = json.loads((target / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["name"] == "tiny"


def test_quiet_prints_the_path_alone(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    outcome = cli("package", tiny, "--for", "python", "-o", tmp_path / "b", "--quiet")
    assert (outcome.code, outcome.out) == (0, f"{tmp_path / 'b'}\n")


def test_people_see_models_and_vectors(cli: Cli, tiny: Path) -> None:
    outcome = cli("package", tiny, "--for", "python")
    assert outcome.code == 0, outcome.err
    for words in ("models/tiny.onnx", "whole", "batch of 3", "one position", "1e-05"):
        assert words in outcome.out


def test_a_bundle_is_inspected(cli: Cli, tiny: Path) -> None:
    assert cli("package", tiny, "--for", "python", "-q").code == 0
    bundle = tiny.with_suffix(".bundle")
    found = cli("inspect", bundle, "--json", "--verify").json()
    assert found["verified"] is True
    assert [key for key in found if not re.search(rf"\b{key}\b", SECTIONS["inspect"])] == []
    assert "all files" in cli("inspect", bundle, "--verify").out
    model = bundle / "models" / "tiny.onnx"
    content = model.read_bytes()
    model.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert_refused(cli("inspect", bundle, "--verify"), f"{model} is damaged", code=3)
    assert cli("inspect", bundle).code == 0


def test_a_newer_bundle_is_refused(cli: Cli, tiny: Path) -> None:
    assert cli("package", tiny, "--for", "python", "-q").code == 0
    file = tiny.with_suffix(".bundle") / "manifest.json"
    fields = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(fields | {"schema_version": 99}), encoding="utf-8")
    assert_refused(cli("inspect", file.parent), "has schema version 99, 1 is read here")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--for", "phone"], "client 'phone' does not exist; there are web, node, c, python"),
        ([], "a bundle is for a client: one of web, node, c, python"),
        (["--for", "web", "--provider", "abacus"], "provider 'abacus' is not known"),
        (["--for", "c", "--name", "a b"], "--name is 'a b'"),
        (["--for", "c", "--packages", "x"], "--packages says where the runtime is"),
    ],
)
def test_wrong_options_are_refused_in_one_line(
    cli: Cli, tiny: Path, words: list[str], message: str
) -> None:
    assert_refused(cli("package", tiny, *words), message)
    assert [path.name for path in tiny.parent.iterdir()] == ["tiny.onnx"]


def test_options_without_a_use_are_refused(cli: Cli, tiny: Path, ids: Path) -> None:
    words = ("package", tiny, "--for", "python", "--prompt", "a")
    assert_refused(cli(*words), "writes no text, --prompt has no use")
    artifact = Artifact.open(tiny)
    graph = artifact.fresh_graph()
    described = artifact.metadata.model_copy(update={"task": BYTES_TASK})
    write_metadata(described, graph.metadata_props)
    plain = tiny.parent / "text.onnx"
    write_artifact(graph, plain)
    refused = cli("package", plain, "--for", "python", "--prompt", "a")
    assert_refused(refused, "text.onnx gets no cache, --prompt has no use: ")
    reason = cli("to-generate", plain, "-o", tiny.parent / "x.onnx").err
    assert reason.partition("error: ")[2].splitlines()[0] in refused.err
    text = write_generate_file(GenerateModel(context=16), tiny.parent / "lm.generate.onnx")
    outcome = cli("package", text, "--for", "python", "--input", ids)
    assert_refused(outcome, "--prompt")
    assert not tiny.with_suffix(".bundle").exists()


def test_a_folder_that_is_not_empty_is_refused(cli: Cli, tiny: Path) -> None:
    folder = tiny.parent / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    words = ("package", tiny, "--for", "python", "-o", folder)
    assert_refused(cli(*words), "holds files that are no bundle")
    assert_refused(cli(*words, "--force"), "holds files that are no bundle")
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_a_prepared_file_is_refused_for_the_web(cli: Cli, tiny: Path) -> None:
    assert cli("prepare", tiny, "-q").code == 0
    prepared = tiny.with_suffix(".prepared.onnx")
    outcome = cli("package", prepared, "--for", "web", "-o", tiny.parent / "b")
    assert_refused(outcome, "is prepared for one device")
    assert not (tiny.parent / "b").exists()


def test_without_npm_the_error_says_what_to_do(
    cli: Cli, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    outcome = cli("package", tiny, "--for", "node", "--with-runtime", "-o", tiny.parent / "b")
    assert_refused(outcome, "npm is not installed here, it brings onnxruntime-node")
    assert "--packages DIR" in outcome.err
    assert "npm install --ignore-scripts" in outcome.err
    assert not (tiny.parent / "b").exists()
