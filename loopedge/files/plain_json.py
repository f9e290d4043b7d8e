"""Results as JSON: numbers that JSON does not know become null."""

import json
import math
from typing import Any

__all__ = ["dump_json", "finite"]


def dump_json(values: Any, *, indent: int | None = 2) -> str:
    """Return values as JSON; infinity and NaN are null, what is not a plain value becomes text."""
    return json.dumps(finite(values), indent=indent, allow_nan=False, default=str)


def finite(value: Any) -> Any:
    """Return plain values with null for infinity and NaN."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value
