"""Read what an ONNX file holds: form, loops, ties, bytes, timestep tables, int8 coverage."""

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
from onnx_ir.passes import common

from loopedge.artifact.artifact import Artifact
from loopedge.artifact.companions import companion_state
from loopedge.artifact.core_summaries import CoreSummary, summarise_cores
from loopedge.artifact.reading.load_check import unloadable_reasons
from loopedge.artifact.reading.ort_format import is_ort_format
from loopedge.artifact.seal import examine, examine_ort
from loopedge.artifact.sizes import AGAIN
from loopedge.errors import VerificationError
from loopedge.files.staging import again_if_replaced
from loopedge.files.targets import FileSize
from loopedge.graph.core.ties import TiedWeight, tied_weights, untied_bytes
from loopedge.graph.integer_linears import IntegerLinears, count_integer_linears
from loopedge.graph.metadata import Metadata
from loopedge.graph.positions.last_iteration import selection_of
from loopedge.graph.rolling.copies import EqualCopies, equal_copies
from loopedge.graph.rolling.outlook.answer import outlook_of
from loopedge.graph.rolling.outlook.ordered_reads import ordered_reads
from loopedge.graph.rolling.outlook.tie_order import TieOrder, tie_order
from loopedge.graph.weights import TABLE_PREFIX, weight_bytes

__all__ = ["CompanionFile", "Inspection", "Port", "RollingAnswer", "TimestepTable", "inspect"]

NUMPY_NAMES = {ir.DataType.FLOAT: "float32", ir.DataType.DOUBLE: "float64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """An input or output of the graph; an axis is its size, its name, or None."""

    name: str
    dtype: str | None
    shape: list[int | str | None] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TimestepTable:
    """A timestep table: row t is what iteration t receives."""

    name: str
    shape: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompanionFile:
    """A file that must stand beside the artifact, and whether it does as it was written."""

    name: str
    file: str
    sha256: str
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RollingAnswer:
    """What is known of `loopedge.reroll` before it is tried (`loopedge.graph.rolling.outlook.answer`).

    ``command`` tries it; None where ``reason`` says why it would fail.
    """

    rollable: bool
    iterations: int | None
    reason: str | None
    notes: list[str]
    command: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What an ONNX file holds.

    ``form`` and ``trained_loops`` are None for a file that loopedge did not write, like ``memory``. Of such a file
    ``loops`` is the constant trip count of its Loop, if it has one, and ``exit`` is set where a condition can end
    a Loop earlier; ``dynamic_loops`` is None where it has no Loop. ``cores`` says it of each Loop of the main graph, where
    there may be several; of several ``loops`` are those of the first of an artifact, and None in another file.
    ``verified`` is whether the content of all files was compared with their checksums.
    ``last_rows`` are the positions that the last iteration computes, None where it computes all.
    ``cache_bytes_per_token`` are the keys and values of one token of one text, None where the file has no cache.
    ``copies`` are weights that are stored more than once, ``ties`` the order in which tied ones are read,
    ``unloadable`` what keeps ONNX Runtime from loading the file: other verbs refuse it.
    """

    path: str
    form: str | None
    loops: int | None
    trained_loops: int | None
    dynamic_loops: bool | None
    exit: str | None
    cores: list[CoreSummary]
    opset: int | None
    ir_version: int
    producer: str | None
    nodes: int
    inputs: list[Port]
    outputs: list[Port]
    weight_bytes: int
    untied_bytes: int
    tied_weights: list[TiedWeight]
    copies: list[EqualCopies]
    ties: TieOrder
    rolling: RollingAnswer
    unloadable: list[str]
    tables: list[TimestepTable]
    int8: IntegerLinears
    last_rows: str | None
    cache_bytes_per_token: int | None
    memory: str | None
    prepared: dict[str, Any] | None
    files: list[FileSize]
    verified: bool
    companions: list[CompanionFile]
    metadata: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the keys of docs/cli.md."""
        return asdict(self)


def inspect(path: str | Path, *, verify: bool = False) -> Inspection:
    """Read what an ONNX file holds, without running it.

    Args:
        path: Any ``.onnx`` file; its external data stands beside it.
        verify: Compare the content of all files with the checksums that they were written with. Without
            it, the sizes are compared.

    Returns:
        The inspection. ``untied_bytes`` is what the weights would take if every iteration held its
        own copy of the core's; in a file that loopedge did not write and that has no Loop, if every
        reader of a shared weight did.

    Raises:
        InputError: The file is missing, is not ONNX, or its external data is missing or has another size.
        VerificationError: A file is damaged, missing or another one, or there is no checksum.
    """
    return again_if_replaced(Path(path), lambda: _inspect(path, verify=verify))


def _inspect(path: str | Path, *, verify: bool) -> Inspection:
    artifact = Artifact.open(path, unloadable=True)
    model, metadata = artifact.graph, artifact.metadata
    companions = _companions(Path(path), metadata)
    if verify:
        _verify(Path(path), companions)
    if metadata.foreign:
        # Other exporters keep weights in Constant nodes too; ours never do.
        model = artifact.fresh_graph()
        common.LiftConstantsToInitializersPass(lift_all_constants=True)(model)
    tied, cores, copies = tied_weights(model), summarise_cores(model), equal_copies(model)
    ordered = ordered_reads(model, copies)
    ties = tie_order(ordered)
    outlook = outlook_of(ordered, ties, copies)
    unloadable = [] if artifact.ort_format else unloadable_reasons(artifact.graph)
    done = artifact.ort_format or metadata.generate is not None  # the last step of a model
    tried = outlook.rollable and not unloadable and not done
    return Inspection(
        path=str(path),
        form=metadata.form,
        loops=_loops(metadata, cores),
        trained_loops=metadata.trained_loops,
        dynamic_loops=_dynamic_loops(metadata, cores),
        exit=metadata.exit or next((core.exit for core in cores if core.exit), None),
        cores=cores,
        opset=model.opset_imports.get(""),
        ir_version=model.ir_version,
        producer=model.producer_name or None,
        nodes=sum(1 for _ in model.graph.all_nodes()),
        inputs=[_port(value) for value in model.graph.inputs],
        outputs=[_port(value) for value in model.graph.outputs],
        weight_bytes=weight_bytes(model),
        untied_bytes=_untied_bytes(model, metadata, cores, tied),
        tied_weights=tied,
        copies=copies,
        ties=ties,
        rolling=RollingAnswer(
            rollable=outlook.rollable,
            iterations=outlook.iterations,
            reason=outlook.reason,
            notes=outlook.notes,
            command=f"loopedge reroll {shlex.quote(str(path))}" if tried else None,
        ),
        unloadable=unloadable,
        tables=[
            TimestepTable(name=name, shape=list(value.const_value.shape.numpy()))
            for name, value in model.graph.initializers.items()
            if name.startswith(TABLE_PREFIX) and value.const_value is not None
        ],
        int8=count_integer_linears(model),
        last_rows=str(selection_of(metadata.last_rows)) if metadata.last_rows else None,
        cache_bytes_per_token=None
        if metadata.generate is None
        else metadata.generate.bytes_per_token,
        memory=None if metadata.foreign else metadata.memory,
        prepared=metadata.prepared.model_dump() if metadata.prepared else None,
        files=[FileSize.of(file) for file in artifact.files],
        verified=verify,
        companions=companions,
        metadata=dict(model.metadata_props)
        if metadata.foreign
        else metadata.model_dump(mode="json", exclude_none=True),
    )


def _loops(metadata: Metadata, cores: list[CoreSummary]) -> int | None:
    """Return how often the core runs: of several the first, where the file says which that is."""
    return metadata.loops or (cores[0].iterations if len(cores) == 1 else None)


def _dynamic_loops(metadata: Metadata, cores: list[CoreSummary]) -> bool | None:
    """Tell whether the loop count is an input; None where another tool wrote the file, and it has no Loop."""
    if not metadata.foreign:
        return metadata.dynamic_loops
    loops = [core for core in cores if core.form == "loop"]
    return any(core.dynamic_loops for core in loops) if loops else None


def _verify(path: Path, companions: list[CompanionFile]) -> None:
    """Compare the content of an artifact's files with the checksums that they were written with."""
    found = examine_ort(path) if is_ort_format(path) else examine(path)
    if found.state != "whole":
        raise VerificationError(found.reason or f"{path} is {found.state}", hint=found.hint)
    for companion in companions:
        if companion.state != "present":
            raise VerificationError(
                f"{path.parent / companion.file}, which {path} needs, is {companion.state}",
                hint=AGAIN,
            )


def _companions(path: Path, metadata: Metadata) -> list[CompanionFile]:
    return [
        CompanionFile(
            name=name, file=each.file, sha256=each.sha256, state=companion_state(path, each)
        )
        for name, each in metadata.companions.items()
    ]


def _untied_bytes(
    model: ir.Model, metadata: Metadata, cores: list[CoreSummary], tied: list[TiedWeight]
) -> int:
    """Return what the weights would take untied: of another tool's file without a Loop, a copy for every reader."""
    if not metadata.foreign or any(core.form == "loop" for core in cores):
        return untied_bytes(model)
    return weight_bytes(model) + sum((weight.uses - 1) * weight.bytes for weight in tied)


def _port(value: ir.Value) -> Port:
    return Port(
        name=value.name or "",
        dtype=None
        if value.dtype is None
        else NUMPY_NAMES.get(value.dtype, value.dtype.name.lower()),
        shape=None
        if value.shape is None
        else [dim if isinstance(dim, int) else dim.value for dim in value.shape],
    )
