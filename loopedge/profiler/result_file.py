"""Profiles as files: what ``loopedge profile --json`` and the clients of a bundle print, read back, and their JSON Schema.

The schemas in docs/ are written by
``python -c "from loopedge.profiler.result_file import schema_text; print(schema_text(), end='')"`` and, of the
report of a client, ``schema_text(ClientReport)``.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from loopedge.errors import InputError
from loopedge.files.json_text import read_json
from loopedge.files.validation import validation_problem
from loopedge.profiler.client_report import ClientReport
from loopedge.profiler.result import SCHEMA_VERSION, ProfileResult

__all__ = ["profile_schema", "read_profile", "read_report", "schema_text"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
HINT = "loopedge profile model.onnx --json > profile.json"

Kind = type[ProfileResult] | type[ClientReport]


def read_profile(path: str | Path) -> ProfileResult:
    """Read a profile that ``loopedge profile --json`` printed.

    Keys that this version does not know are left out.

    Args:
        path: The JSON file.

    Returns:
        The same result that was printed.

    Raises:
        InputError: The file cannot be read, holds no profile, one of another schema version, or the report of a client.
    """
    report = read_report(path)
    if isinstance(report, ClientReport):
        raise InputError(
            f"{path} is the report of the client {report.client}, a profile is needed", hint=HINT
        )
    return report


def read_report(path: str | Path) -> ProfileResult | ClientReport:
    """Read a profile, or what the program ``bench`` of a client printed.

    In the latter ``null`` means the same as a key that is left out.

    Args:
        path: The JSON file.

    Raises:
        InputError: The file cannot be read, holds neither, or one of another schema version.
    """
    fields = read_json(path, needed="a profile", hint=HINT)
    if not isinstance(fields, dict) or "schema_version" not in fields or "runs" not in fields:
        raise InputError(f"{path} is not a profile: it lacks schema_version or runs", hint=HINT)
    version = fields["schema_version"]
    if version != SCHEMA_VERSION:
        raise InputError(
            f"{path} has schema version {version!r}, {SCHEMA_VERSION} is read here",
            hint=f"take the profile again: {HINT}",
        )
    client = fields.get("client")
    kind: Kind = ProfileResult if client is None else ClientReport
    known = fields if client is None else _without_nulls(fields)
    try:
        found: ProfileResult | ClientReport = TypeAdapter(kind).validate_json(
            json.dumps(known), strict=True
        )
    except ValidationError as error:
        what = "a profile" if client is None else "the report of a client"
        raise InputError(f"{path} is not {what}: {validation_problem(error)}", hint=HINT) from error
    return found


def _without_nulls(value: Any) -> Any:
    """Return plain values without keys that hold null."""
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: _without_nulls(item) for key, item in value.items() if item is not None}


def profile_schema(kind: Kind = ProfileResult) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of `ProfileResult` or `ClientReport`, from its types."""
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    schema = adapter.json_schema(mode="serialization" if kind is ProfileResult else "validation")
    schema["properties"]["schema_version"]["const"] = SCHEMA_VERSION
    return {"$schema": DIALECT, **schema}


def schema_text(kind: Kind = ProfileResult) -> str:
    """Return the schema as it stands in docs/profile.schema.json, or in docs/client_report.schema.json."""
    return json.dumps(profile_schema(kind), indent=2) + "\n"
