"""The header for C: facts of the manifest as constants, whatever a name or a text holds."""

import re
from pathlib import Path
from typing import Any

import pytest

from loopedge.errors import InputError
from loopedge.packager.c_header import c_header
from loopedge.packager.manifest import Manifest

FILES = Path(__file__).parents[2] / "loopedge" / "packager" / "files" / "c"
SHA = "ab" * 32


def manifest(**changes: Any) -> Manifest:
    content: dict[str, Any] = {
        "schema_version": 1, "loopedge": "0.1.0", "name": "sales", "checksum": SHA,
        "task": {"name": "series", "context": 24, "min_context": 10, "mean": [0.1, 1e-30]},
        "inputs": [
            {"name": "inputs", "role": "values", "dtype": "float32", "shape": ["batch", "sequence", 2],
             "min_length": 10, "max_length": 24},
            {"name": "loops", "role": "loops", "dtype": "int64", "shape": []},
        ],
        "outputs": [{"name": "outputs", "role": "outputs", "dtype": "float32", "shape": ["batch", 6, 1]}],
        "loops": {"trained": 8, "range": [2, 8], "default": 8, "dynamic": True, "most": 12},
        "models": [
            {"id": "ort", "file": "models/sales.ort", "format": "ort", "form": "loop", "opset": 23,
             "config": {"session.disable_prepacking": "1"}, "memory_pattern": False, "min_runtime": "1.24",
             "weight_bytes": 5_000_000_000},
        ],
        "clients": {"c": {"model": "ort", "entry": "c/loopedge.h", "runtime": "libonnxruntime"}},
        "engines": [], "vectors": [],
        "files": [
            {"path": "c/loopedge_model.h", "bytes": 1, "sha256": SHA},
            {"path": "models/sales.ort", "bytes": 6_000_000_000, "sha256": SHA},
        ],
    }  # fmt: skip
    return Manifest.model_validate({**content, **changes})


def fields_of(header: str) -> dict[str, str]:
    """Return the values of the one constant that programs use, by the comment behind each."""
    body = header.partition("LOOPEDGE_MODEL = {")[2].partition("\n};")[0]
    return {name: value for value, name in re.findall(r"^ {4}(.*), /\* (\w+) \*/$", body, re.M)}


def test_every_field_of_the_struct_is_written_in_its_order() -> None:
    struct = (FILES / "loopedge.h").read_text(encoding="utf-8")
    body = struct.partition("typedef struct loopedge_manifest {")[2].partition(
        "} loopedge_manifest"
    )[0]
    body = re.sub(r"/\*.*?\*/", "", body, flags=re.S)
    declared = [
        name.strip().removeprefix("*").strip()
        for line in body.split(";")
        if line.strip()
        for name in re.sub(r"^(const )?\w+ ", "", line.strip()).split(",")
    ]
    assert list(fields_of(c_header(manifest()))) == declared


def test_facts_stand_in_their_fields() -> None:
    fields = fields_of(c_header(manifest()))
    expected = {
        "name": '"sales"', "has_loops": "1", "dynamic_loops": "1", "default_loops": "8", "most_loops": "12",
        "least_trained": "2", "most_trained": "8", "context": "24", "min_context": "10", "pad_count": "2",
        "has_tokenizer": "0", "decodes": "0", "form": '"ort"', "file_count": "1", "end_ids": "NULL",
    }  # fmt: skip
    assert {name: fields[name] for name in expected} == expected


def test_numbers_keep_their_last_digit_and_sizes_past_4_gib() -> None:
    header = c_header(manifest())
    assert "    0.1,\n    1e-30,\n" in header
    assert f'{{"models/sales.ort", 6000000000u, "{SHA}"}}' in header
    assert "1, 24, 0, 5000000000u}" in header


def test_the_header_lists_every_file_but_itself() -> None:
    assert '"c/loopedge_model.h"' not in c_header(manifest())


@pytest.mark.parametrize(
    ("text", "literal"),
    [
        ('a"b', r'"a\042b"'),
        ("a\\n??=", r'"a\134n\077\077="'),  # no escape, no trigraph
        ("größe", r'"gr\303\266\303\237e"'),
        ("1\t2", r'"1\0112"'),
    ],
)
def test_names_are_literals_of_utf_8(text: str, literal: str) -> None:
    assert fields_of(c_header(manifest(name=text)))["name"] == literal


def test_a_long_text_is_no_string_literal() -> None:
    """C99 promises 4095 characters."""
    vector = {
        "name": "text", "inputs": [], "outputs": [], "check": {"kind": "equal", "limit": 1.0}, "measured": 1.0,
        "text": {"prompt": "é" * 3000, "completion": "b"},
    }  # fmt: skip
    header = c_header(manifest(vectors=[vector]))
    [row] = re.findall(r"loopedge_vector_0_prompt\[\] = \{(.*), 0\};", header)
    assert bytes(int(value) % 256 for value in row.split(",")).decode() == "é" * 3000
    assert 'loopedge_vector_0_completion[] = "b";' in header
    assert max(map(len, re.findall(r'"[^"]*"', header))) < 4095


def test_weights_that_the_runtime_would_not_find_are_refused() -> None:
    model = {
        "id": "loop", "file": "models/sales.onnx", "format": "onnx", "form": "loop", "opset": 23, "min_runtime": None,
        "data": [{"location": "sales.data", "file": "elsewhere/sales.data"}], "weight_bytes": 1,
    }  # fmt: skip
    with pytest.raises(InputError, match=r"weights at models/sales\.data, the bundle has"):
        c_header(manifest(models=[model]))


def test_an_array_of_more_axes_than_the_client_takes_is_refused() -> None:
    port = {"name": "wide", "role": "other", "dtype": "float32", "shape": [1] * 9}
    with pytest.raises(InputError, match="wide has 9 axes, the client c takes at most 8"):
        c_header(manifest(inputs=[port]))
