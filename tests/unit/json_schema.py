"""As much of JSON Schema as the schemas of docs/ use: what does not follow one, by place."""

from collections.abc import Iterator
from typing import Any

__all__ = ["problems"]

KINDS: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
}


def problems(value: Any, schema: dict[str, Any]) -> list[tuple[str, str]]:
    """Return where a value does not follow a schema, and why."""
    return sorted(_problems(value, schema, schema.get("$defs", {}), ""))


def _problems(
    value: Any, schema: dict[str, Any], known: dict[str, Any], place: str
) -> Iterator[tuple[str, str]]:
    if "$ref" in schema:
        schema = known[schema["$ref"].removeprefix("#/$defs/")]
    for name in ("anyOf", "oneOf"):
        if name in schema:
            fitting = [one for one in schema[name] if not [*_problems(value, one, known, place)]]
            if not fitting or (name == "oneOf" and len(fitting) > 1):
                yield place, f"{len(fitting)} of {name} fit"
            return
    if "const" in schema and value != schema["const"]:
        yield place, f"not {schema['const']!r}"
    if "enum" in schema and value not in schema["enum"]:
        yield place, f"not one of {schema['enum']}"
    if "type" in schema and not _is(value, schema["type"]):
        yield place, f"not of type {schema['type']}"
        return
    if isinstance(value, dict):
        yield from _inside(value, schema, known, place)
    elif isinstance(value, list):
        first = schema.get("prefixItems", [])
        for number, item in enumerate(value):
            part = first[number] if number < len(first) else schema.get("items", {})
            yield from _problems(item, part, known, f"{place}.{number}".lstrip("."))


def _inside(
    value: dict[str, Any], schema: dict[str, Any], known: dict[str, Any], place: str
) -> Iterator[tuple[str, str]]:
    for name in schema.get("required", []):
        if name not in value:
            yield place, f"lacks {name}"
    more = schema.get("additionalProperties", True)
    for name, item in value.items():
        part = schema.get("properties", {}).get(name, more)
        if isinstance(part, dict):
            yield from _problems(item, part, known, f"{place}.{name}".lstrip("."))


def _is(value: Any, kind: str) -> bool:
    if kind in {"number", "integer"}:
        of = (int, float) if kind == "number" else int
        return isinstance(value, of) and not isinstance(value, bool)
    return isinstance(value, KINDS[kind])
