"""What a manifest says of a model: its ports, how often it runs, how text becomes ids."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast, get_args

import onnx_ir as ir

from loopedge.data.tokenizer import BYTES, TOKENIZER_FILE
from loopedge.errors import InputError
from loopedge.graph.inputs import chooses_loops, chooses_tolerance, input_specs
from loopedge.graph.metadata import ITERATIONS_OUTPUT, MOST_LOOPS, Metadata
from loopedge.graph.signature import InputSpec
from loopedge.packager.manifest import Decoding, Dtype, Loops, Port, Role, Tokenizer, Tolerance
from loopedge.packager.source import TEXT_TASKS, Source
from loopedge.runtime.inputs import MASK
from loopedge.runtime.tables.described_table import DescribedTable

__all__ = ["Described", "describe"]

PAST, PRESENT, LENGTHS = "past.", "present.", "lengths"
DEFAULT_CONTEXT = 2048
"""Positions of a text where the file names no limit."""
NEW_TOKENS = 64
"""What a page writes, where nobody asks for more."""
ALL_DTYPES: tuple[str, ...] = get_args(Dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """The parts of a manifest that say what a model takes and gives."""

    inputs: list[Port]
    outputs: list[Port]
    loops: Loops | None
    tolerance: Tolerance | None
    tokenizer: Tokenizer | None
    decoding: Decoding | None


def describe(source: Source) -> Described:
    """Return what a model takes and gives.

    Raises:
        InputError: An input has a type or a rank that no client can feed.
    """
    metadata, graph = source.metadata, source.artifact.graph
    inputs = [
        _input(value, spec, metadata)
        for value, spec in zip(graph.graph.inputs, input_specs(graph), strict=True)
        if not spec.has_default
    ]
    outputs = [_output(value, metadata) for value in graph.graph.outputs]
    return Described(
        inputs=inputs,
        outputs=outputs,
        loops=_loops(inputs, metadata),
        tolerance=None
        if metadata.tolerance is None or not any(port.role == "tolerance" for port in inputs)
        else Tolerance(default=metadata.tolerance),
        tokenizer=_tokenizer(source),
        decoding=_decoding(inputs, outputs, metadata),
    )


def _input(value: ir.Value, spec: InputSpec, metadata: Metadata) -> Port:
    role = _input_role(value, spec, metadata)
    shape = _shape(value)
    exact, least, most = _lengths(role, shape, metadata)
    return Port(
        name=value.name or "",
        role=role,
        dtype=_dtype(value),
        shape=shape,
        exact_length=exact,
        min_length=least,
        max_length=most,
        vocabulary=_vocabulary(role, spec, metadata),
        deviation=metadata.random_inputs.get(value.name or ""),
        any_value=metadata.foreign_inputs,
    )


def _input_role(value: ir.Value, spec: InputSpec, metadata: Metadata) -> Role:
    name = value.name or ""
    if metadata.generate is not None:
        cached: dict[str, Role] = {"input_ids": "ids", LENGTHS: "lengths"}
        if name in cached or name.startswith(PAST):
            return cached.get(name, "past")
    if chooses_loops(value):
        return "loops"
    if metadata.tolerance is not None and chooses_tolerance(value):
        return "tolerance"
    if name in metadata.random_inputs:
        return "noise"
    if name == MASK and not metadata.foreign_inputs:
        return "mask"
    rank = len(spec.shape or ())
    if spec.dtype is not None and spec.dtype.kind in "iu" and spec.ids is not None and rank == 2:
        return "ids"
    floats = spec.dtype is not None and spec.dtype.kind == "f"
    return "values" if floats and rank == 3 and not metadata.foreign_inputs else "other"


def _output(value: ir.Value, metadata: Metadata) -> Port:
    name = value.name or ""
    role: Role = "other"
    if name.startswith(PRESENT) and metadata.generate is not None:
        role = "present"
    elif name == ITERATIONS_OUTPUT and metadata.exit is not None:
        role = "iterations"
    elif name == "logits":
        role = "logits"
    elif name == "outputs":
        role = "outputs"
    return Port(name=name, role=role, dtype=_dtype(value), shape=_shape(value))


def _dtype(value: ir.Value) -> Dtype:
    name = None if value.dtype is None else str(value.dtype.numpy())
    if name not in ALL_DTYPES or isinstance(value.type, ir.SequenceType | ir.OptionalType):
        shown = value.type if value.dtype is None else value.dtype.name.lower()
        raise InputError(f"{value.name} is {shown}: clients take arrays of {', '.join(ALL_DTYPES)}")
    return cast("Dtype", name)


def _shape(value: ir.Value) -> list[int | str]:
    if value.shape is None:
        raise InputError(f"{value.name} has an unknown rank, no client can feed or read it")
    return [
        dim if isinstance(dim, int) else dim.value or f"{value.name}_{axis}"
        for axis, dim in enumerate(value.shape)
    ]


def _lengths(
    role: Role, shape: list[int | str], metadata: Metadata
) -> tuple[int | None, int | None, int | None]:
    """Return the exact, the least and the largest length along the axis ``sequence``.

    Windows of a table have those of training: what a model answers to others was never learned.
    """
    if "sequence" not in shape or role not in {"values", "ids", "mask"}:
        return None, None, None
    table = DescribedTable.of(metadata.task)
    if table is not None:
        if table.min_context == table.context:
            return table.context, None, None
        return None, table.min_context, table.context
    most = metadata.max_length
    if metadata.generate is not None:
        most = metadata.generate.context or most
    return None, None, most


def _vocabulary(role: Role, spec: InputSpec, metadata: Metadata) -> int | None:
    if role != "ids":
        return None
    stated = metadata.generate.vocab_size if metadata.generate is not None else None
    if metadata.task.get("name") in TEXT_TASKS:
        stated = stated or metadata.task.get("vocab_size") or None
    return stated or spec.ids


def _loops(inputs: Iterable[Port], metadata: Metadata) -> Loops | None:
    chosen = any(port.role == "loops" for port in inputs)
    if metadata.foreign:
        if not chosen:
            return None
        return Loops(trained=None, range=(1, MOST_LOOPS), default=None, dynamic=True, most=None)
    trained = metadata.trained_loops or metadata.loops or 1
    several = metadata.cores is not None
    cached = metadata.generate is not None and metadata.form != "unrolled" and not several
    looped = any(port.role == "past" and isinstance(port.shape[0], str) for port in inputs)
    by_cache = cached and looped and any(len(p.shape) > 4 for p in inputs if p.role == "past")
    return Loops(
        trained=trained,
        range=metadata.loop_range or (trained, trained),
        default=metadata.loops,
        dynamic=chosen or by_cache,
        most=(metadata.max_loops or metadata.loops) if chosen or by_cache else None,
    )


def _tokenizer(source: Source) -> Tokenizer | None:
    if not source.takes_text:
        return None
    metadata = source.metadata
    task = metadata.task
    ends = {task.get("end"), *metadata.end_ids}
    if metadata.generate is not None:
        ends |= set(metadata.generate.end_ids)
    end_ids = sorted(token for token in ends if token is not None)
    if task.get("tokenizer") == BYTES:
        return Tokenizer(kind="bytes", separator=task.get("separator"), end_ids=end_ids)
    return Tokenizer(
        kind="tokenizers",
        file=TOKENIZER_FILE,
        separator=task.get("separator"),
        around=not task,
        end_ids=end_ids,
    )


def _decoding(
    inputs: Iterable[Port], outputs: Iterable[Port], metadata: Metadata
) -> Decoding | None:
    generation = metadata.generate
    if generation is None:
        return None
    written: dict[str, list[str]] = {}
    for output in outputs:
        if output.role == "present":
            part = generation.past_of(output.name.removeprefix(PRESENT))
            written.setdefault(part, []).append(output.name)
    slots: list[dict[str, Any]] = []
    for port in inputs:
        if port.role == "past":
            part = port.name.removeprefix(PAST)
            slots.append(
                {
                    "name": part,
                    "past": port.name,
                    "presents": written.get(part, []),
                    "dtype": port.dtype,
                    "shape": port.shape,
                    "loops": _rows(part, port, metadata),
                }
            )
    context = generation.context or metadata.max_length or DEFAULT_CONTEXT
    return Decoding(context=context, slots=slots, new_tokens=min(NEW_TOKENS, context))


def _rows(part: str, port: Port, metadata: Metadata) -> int | None:
    """Return how many iterations keep their own in a slot of a Scan; None: it has no axis of iterations."""
    assert metadata.generate is not None
    if len(port.shape) <= 4:
        return None
    if isinstance(port.shape[0], int):
        return port.shape[0]
    name = part.rpartition(".")[0]
    stored = {slot.name: slot.loops for slot in metadata.generate.slots}
    core = (metadata.cores or {}).get(name.split(".")[0])
    return stored.get(name) or core or metadata.loops
