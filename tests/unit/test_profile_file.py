"""A profile's JSON: read back as it was printed, its schema, and what is not a profile."""

import json
from pathlib import Path

import pytest

from loopedge.errors import InputError
from loopedge.files.plain_json import dump_json
from loopedge.profiler.result import SCHEMA_VERSION, ProfileResult
from loopedge.profiler.result_file import profile_schema, read_profile, schema_text
from tests.unit.profiles import make_decoders, make_forms, make_pair, make_sweep

SCHEMA = Path(__file__).parents[2] / "docs" / "profile.schema.json"


def test_the_schema_in_docs_is_that_of_the_types() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == schema_text(), (
        "write it again as loopedge/profiler/result_file.py says"
    )
    schema = profile_schema()
    assert schema["$schema"].endswith("2020-12/schema")
    assert schema["properties"]["schema_version"]["const"] == SCHEMA_VERSION
    assert set(schema["required"]) == set(ProfileResult.__dataclass_fields__)


@pytest.mark.parametrize("result", [make_sweep(), make_forms(), make_decoders()])
def test_what_was_printed_is_read_back(result: ProfileResult, tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_text(dump_json(result.to_json()), encoding="utf-8")
    assert read_profile(path) == result


def test_keys_of_later_minor_versions_are_left_out(tmp_path: Path) -> None:
    profile = make_pair().to_json()
    profile["later"] = 1
    profile["runs"][0]["later"] = {"a": 1}
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(profile))
    assert read_profile(path) == make_pair()


def test_fields_of_a_run_that_were_not_measured_may_be_missing(tmp_path: Path) -> None:
    profile = make_pair().to_json()
    for name in ("iterations", "memory_sources", "roofline", "soak", "gpu"):
        del profile["runs"][0][name]
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(profile))
    assert read_profile(path) == make_pair()


def broken(**changed: object) -> str:
    return json.dumps({**make_pair().to_json(), **changed})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no json", "is not a profile: it is not JSON"),
        ("[1, 2]", "is not a profile: it lacks schema_version or runs"),
        (
            '{"path": "model.onnx", "runs": []}',
            "is not a profile: it lacks schema_version or runs",
        ),
        (broken(schema_version=2), "has schema version 2, 3 is read here"),
        (broken(schema_version="3"), "has schema version '3', 3 is read here"),
        (broken(machine=None), "is not a profile: machine: Input should be"),
        (broken(runs=[{"name": "a"}]), "is not a profile: runs.0.path: "),
        ("\x00\xff", "is not a profile: it is not a text file in UTF-8"),
    ],
)
def test_what_is_no_profile_is_refused_in_one_line(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError) as caught:
        read_profile(path)
    assert said in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint is not None
    assert "loopedge profile model.onnx --json" in caught.value.hint


def test_a_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_profile(tmp_path / "missing.json")
    with pytest.raises(InputError, match="is a folder"):
        read_profile(tmp_path)


def test_a_figure_of_the_wrong_kind_is_refused(tmp_path: Path) -> None:
    profile = make_pair().to_json()
    profile["runs"][1]["rss_peak_bytes"] = "a lot"
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(profile))
    with pytest.raises(
        InputError, match=r"runs\.1\.rss_peak_bytes: Input should be a valid integer"
    ):
        read_profile(path)
