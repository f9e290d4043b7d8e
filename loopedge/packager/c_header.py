"""``c/loopedge_model.h``: the manifest as constants of C, so that the C client parses no JSON.

Its types are declared in ``files/c/loopedge.h``. It lists every file of the bundle but itself and ``manifest.json``, which
hold each other's checksum otherwise: the program ``verify`` takes the header's from the manifest.
"""

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any

from loopedge.errors import InputError
from loopedge.packager.manifest import ArrayFile, Manifest, Model, Port, Vector

__all__ = ["HEADER_NAME", "c_header"]

HEADER_NAME = "c/loopedge_model.h"
LONGEST_STRING = 2000
"""Bytes of a string literal; C99 promises 4095, and each may be escaped."""

MOST_AXES = 8
TEXT = "text"

START = """\
/* Written by `loopedge package` from manifest.json: what the client must know of this model. Do not edit. */
#ifndef {guard}
#define {guard}

#include "loopedge.h"
"""


def c_header(manifest: Manifest) -> str:
    """Return the header of a bundle.

    Args:
        manifest: With a client ``c``. Of its files this header need not be one.

    Raises:
        InputError: A model keeps its weights elsewhere than beside it, or a port has too many axes: ONNX Runtime for C
            finds no weights elsewhere.
    """
    files = {file.path: place for place, file in enumerate(manifest.files)}
    files = {path: place for path, place in files.items() if path != HEADER_NAME}
    kept = [file for file in manifest.files if file.path in files]
    parts = [
        START.format(guard="LOOPEDGE_MODEL_H"),
        _array(
            "loopedge_file",
            "loopedge_files",
            [f"{{{_text(file.path)}, {file.bytes}u, {_text(file.sha256)}}}" for file in kept],
        ),
        _array("loopedge_port", "loopedge_inputs", map(_port, _with_rows(manifest))),
        _array("loopedge_port", "loopedge_outputs", map(_port, manifest.outputs)),
        *_forms(manifest),
        *_vectors(manifest.vectors),
    ]
    mean = (manifest.task or {}).get("mean") if _context(manifest)[0] else None
    parts.append(_array("double", "loopedge_pad", [repr(float(value)) for value in mean or ()]))
    end_ids = manifest.tokenizer.end_ids if manifest.tokenizer else []
    parts.append(_array("int64_t", "loopedge_end_ids", map(str, end_ids)))
    parts.append(_model(manifest, len(kept), pads=len(mean or ()), ends=len(end_ids)))
    parts.append("#endif\n")
    return "\n".join(part for part in parts if part)


def _model(manifest: Manifest, files: int, *, pads: int, ends: int) -> str:
    """Return the one name that programs use."""
    loops, tolerance, tokenizer = manifest.loops, manifest.tolerance, manifest.tokenizer
    least, most = (0, 0) if loops is None else loops.range
    ids = next((port for port in manifest.inputs if port.role == "ids"), None)
    context, min_context = _context(manifest)
    decoding = manifest.decoding
    fields: list[tuple[str, Any]] = [
        ("name", _text(manifest.name)),
        ("loopedge", _text(manifest.loopedge)),
        *_counted("inputs", "input_count", "loopedge_inputs", len(manifest.inputs)),
        *_counted("outputs", "output_count", "loopedge_outputs", len(manifest.outputs)),
        ("has_loops", int(loops is not None)),
        ("dynamic_loops", int(loops is not None and loops.dynamic)),
        ("default_loops", 0 if loops is None else loops.default or loops.trained or 0),
        ("most_loops", 0 if loops is None else loops.most or 0),
        ("least_trained", least),
        ("most_trained", most),
        ("has_tolerance", int(tolerance is not None)),
        ("default_tolerance", 0.0 if tolerance is None else repr(tolerance.default)),
        ("least_tolerance", 0.0 if tolerance is None else repr(tolerance.least)),
        ("missing_values", int(manifest.missing_values)),
        ("context", context),
        ("min_context", min_context),
        *_counted("pad", "pad_count", "loopedge_pad", pads),
        ("has_tokenizer", int(tokenizer is not None)),
        ("byte_tokenizer", int(tokenizer is not None and tokenizer.kind == "bytes")),
        *_counted("end_ids", "end_id_count", "loopedge_end_ids", ends),
        ("decodes", int(decoding is not None)),
        ("vocabulary", 0 if ids is None else _vocabulary(ids)),
        ("text_context", decoding.context if decoding else _longest(manifest)),
        ("new_tokens", decoding.new_tokens if decoding else 0),
        *_counted("forms", "form_count", "loopedge_forms", len(manifest.models)),
        ("form", _text(manifest.clients["c"].model)),
        *_counted("vectors", "vector_count", "loopedge_vectors", len(manifest.vectors)),
        *_counted("files", "file_count", "loopedge_files", files),
    ]
    values = "\n".join(f"    {value}, /* {name} */" for name, value in fields)
    return f"static const loopedge_manifest LOOPEDGE_MODEL = {{\n{values}\n}};\n"


def _context(manifest: Manifest) -> tuple[int, int]:
    """Return the table rows of a window, and the fewest; 0: the model is of no table."""
    task = manifest.task or {}
    if task.get("name") == TEXT or not task.get("context") or "mean" not in task:
        return 0, 0
    return int(task["context"]), int(task.get("min_context") or task["context"])


def _longest(manifest: Manifest) -> int:
    """Return the positions of a text at most; 0: not known."""
    ids = [port for port in manifest.inputs if port.role == "ids"]
    known = [port.exact_length or port.max_length for port in ids]
    return max((length for length in known if length), default=0)


def _counted(name: str, count_name: str, array: str, count: int) -> list[tuple[str, Any]]:
    return [(name, array if count else "NULL"), (count_name, count)]


def _array(kind: str, name: str, values: Iterable[str]) -> str:
    """Return an array; C99 has none without elements."""
    lines = "\n".join(f"    {value}," for value in values)
    return f"static const {kind} {name}[] = {{\n{lines}\n}};\n" if lines else ""


def _with_rows(manifest: Manifest) -> list[Port]:
    """Return the inputs; of a cache that nobody chooses the iterations of, each says how many its own are."""
    slots = [] if manifest.decoding is None else manifest.decoding.slots
    if manifest.loops is None or manifest.loops.dynamic:
        slots = []
    rows = {slot["past"]: slot["loops"] for slot in slots if slot["loops"]}
    return [
        port.model_copy(update={"shape": [rows[port.name], *port.shape[1:]]})
        if port.name in rows
        else port
        for port in manifest.inputs
    ]


def _port(port: Port) -> str:
    _check_axes(port.name, port.shape)
    sizes = [str(axis) if isinstance(axis, int) else "-1" for axis in port.shape] or ["0"]
    names = [_text(axis) if isinstance(axis, str) else "NULL" for axis in port.shape] or ["NULL"]
    lengths = ", ".join(
        str(length or 0) for length in (port.exact_length, port.min_length, port.max_length)
    )
    return (
        f"{{{_text(port.name)}, LOOPEDGE_{port.role.upper()}, LOOPEDGE_{port.dtype.upper()}, {len(port.shape)}, "
        f"{{{', '.join(sizes)}}}, {{{', '.join(names)}}}, {lengths}, {_vocabulary(port)}, {float(port.deviation or 0)!r}, "
        f"{int(port.any_value)}}}"
    )


def _vocabulary(port: Port) -> int:
    return port.vocabulary or 0


def _check_axes(name: str, shape: Sequence[object]) -> None:
    if len(shape) > MOST_AXES:
        raise InputError(
            f"{name} has {len(shape)} axes, the client c takes at most {MOST_AXES}",
            hint="leave out --for c",
        )


def _forms(manifest: Manifest) -> list[str]:
    """Return the forms of the model, each with the files that it opens."""
    parts, forms = [], []
    listed = {file.path: file for file in manifest.files}
    for number, model in enumerate(manifest.models):
        _check_beside(model)
        paths = [model.file, *(data.file for data in model.data)]
        files = [
            f"{{{_text(path)}, {listed[path].bytes}u, {_text(listed[path].sha256)}}}"
            for path in paths
        ]
        entries = [f"{{{_text(key)}, {_text(value)}}}" for key, value in model.config.items()]
        parts.append(_array("loopedge_file", f"loopedge_form_{number}_files", files))
        parts.append(_array("loopedge_entry", f"loopedge_form_{number}_config", entries))
        major, minor = _release(model.min_runtime)
        config = f"loopedge_form_{number}_config" if entries else "NULL"
        scheme = _text(model.scheme) if model.scheme else "NULL"
        forms.append(
            f"{{{_text(model.id)}, {_text(model.form) if model.form else 'NULL'}, {scheme}, "
            f"loopedge_form_{number}_files, {len(files)}, {config}, {len(entries)}, {int(model.memory_pattern)}, "
            f"{major}, {minor}, {model.loops or 0}, {model.weight_bytes}u}}"
        )
    return [*parts, _array("loopedge_form", "loopedge_forms", forms)]


def _release(version: str | None) -> tuple[int, int]:
    major, _, rest = (version or "0.0").partition(".")
    return int(major), int(rest.partition(".")[0] or 0)


def _check_beside(model: Model) -> None:
    """Refuse weights that ONNX Runtime would not find: it looks beside the model, by the name that the model says."""
    for data in model.data:
        wanted = str(PurePosixPath(model.file).parent / data.location)
        if data.file != wanted:
            raise InputError(
                f"the model {model.id} asks for its weights at {wanted}, the bundle has them at {data.file}",
                hint="leave out --for c",
            )


def _vectors(vectors: Sequence[Vector]) -> list[str]:
    parts, rows = [], []
    for number, vector in enumerate(vectors):
        counted = []
        for side, arrays in (("inputs", vector.inputs), ("outputs", vector.outputs)):
            name = f"loopedge_vector_{number}_{side}"
            parts.append(_array("loopedge_array_file", name, map(_array_file, arrays)))
            counted += [name if arrays else "NULL", str(len(arrays))]
        texts = []
        for key in ("prompt", "completion"):
            written = (vector.text or {}).get(key)
            name = f"loopedge_vector_{number}_{key}"
            if written is not None:
                parts.append(_long_text(name, written))
            texts.append("NULL" if written is None else name)
        rows.append(
            f"{{{_text(vector.name)}, {', '.join(counted)}, LOOPEDGE_{vector.check.kind.upper()}, "
            f"{vector.check.limit!r}, {', '.join(texts)}}}"
        )
    return [*parts, _array("loopedge_vector", "loopedge_vectors", rows)]


def _array_file(array: ArrayFile) -> str:
    _check_axes(array.name, array.shape)
    sizes = ", ".join(map(str, array.shape)) or "0"
    return (
        f"{{{_text(array.name)}, LOOPEDGE_{array.dtype.upper()}, {len(array.shape)}, {{{sizes}}}, "
        f"{_text(array.file)}}}"
    )


def _text(text: str) -> str:
    """Return a string literal: bytes of UTF-8, whatever is no plain character in octal."""
    plain = set(range(0x20, 0x7F)) - {*b'"\\?'}  # ??= is a trigraph
    return '"' + "".join(chr(b) if b in plain else f"\\{b:03o}" for b in text.encode("utf-8")) + '"'


def _long_text(name: str, text: str) -> str:
    if len(text.encode()) <= LONGEST_STRING // 4:
        return f"static const char {name}[] = {_text(text)};\n"
    values = ", ".join(str(b - 256 if b > 127 else b) for b in text.encode())
    return f"static const char {name}[] = {{{values}, 0}};\n"
