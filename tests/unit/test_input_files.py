"""What is not a regular file is refused before it is opened: it may have no end."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loopedge.artifact.artifact import open_artifact
from loopedge.data.json_lines import PairFormat, scan
from loopedge.data.tables.reading import Selection, read_table
from loopedge.data.text_files import find_texts
from loopedge.data.tokenizer import read_tokenizer
from loopedge.errors import InputError
from loopedge.files.arrays import read_array_file
from loopedge.model.checkpoint import load
from loopedge.profiler.result_file import read_profile
from loopedge.quantizer.activations.ranges import read_ranges
from loopedge.runtime.session import Session

READERS: dict[str, Callable[[Path], Any]] = {
    "x.npz": lambda path: read_array_file(path, {"x": 2}).arrays,
    "x.npy": lambda path: read_array_file(path, {"x": 2}).arrays,
    "x.csv": lambda path: read_array_file(path, {"x": 2}).arrays,
    "table.csv": lambda path: read_table(path, Selection(numbers=("y",))),
    "table.parquet": lambda path: read_table(path, Selection(numbers=("y",))),
    "pairs.jsonl": lambda path: list(scan(path, PairFormat(source="a", target="b"))),
    "text.txt": find_texts,
    "tokenizer.json": read_tokenizer,
    "ranges.json": read_ranges,
    "profile.json": read_profile,
    "m.onnx": open_artifact,
    "m.ort": open_artifact,
    "session.onnx": Session,
    "m.pt": load,
}


def put(kind: str, path: Path) -> None:
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("kind", ["pipe", "device", "socket"])
def test_what_has_no_end_is_no_file(
    kind: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    put(kind, tmp_path / name)
    with pytest.raises(InputError, match=rf"{name} is a {kind}, .* is needed"):
        READERS[name](tmp_path / name)


def test_a_link_that_leads_to_itself(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").symlink_to(tmp_path / "m.onnx")
    with pytest.raises(InputError, match="too many levels"):
        open_artifact(tmp_path / "m.onnx")


def test_a_name_that_is_no_utf8(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.onnx"))
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"\\xff.onnx has a name that is not UTF-8"):
        open_artifact(path)
