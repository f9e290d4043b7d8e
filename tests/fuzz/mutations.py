"""Ways to damage a file: its bytes, the fields of its protocol buffer, the values of its JSON."""

import contextlib
import json
import random
from collections.abc import Callable
from typing import Any

import onnx

__all__ = ["mutate"]

LARGE = (-1, 0, 1, 2, 7, 255, 2**31 - 1, 2**31, 2**62, 2**63 - 1, -(2**63))
TEXTS = ("", "x", "..", "../x", "/etc/passwd", "\0", "core", "Loop", "\u00e9", "a" * 300)
HOSTILE_JSON = (
    *("", "{", "null", "[]", "{}", "-1", "0", "1e999", "NaN", '"x"', '"\\ud800"', "true"),
    *("9" * 30, "9" * 5000, "[" * 5000, "[" * 500 + "]" * 500, '{"a": ' * 70 + "1" + "}" * 70),
    *('{"axes": {"0": 9}, "start": 5, "end": 2}', '{"name": "series", "mean": "x"}', "[1, 2, 3]"),
)
FIELD_TYPES = (int, float, str, bytes)


def mutate(name: str, content: bytes, rng: random.Random) -> bytes:
    """Return a damaged copy of a file's content."""
    if name.endswith(".onnx") and rng.random() < 0.75:
        return _mutate_proto(content, rng)
    if name.endswith(".json") and rng.random() < 0.75:
        return _mutate_json(content, rng)
    damaged = bytearray(content)
    # Whatever moves the bytes behind it makes noise of a format that counts in offsets.
    ways = BYTE_WAYS[:4] if name.endswith((".ort", ".pt", ".parquet", ".feather")) else BYTE_WAYS
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        if damaged:
            damaged = rng.choice(ways)(damaged, rng)
    return bytes(damaged)


def _flip(content: bytearray, rng: random.Random) -> bytearray:
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return content


def _flip_near_an_end(content: bytearray, rng: random.Random) -> bytearray:
    """Where headers and directories stand."""
    near = rng.randrange(min(len(content), 200))
    content[rng.choice((near, len(content) - 1 - near))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
    return content


def _truncate(content: bytearray, rng: random.Random) -> bytearray:
    return content[: rng.randrange(len(content))]


def _overwrite(content: bytearray, rng: random.Random) -> bytearray:
    start, size = rng.randrange(len(content)), rng.choice((2, 4, 8))
    value = rng.choice((b"\xff", b"\0", b"\x7f", b"\x80", b"9", b"["))
    content[start : start + size] = value * min(size, len(content) - start)
    return content


def _repeat(content: bytearray, rng: random.Random) -> bytearray:
    start = rng.randrange(len(content))
    part = content[start : start + rng.randrange(1, 64)]
    return content[:start] + part * rng.randrange(2, 5) + content[start:]


def _cut(content: bytearray, rng: random.Random) -> bytearray:
    start = rng.randrange(len(content))
    return content[:start] + content[start + rng.randrange(1, 64) :]


def _insert(content: bytearray, rng: random.Random) -> bytearray:
    start = rng.randrange(len(content))
    text = rng.choice((b"\xff\xfe", b"nan", b"1e999", b'"', b",", b"\n\n", b"-", b"\0", b"{'a'}"))
    return content[:start] + text + content[start:]


BYTE_WAYS: tuple[Callable[[bytearray, random.Random], bytearray], ...] = (
    _flip,
    _flip,
    _flip_near_an_end,
    _overwrite,
    _truncate,
    _repeat,
    _cut,
    _insert,
)


def _mutate_proto(content: bytes, rng: random.Random) -> bytes:
    model = onnx.ModelProto()
    model.ParseFromString(content)
    for _ in range(rng.choice((1, 1, 2))):
        way = rng.random()
        if way < 0.2 and model.metadata_props:
            rng.choice(model.metadata_props).value = rng.choice(HOSTILE_JSON)
        elif way < 0.35 and model.metadata_props:
            _mutate_property(rng.choice(model.metadata_props), rng)
        else:
            _mutate_message(rng.choice(_messages(model)), rng)
    return bytes(model.SerializeToString())


def _mutate_property(entry: Any, rng: random.Random) -> None:
    entry.value = _mutate_json(entry.value.encode(), rng).decode("utf-8", "replace")


def _messages(message: Any) -> list[Any]:
    """Return a message and all that it holds; one of each kind of field counts as much as many."""
    found = [message]
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for inner in [value] if hasattr(value, "ListFields") else value:
                found += _messages(inner)
    return found


def _mutate_message(message: Any, rng: random.Random) -> None:
    """Change one field: another value, none, one twice, two swapped."""
    fields = message.ListFields()
    if not fields:
        return
    field, value = rng.choice(fields)
    if isinstance(value, FIELD_TYPES):
        way = rng.random()
        if way < 0.3:
            message.ClearField(field.name)
        else:
            with contextlib.suppress(ValueError):  # of an enumeration, which has no such value
                setattr(message, field.name, _other(value, rng))
    elif hasattr(value, "ListFields"):
        message.ClearField(field.name)
    elif len(value):
        place = rng.randrange(len(value))
        way = rng.random()
        if way < 0.35:
            del value[place]
        elif way < 0.6 and not isinstance(value[place], FIELD_TYPES):
            value.add().CopyFrom(value[place])
        elif isinstance(value[place], FIELD_TYPES):
            with contextlib.suppress(ValueError):
                value[place] = _other(value[place], rng)
        elif len(value) > 1:
            other = rng.randrange(len(value))
            kept = type(value[place])()
            kept.CopyFrom(value[place])
            value[place].CopyFrom(value[other])
            value[other].CopyFrom(kept)


def _other(value: Any, rng: random.Random) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        other = rng.choice(LARGE)
        return other if -(2**31) <= value < 2**31 and abs(other) < 2**31 else rng.choice((0, 1, 2))
    if isinstance(value, float):
        return rng.choice((0.0, -1.0, 1e38, float("nan"), float("inf")))
    if isinstance(value, bytes):
        return rng.choice((b"", b"\xff\xfe", value[: len(value) // 2], value + b"\0"))
    return rng.choice(TEXTS)


def _mutate_json(content: bytes, rng: random.Random) -> bytes:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return content + b"]"
    holder: Any = {"": value}
    key: Any = ""
    while isinstance(holder[key], dict | list) and holder[key] and rng.random() < 0.8:
        holder = holder[key]
        key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    way = rng.random()
    if way < 0.2 and holder is not None and not (isinstance(holder, dict) and key == ""):
        del holder[key]
    else:
        holder[key] = rng.choice(
            (None, [], {}, "", "x", -1, 0, 1e-45, 5e-324, 1e39, float("nan"), 10**30, True, [[]])
        )
    if isinstance(holder, dict) and "" in holder and len(holder) == 1:
        value = holder[""]
    return json.dumps(value).encode()
