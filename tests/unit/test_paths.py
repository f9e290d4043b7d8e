from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from loopedge.errors import InputError
from loopedge.files.paths import ArtifactTarget, check_paths

if TYPE_CHECKING:
    from pathlib import Path

HASH = "0123456789abcdef"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "x.npz"
    path.write_text("mine")
    return path


def refused(**groups: object) -> str:
    with pytest.raises(InputError) as caught:
        check_paths(**groups)  # type: ignore[arg-type]
    assert caught.value.hint
    return caught.value.message


def test_an_output_that_is_an_input_is_refused_by_both_options(file: Path) -> None:
    message = refused(inputs={"--data": file}, outputs={"--save-ranges": str(file)})
    assert message == f"--save-ranges {file} is also a file of --data, which it would replace"


@pytest.mark.parametrize("link", [os.symlink, os.link])
@pytest.mark.parametrize("linked", ["inputs", "outputs"])
def test_a_link_is_the_file_that_it_leads_to(file: Path, link: object, linked: str) -> None:
    other = file.with_name("other")
    link(file, other)  # type: ignore[operator]
    first, second = (other, file) if linked == "inputs" else (file, other)
    refused(inputs={"--data": first}, outputs={"--output": second})


def test_a_file_that_does_not_exist_is_known_by_its_place(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    refused(outputs={"--output": tmp_path / "folder" / "y", "--html": tmp_path / "link" / "y"})


def test_a_dangling_link_is_the_place_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("later")
    refused(outputs={"--output": tmp_path / "link", "--html": tmp_path / "later"})


@pytest.mark.parametrize("name", ["q.onnx", "q.onnx.data", f"q.onnx.{HASH}.data"])
def test_every_file_of_an_artifact_that_may_be_written_counts(tmp_path: Path, name: str) -> None:
    target = ArtifactTarget(tmp_path / "q.onnx")
    refused(inputs={"--data": tmp_path / name}, outputs={"--output": target})
    refused(outputs={"--output": target, "--save-ranges": tmp_path / name})
    refused(outputs={"--save-ranges": tmp_path / name, "--output": target})


def test_a_link_to_an_existing_data_file_of_the_target_counts(tmp_path: Path) -> None:
    (tmp_path / f"q.onnx.{HASH}.data").write_text("weights")
    os.link(tmp_path / f"q.onnx.{HASH}.data", tmp_path / "x")
    target = ArtifactTarget(tmp_path / "q.onnx")
    refused(inputs={"--data": tmp_path / "x"}, outputs={"--output": target})


@pytest.mark.parametrize(
    "name", ["q.onnx.json", f"q.onnx.{HASH}0.data", f"Q.onnx.{HASH[1:]}.data", "p.onnx", "q.data"]
)
def test_other_names_beside_an_artifact_do_not_count(tmp_path: Path, name: str) -> None:
    check_paths(
        inputs={"--data": tmp_path / name},
        outputs={"--output": ArtifactTarget(tmp_path / "q.onnx")},
    )


def test_inputs_may_be_each_other_and_nothing_may_be_absent(file: Path) -> None:
    check_paths(
        inputs={"--validation": file, "--test": [file, file]},
        outputs={"--output": None, "--html": file.with_name("page.html")},
    )
    check_paths()


def test_nothing_lies_in_a_folder_that_is_emptied(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    (runs / "one").mkdir(parents=True)
    data = runs / "one" / "d.csv"
    data.write_text("mine")
    (tmp_path / "link.csv").symlink_to(data)
    for named in (data, tmp_path / "link.csv"):
        message = refused(inputs={"DATA": named}, emptied={"--output": runs})
        assert message.endswith(f"lies in {runs}, which --output empties")
    refused(outputs={"--html": runs / "page.html"}, emptied={"--output": runs})
    check_paths(inputs={"DATA": tmp_path / "runs.csv"}, emptied={"--output": runs})


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "names no file"),
        ("a\0b", "control character"),
    ],
)
@pytest.mark.parametrize("group", ["inputs", "outputs", "emptied"])
def test_names_that_no_command_can_use(name: str, words: str, group: str) -> None:
    message = refused(**{group: {"--it": name}})
    assert words in message
    assert message.isascii()
    assert message.isprintable()


@pytest.mark.parametrize(
    ("name", "words"), [("a\nb", "control character"), ("a\udcffb", "not text in this locale")]
)
def test_names_that_an_output_alone_may_not_have(tmp_path: Path, name: str, words: str) -> None:
    check_paths(inputs={"--data": tmp_path / name})  # a folder of texts may hold such a file
    message = refused(outputs={"--output": tmp_path / name})
    assert words in message
    assert message.isascii()
