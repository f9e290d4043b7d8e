"""The manifest of a bundle: its schema, its checksum, and what is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from loopedge.errors import InputError, VerificationError
from loopedge.packager.bundle import inspect_bundle, read_bundle
from loopedge.packager.manifest import SCHEMA_VERSION, manifest_schema, schema_text
from tests.unit.bundles import package, short_model
from tests.unit.json_schema import problems

SCHEMA = Path(__file__).parents[2] / "docs" / "manifest.schema.json"


def test_the_schema_in_docs_is_that_of_the_types() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == schema_text(), (
        "write it again: python -c 'from loopedge.packager.manifest import schema_text; "
        'print(schema_text(), end="")\' > docs/manifest.schema.json'
    )
    schema = manifest_schema()
    assert schema["$schema"].endswith("2020-12/schema")
    assert schema["properties"]["schema_version"]["const"] == SCHEMA_VERSION


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    package(short_model(tmp_path))
    return tmp_path / "bundle"


def test_a_manifest_follows_the_schema(bundle: Path) -> None:
    fields = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    assert problems(fields, manifest_schema()) == []
    assert problems(fields | {"schema_version": 2}, manifest_schema()) != []


def test_the_checksum_is_of_the_text_with_zeros_in_its_place(bundle: Path) -> None:
    text = (bundle / "manifest.json").read_text(encoding="utf-8")
    stated = json.loads(text)["checksum"]
    blank = text.replace(stated, "0" * 64)
    assert hashlib.sha256(blank.encode()).hexdigest() == stated


def test_every_file_is_listed_with_its_bytes_and_sha256(bundle: Path) -> None:
    listed = {file.path: file for file in read_bundle(bundle).files}
    stands = {
        path.relative_to(bundle).as_posix(): path.read_bytes()
        for path in bundle.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
    assert set(listed) == set(stands)
    for name, content in stands.items():
        assert listed[name].bytes == len(content)
        assert listed[name].sha256 == hashlib.sha256(content).hexdigest()
    found = inspect_bundle(bundle, verify=True)
    whole = sum(map(len, stands.values())) + (bundle / "manifest.json").stat().st_size
    assert found.bundle_bytes == whole


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema_version": 2}, "has schema version 2, 1 is read here"),
        ({"schema_version": "1"}, "lacks schema_version"),
        ({"name": "another"}, "its SHA-256 differs"),
        ({"models": 3}, "is damaged: models"),
        ({"files": [{"path": "../a", "bytes": 1, "sha256": "0" * 64}]}, "a path inside the bundle"),
    ],
)
def test_a_changed_manifest_is_refused(bundle: Path, change: dict[str, object], words: str) -> None:
    file = bundle / "manifest.json"
    fields = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(fields | change, indent=1), encoding="utf-8")
    with pytest.raises(InputError, match=words):
        read_bundle(bundle)


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no manifest\.json"):
        read_bundle(tmp_path)
    (tmp_path / "manifest.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="is damaged: line 1"):
        read_bundle(tmp_path)
    (tmp_path / "manifest.json").write_text("[]", encoding="utf-8")
    with pytest.raises(InputError, match="lacks schema_version"):
        read_bundle(tmp_path)


def test_a_manifest_of_a_later_minor_version_may_say_more(bundle: Path) -> None:
    file = bundle / "manifest.json"
    text = file.read_text(encoding="utf-8")
    stated = json.loads(text)["checksum"]
    more = text.replace('"name"', '"colour": "red",\n "name"', 1).replace(stated, "0" * 64)
    digest = hashlib.sha256(more.encode()).hexdigest()
    file.write_text(more.replace("0" * 64, digest, 1), encoding="utf-8")
    assert read_bundle(bundle).name == "short"


def test_inspecting_names_the_file_that_is_wrong(bundle: Path) -> None:
    model = bundle / "models" / "short.onnx"
    content = model.read_bytes()
    model.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert inspect_bundle(bundle).verified is False  # sizes alone
    with pytest.raises(VerificationError, match=r"short\.onnx is damaged"):
        inspect_bundle(bundle, verify=True)
    model.write_bytes(content + b"!")
    with pytest.raises(VerificationError, match=rf"has {len(content) + 1} bytes, {len(content)}"):
        inspect_bundle(bundle)
    model.unlink()
    with pytest.raises(VerificationError, match=r"short\.onnx is missing"):
        inspect_bundle(bundle)
