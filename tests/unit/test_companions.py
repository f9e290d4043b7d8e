"""Files beside an artifact: named, checked, copied, never written over unasked."""

import hashlib
import json
from pathlib import Path

import pytest

from loopedge.artifact.artifact import open_artifact, write_artifact
from loopedge.artifact.companions import (
    check_companion_targets,
    companion_contents,
    companion_state,
    companions_to_copy,
    describe_companions,
    read_companions,
)
from loopedge.errors import InputError, VerificationError
from loopedge.graph.metadata import (
    FOREIGN,
    ArtifactMetadata,
    Companion,
    read_metadata,
    write_metadata,
)

TEXTS = {"tokenizer.json": '{"a": "€"}\r\n'}
DIGITS = hashlib.sha256(TEXTS["tokenizer.json"].encode()).hexdigest()[:16]
NAME = f"model.v2.{DIGITS}.tokenizer.json"


@pytest.fixture
def artifact(tmp_path: Path) -> tuple[Path, ArtifactMetadata]:
    path = tmp_path / "model.v2.onnx"
    for name, content in companion_contents(TEXTS, path).items():
        (tmp_path / name).write_bytes(content)
    metadata = ArtifactMetadata(
        version="0",
        form="loop",
        loops=1,
        trained_loops=1,
        companions=describe_companions(TEXTS, path),
    )
    return path, metadata


def test_it_is_named_after_the_artifact_and_read_again(
    artifact: tuple[Path, ArtifactMetadata],
) -> None:
    path, metadata = artifact
    assert metadata.companions["tokenizer.json"].file == NAME
    assert read_companions(path, metadata) == TEXTS
    properties: dict[str, str] = {}
    write_metadata(metadata, properties)
    assert read_metadata(properties) == metadata
    assert str(path.parent) not in str(properties)
    assert read_companions(path, FOREIGN) == {}


def test_a_missing_or_changed_one_is_reported(artifact: tuple[Path, ArtifactMetadata]) -> None:
    path, metadata = artifact
    file, recorded = path.parent / NAME, metadata.companions["tokenizer.json"]
    assert companion_state(path, recorded) == "present"
    file.write_text("{}")
    assert companion_state(path, recorded) == "changed"
    with pytest.raises(InputError, match="its sha256 differs"):
        read_companions(path, metadata)
    file.unlink()
    assert companion_state(path, recorded) == "missing"
    with pytest.raises(InputError, match="beside it, which is missing"):
        read_companions(path, metadata)


def test_it_is_copied_into_another_folder_alone(
    artifact: tuple[Path, ArtifactMetadata], tmp_path: Path
) -> None:
    path, metadata = artifact
    (tmp_path / "other").mkdir()
    assert companions_to_copy(path, metadata, tmp_path / "x.onnx") == {}
    assert companions_to_copy(path, metadata, tmp_path / "other" / ".." / "x.onnx") == {}
    wanted = {NAME: TEXTS["tokenizer.json"].encode()}
    assert companions_to_copy(path, metadata, tmp_path / "other" / "x.onnx") == wanted


def test_another_file_is_not_written_over(tmp_path: Path) -> None:
    contents = {"a.tokenizer.json": b"1"}
    check_companion_targets(tmp_path, contents)
    (tmp_path / "a.tokenizer.json").write_bytes(b"1")
    check_companion_targets(tmp_path, contents)
    (tmp_path / "a.tokenizer.json").write_bytes(b"2")
    with pytest.raises(InputError, match="exists already and is another one"):
        check_companion_targets(tmp_path, contents)
    (tmp_path / "a.tokenizer.json").unlink()
    (tmp_path / "a.tokenizer.json").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        check_companion_targets(tmp_path, contents)


def test_one_that_is_called_as_its_content_says_is_written_again(tmp_path: Path) -> None:
    beside = companion_contents(TEXTS, tmp_path / "m.onnx")
    (tmp_path / next(iter(beside))).write_text("damaged")
    check_companion_targets(tmp_path, beside)


def test_it_appears_with_the_artifact_or_not_at_all(tmp_path: Path) -> None:
    fixture = Path(__file__).parents[1] / "fixtures" / "tiny.onnx"
    target = tmp_path / "m.onnx"
    beside = companion_contents(TEXTS, target)

    def fail(staged: Path) -> ArtifactMetadata | None:
        raise VerificationError("no")

    with pytest.raises(VerificationError):
        write_artifact(open_artifact(fixture), target, verify=fail, companions=beside)
    assert list(tmp_path.iterdir()) == []
    files = write_artifact(open_artifact(fixture), target, companions=beside)
    assert [file.name for file in files] == ["m.onnx", f"m.{DIGITS}.tokenizer.json"]
    assert set(tmp_path.iterdir()) == set(files)


@pytest.mark.parametrize("name", ["../x", "a/b", "a\\b", "..", "", "a\n"])
def test_a_name_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="as a file beside it"):
        companion_contents({name: "text"}, tmp_path / "model.onnx")
    properties = {
        "loopedge.form": '"loop"',
        "loopedge.version": '"0"',
        "loopedge.loops": "1",
        "loopedge.trained_loops": "1",
    }
    assert not read_metadata(properties).foreign
    properties["loopedge.companions"] = json.dumps({"t": {"file": name, "sha256": "0"}})
    with pytest.raises(InputError, match="metadata of the model is damaged"):
        read_metadata(properties)


@pytest.mark.parametrize(
    "name",
    [
        "onnx",
        "ONNX",
        "onnx.data",
        "onnx.0123456789abcdef.data",
        "int8.onnx",
        "prepared.onnx",
        "prepared.onnx.data",
        "ort",
        "required_operators.config",
        "pt",
        "last.pt",
        "best.pt",
        "metrics.jsonl",
        "origins",
    ],
)
def test_a_companion_is_none_of_our_own_files(tmp_path: Path, name: str) -> None:
    for target in ("model.onnx", "model", "model.pt", "Model.ORT"):
        with pytest.raises(InputError, match="a name of loopedge's own files"):
            companion_contents({name: "hostile"}, tmp_path / target)
    metadata = ArtifactMetadata.model_validate(
        {
            "version": "0",
            "form": "loop",
            "loops": 1,
            "trained_loops": 1,
            "companions": {"t": Companion(file=f"x.{name}", sha256="0")},
        }
    )
    with pytest.raises(InputError, match="a name of loopedge's own files"):
        companions_to_copy(tmp_path / "x.onnx", metadata, tmp_path / "other" / "y.onnx")


@pytest.mark.parametrize("name", ["data", "q", "0123456789abcdef.data"])
def test_a_companion_is_no_file_of_a_target_without_an_ending(tmp_path: Path, name: str) -> None:
    target = tmp_path / ("m.q" if name == "q" else "m")
    with pytest.raises(InputError, match="a name of loopedge's own files"):
        companion_contents({name: "hostile"}, target)
    companion_contents({name: "fine"}, tmp_path / "model.onnx")


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.txt", "onnx.json", "data", "model.npz"])
def test_other_names_are_companions(tmp_path: Path, name: str) -> None:
    digits = hashlib.sha256(b"x").hexdigest()[:16]
    assert list(companion_contents({name: "x"}, tmp_path / "m.onnx")) == [f"m.{digits}.{name}"]
