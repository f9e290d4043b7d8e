"""Profiles as files: what ``loopedge profile --json`` prints, read back, and its JSON Schema.

The schema in docs/ is written by
``python -c "from loopedge.profiler.result_file import schema_text; print(schema_text(), end='')"``.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from loopedge.errors import InputError
from loopedge.files.json_text import read_json
from loopedge.files.validation import validation_problem
from loopedge.profiler.result import SCHEMA_VERSION, ProfileResult

__all__ = ["profile_schema", "read_profile", "schema_text"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
HINT = "loopedge profile model.onnx --json > profile.json"

_RESULT = TypeAdapter(ProfileResult)


def read_profile(path: str | Path) -> ProfileResult:
    """Read a profile that ``loopedge profile --json`` printed.

    Keys that this version does not know are left out.

    Args:
        path: The JSON file.

    Returns:
        The same result that was printed.

    Raises:
        InputError: The file cannot be read, holds no profile, or one of another schema version.
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
    try:
        return _RESULT.validate_json(json.dumps(fields), strict=True)
    except ValidationError as error:
        raise InputError(
            f"{path} is not a profile: {validation_problem(error)}", hint=HINT
        ) from error


def profile_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of `ProfileResult`, from its types."""
    schema = _RESULT.json_schema(mode="serialization")
    schema["properties"]["schema_version"]["const"] = SCHEMA_VERSION
    return {"$schema": DIALECT, **schema}


def schema_text() -> str:
    """Return the schema as it stands in docs/profile.schema.json."""
    return json.dumps(profile_schema(), indent=2) + "\n"
