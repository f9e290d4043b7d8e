"""Write the Scans of a graph that decodes out: each iteration with its own nodes and its own part of the cache."""

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from loopedge.errors import InputError
from loopedge.graph.core.core_view import iteration_number
from loopedge.graph.core.iterations.copying import (
    copy_iteration,
    dismantle,
    share_constants,
)
from loopedge.graph.core.names import iteration_prefix
from loopedge.graph.core.scans.scan_view import ScanView, scans_among
from loopedge.graph.editing import add_initializer, remove_identities
from loopedge.graph.metadata import CacheSlot, read_metadata, write_metadata

__all__ = ["write_out_scans"]

MOST_NODES = 1 << 20


def write_out_scans(model: ir.Model, loops: int | None = None) -> ir.Model:
    """Return a graph that decodes with its iterations written out: slot ``core.<i>`` becomes ``core.<t>.<i>``.

    Args:
        model: A graph that decodes, in the form scan. Not modified.
        loops: Iterations; default: as the metadata says.

    Raises:
        InputError: The graph holds no such Scan, another Scan stands in it, or the counts are not known.
    """
    written = model.clone()
    metadata = read_metadata(written.metadata_props)
    scans = scans_among(written.graph)
    if metadata.generate is None or not scans:
        raise InputError("the graph holds no Scan that could be written out")
    slots: list[CacheSlot] = []
    for scan in scans:
        if scans_among(scan.body.all_nodes()):
            raise InputError(
                f"a Scan stands inside {scan.name}: it is not written out",
                hint="loopedge export model.pt --inner unrolled",
            )
        count = loops or (metadata.cores or {}).get(scan.name) or metadata.loops
        if count is None or count * len(scan.body) > MOST_NODES:
            raise InputError(f"{scan.name} does not say how often it runs, or has too many nodes")
        _write_out(written, scan, count)
        slots += [
            slot.model_copy(
                update={"name": f"{scan.name}.{t}.{slot.name.rpartition('.')[2]}", "loops": None}
            )
            for t in range(count)
            for slot in metadata.generate.slots
            if slot.name.rpartition(".")[0] == scan.name
        ]
    known = {value.name for value in written.graph.inputs}
    slots = [
        slot for slot in [*metadata.generate.slots, *slots] if f"past.{slot.name}.key" in known
    ]
    remove_identities(written)
    common.RemoveUnusedNodesPass()(written)
    written.graph.sort()
    update = {
        "form": "unrolled" if metadata.form == "scan" else metadata.form,
        "loops": loops or metadata.loops,
        "generate": metadata.generate.model_copy(update={"slots": slots}),
    }
    write_metadata(metadata.model_copy(update=update), written.metadata_props)
    return written


def _write_out(model: ir.Model, scan: ScanView, count: int) -> None:
    """Put the nodes of all iterations in the place of a Scan."""
    graph, node = model.graph, scan.node
    share_constants(graph, scan.body)
    states: list[ir.Value | None] = scan.initial
    wholes, after = scan.pasts, scan.presents
    for t in range(count):
        number = iteration_number(graph, t)
        pasts = [
            _part(value, row, scan.name, t)
            for value, row in zip(wholes, scan.past_rows, strict=True)
        ]
        nodes, given = copy_iteration(
            scan.body, iteration_prefix(t, scan.name), [number, *states, *pasts], names=(scan.name,)
        )
        graph.insert_before(node, nodes)
        states = list(given[: len(scan.initial)])
        presents = given[len(given) - len(pasts) :]
        graph.inputs.extend(pasts)
        if t == 0:
            _read_sizes_of(wholes, pasts, node, count)
        for whole, present in zip(after, presents, strict=True):
            present.name = _part_name(whole.name or "", scan.name, t)
            graph.outputs.append(present)
    for last, final in zip(states, scan.final, strict=True):
        if last is not None:
            ir.convenience.replace_all_uses_with(final, last, replace_graph_outputs=True)
    for present in after:
        graph.outputs.remove(present)
    for past in wholes:
        if past is not None:
            graph.inputs.remove(past)
    graph.remove(node, safe=False)
    dismantle(node)


def _read_sizes_of(
    wholes: list[ir.Value | None], pasts: list[ir.Value], scan: ir.Node, count: int
) -> None:
    """Let what asks for the size of the whole cache ask for that of an iteration's, in place."""
    for whole, past in zip(wholes, pasts, strict=True):
        for node in [] if whole is None else list(whole.consumers()):
            if node is scan:
                continue
            start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", -1)
            if node.op_type == "Shape" and 0 < start < end and whole is not None:
                node.replace_input_with(0, past)
                node.attributes["start"] = ir.AttrInt64("start", start - 1)
                node.attributes["end"] = ir.AttrInt64("end", end - 1)
            elif node.op_type == "Shape" and (start, end) == (0, 1) and scan.graph is not None:
                rows = add_initializer(
                    scan.graph, f"loopedge.rows.{count}", np.array([count], np.int64)
                )
                ir.convenience.replace_all_uses_with(node.outputs[0], rows)
                scan.graph.remove(node, safe=True)
            else:
                raise InputError(f"{node.name} reads the cache beside {scan.name}")


def _part(whole: ir.Value | None, row: ir.Value, core: str, t: int) -> ir.Value:
    """Return the input that holds the cache of one iteration."""
    if whole is None:
        raise InputError(f"{core} has a cache that is not given")
    shape = None if whole.shape is None else ir.Shape(list(whole.shape)[1:])
    return ir.Value(
        name=_part_name(whole.name or "", core, t), type=whole.type or row.type, shape=shape
    )


def _part_name(name: str, core: str, t: int) -> str:
    """Return what ``past.core.0.key`` is called in iteration ``t``: ``past.core.<t>.0.key``."""
    side, _, rest = name.partition(f".{core}.")
    return f"{side}.{core}.{t}.{rest}"
