"""results.json: read back as it was written, its schema, and what is not the result of a pilot."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loopedge.errors import InputError
from loopedge.files.plain_json import dump_json
from loopedge.study.result import SCHEMA_VERSION, PilotResult
from loopedge.study.result_file import pilot_schema, read_pilot, schema_text
from tests.unit import pilot_results
from tests.unit.json_schema import problems

DOCS = Path(__file__).parents[2] / "docs"
MADE: list[Callable[[], PilotResult]] = [
    getattr(pilot_results, f"make_{name}")
    for name in ("yes", "no", "undecided", "failed", "labels")
]
EACH = pytest.mark.parametrize("make", MADE, ids=lambda make: make.__name__)


def test_the_schema_in_docs_is_that_of_the_types() -> None:
    assert (DOCS / "pilot.schema.json").read_text(encoding="utf-8") == schema_text(), (
        "write it again as loopedge/study/result_file.py says"
    )
    schema = pilot_schema()
    assert schema["$schema"].endswith("2020-12/schema")
    assert schema["properties"]["schema_version"]["const"] == SCHEMA_VERSION
    assert set(schema["properties"]) == set(PilotResult.__dataclass_fields__)


@EACH
def test_what_was_written_is_read_back(make: Callable[[], PilotResult], tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(dump_json(make().to_json()), encoding="utf-8")
    assert read_pilot(path) == make()


@EACH
def test_results_follow_their_schema(make: Callable[[], PilotResult]) -> None:
    found = json.loads(dump_json(make().to_json()))
    assert problems(found, pilot_schema()) == []
    found["verdict"]["statements"][0]["outcome"] = "perhaps"
    found["cells"][0]["loops"] = "four"
    del found["summary"][0]["arm"]
    assert [place for place, _ in problems(found, pilot_schema())] == [
        "cells.0.loops",
        "summary.0",
        "verdict.statements.0",
    ]


def test_what_a_later_version_adds_is_left_out(tmp_path: Path) -> None:
    found = json.loads(dump_json(MADE[0]().to_json()))
    found["later"] = 1
    found["cells"][0]["later"] = 1
    found["verdict"]["statements"].append({"kind": "later", "value": 1})
    path = tmp_path / "results.json"
    path.write_text(json.dumps(found))
    result = read_pilot(path)
    assert result.verdict == MADE[0]().verdict
    assert result.cells[0].pop("later") == 1
    assert result == MADE[0]()


def broken(**changed: Any) -> str:
    return json.dumps({**json.loads(dump_json(MADE[0]().to_json())), **changed})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no json", "is not the result of a pilot: it is not JSON"),
        ("[1, 2]", "is not the result of a pilot: it lacks schema_version or verdict"),
        ('{"schema_version": 2}', "it lacks schema_version or verdict"),
        (broken(schema_version=1), "has schema version 1, 2 is read here"),
        (broken(verdict=None), "is not the result of a pilot: verdict: "),
        (broken(cells=[{"name": "a"}]), "is not the result of a pilot: cells.0.arm: "),
        (broken(machine={}), "is not the result of a pilot: machine.cpu: Field required"),
        (broken(metric=None), "is not the result of a pilot: metric: "),
        (broken(summary=[{"arm": "looped"}]), "is not the result of a pilot: summary.0."),
        (broken(windows=[{"arm": "looped"}]), "is not the result of a pilot: windows.0."),
    ],
)
def test_what_is_no_result_is_refused_in_one_line(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_pilot(path)
    assert said in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint is not None


def test_a_statement_that_lacks_a_part_is_refused(tmp_path: Path) -> None:
    found = json.loads(dump_json(MADE[0]().to_json()))
    del found["verdict"]["statements"][1]["baseline"]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(found))
    with pytest.raises(InputError, match="is not the result of a pilot: baseline: Field required"):
        read_pilot(path)


def test_every_key_is_documented() -> None:
    page = (DOCS / "pilot_page.md").read_text(encoding="utf-8")
    page = page.partition("## results.json")[2]
    schema = pilot_schema()
    parts = [schema, *schema["$defs"].values()]
    keys = {key for part in parts for key in part.get("properties", ())}
    assert {"statements", "leaderboard", "depths", "chosen_by"} <= keys
    assert [key for key in sorted(keys) if not re.search(rf"\b{key}\b", page)] == []
