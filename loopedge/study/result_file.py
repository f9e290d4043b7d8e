"""results.json: read back as it was written, its JSON Schema, and what is not the result of a pilot.

The schema in docs/ is written by
``python -c "from loopedge.study.result_file import schema_text; print(schema_text(), end='')"``.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NotRequired

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict  # pydantic refuses that of typing before Python 3.12

from loopedge.errors import InputError
from loopedge.files.json_text import read_json
from loopedge.files.validation import validation_problem
from loopedge.study.judging.statements import Statement
from loopedge.study.result import SCHEMA_VERSION, PilotResult
from loopedge.study.words.figures import Names

__all__ = ["pilot_schema", "read_pilot", "schema_text"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
HINT = "loopedge pilot TASK writes it, as FOLDER/results.json"

_RESULT = TypeAdapter(PilotResult)
_OPEN = ConfigDict(extra="allow", strict=True)
"""More keys may stand there: those of the task, the options, the machine."""

Scores = dict[str, float | None]


@with_config(_OPEN)
class StoredExit(TypedDict):
    """What stopping early comes to."""

    tolerance: float
    loops: float
    validation: Scores
    test: Scores


@with_config(_OPEN)
class StoredCell(TypedDict):
    """One run, as its cell.json holds it."""

    name: str
    arm: str
    loops: int
    seed: int
    origin: NotRequired[int | None]
    status: Literal["done", "diverged", "failed"]
    reason: NotRequired[str | None]
    validation: NotRequired[Scores]
    test: NotRequired[Scores]
    int8: NotRequired[Scores | None]
    int8_reason: NotRequired[str | None]
    baselines: NotRequired[dict[str, Scores]]
    parameters: NotRequired[int]
    steps: NotRequired[int]
    best_step: NotRequired[int | None]
    train_seconds: NotRequired[float]
    rate: NotRequired[float | None]
    converged: NotRequired[bool | None]
    depths: NotRequired[dict[str, dict[str, Scores]] | None]
    early_exit: NotRequired[StoredExit | None]
    gradient_norm_max: NotRequired[float | None]


@with_config(_OPEN)
class StoredBaseline(TypedDict):
    """What a plain baseline reached in a block."""

    name: str
    about: str
    validation: Scores
    test: Scores
    upper_bound: bool
    seconds: float
    reason: str | None


@with_config(_OPEN)
class StoredDesign(TypedDict):
    """What was compared."""

    arms: list[str]
    loops: list[int]
    seeds: int
    first_seed: int
    origins: NotRequired[int | None]
    model: dict[str, Any]
    train: dict[str, Any]


@with_config(_OPEN)
class StoredMachine(TypedDict):
    """Where it was measured."""

    cpu: str
    cores: int
    onnxruntime: str
    loopedge: str


@with_config(_OPEN)
class StoredTask(TypedDict):
    """What the models were trained on, without its data."""

    name: str


@with_config(_OPEN)
class StoredMargin(TypedDict):
    """The difference that does not matter."""

    value: NotRequired[float]
    text: NotRequired[str]
    of: NotRequired[str]


@with_config(_OPEN)
class StoredLeftOut(TypedDict):
    """What the budget left out, and why."""

    reason: str
    arm: str | None
    loops: int | None
    runs: int
    share: float
    validation: float | None


@with_config(_OPEN)
class StoredLook(TypedDict):
    """What was seen after so many seeds."""

    seeds: int
    outcome: Literal["yes", "no", "undecided"]
    seconds: NotRequired[float]


@with_config(_OPEN)
class StoredParts(TypedDict):
    """Parts that are plain values in a `PilotResult`, and what a report takes of them."""

    baselines: dict[str, list[StoredBaseline]]
    cells: list[StoredCell]
    design: StoredDesign
    left_out: NotRequired[list[StoredLeftOut]]
    looks: NotRequired[list[StoredLook]]
    machine: StoredMachine
    margin: StoredMargin
    task: StoredTask


_PARTS = TypeAdapter(StoredParts)


def read_pilot(path: str | Path) -> PilotResult:
    """Read the result of a pilot.

    Keys that this version does not know are left out.

    Args:
        path: ``results.json`` of its folder.

    Returns:
        The same result that was written.

    Raises:
        InputError: The file cannot be read, holds no result of a pilot, or one of another schema version.
    """
    fields = read_json(path, needed="the result of a pilot", hint=HINT)
    if not isinstance(fields, dict) or "schema_version" not in fields or "verdict" not in fields:
        raise InputError(
            f"{path} is not the result of a pilot: it lacks schema_version or verdict", hint=HINT
        )
    version = fields["schema_version"]
    if version != SCHEMA_VERSION:
        raise InputError(
            f"{path} has schema version {version!r}, {SCHEMA_VERSION} is read here",
            hint="make the pilot again, with --resume: finished runs are kept",
        )
    try:
        return _read(fields)
    except ValidationError as error:
        raise InputError(
            f"{path} is not the result of a pilot: {validation_problem(error)}", hint=HINT
        ) from error


def _read(fields: dict[str, Any]) -> PilotResult:
    """Return the result; its statements are read apart, each as the type that its kind names."""
    _PARTS.validate_json(json.dumps(fields), strict=True)
    verdict, plain = fields["verdict"], fields
    stored = verdict.get("statements") if isinstance(verdict, dict) else None
    if isinstance(stored, list):
        plain = fields | {"verdict": verdict | {"statements": [], "names": {"metric": ""}}}
    result = _RESULT.validate_json(json.dumps(plain), strict=True)
    margin = result.verdict.margin
    names = Names(
        metric=result.metric,
        margin=margin.value,
        margin_text=margin.text,
        step=Names.step_of(margin.value, result.verdict.choice.deviation),
    )
    statements = [one for one in map(_statement, stored or []) if one is not None]
    return replace(result, verdict=replace(result.verdict, statements=statements, names=names))


def _statement(fields: Any) -> Statement | None:
    """Return a statement; None of a kind that this version does not know."""
    kind = fields.get("kind") if isinstance(fields, dict) else None
    known = _kinds().get(str(kind))
    if known is None:
        return None
    found: Statement = TypeAdapter(known).validate_json(json.dumps(fields), strict=True)
    return found


def _kinds() -> dict[str, type[Statement]]:
    return {kind.kind: kind for kind in Statement.__subclasses__()}


def pilot_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of results.json, from its types."""
    schema = _RESULT.json_schema(mode="serialization")
    schema["properties"]["schema_version"]["const"] = SCHEMA_VERSION
    known = schema["$defs"]
    parts = _PARTS.json_schema(mode="serialization")
    known |= parts["$defs"]
    schema["properties"] |= parts["properties"]
    known["Verdict"]["properties"].pop("names")  # it follows from metric, margin and choice
    known["Verdict"]["required"].remove("names")
    known.pop("Names")
    choices = []
    for kind, type_ in sorted(_kinds().items()):
        fact = TypeAdapter(type_).json_schema(mode="serialization")
        known |= fact.pop("$defs", {})
        fact["properties"]["kind"] = {"const": kind, "type": "string"}
        fact["required"] = ["kind", *fact.get("required", [])]
        known[type_.__name__] = fact
        choices.append({"$ref": f"#/$defs/{type_.__name__}"})
    known["Statement"] = {"oneOf": choices}
    return {"$schema": DIALECT, **schema, "$defs": dict(sorted(known.items()))}


def schema_text() -> str:
    """Return the schema as it stands in docs/pilot.schema.json."""
    return json.dumps(pilot_schema(), indent=2) + "\n"
