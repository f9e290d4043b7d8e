"""Which linears and tables the user named: what stays in float, what is stored by its weight alone."""

from collections.abc import Collection, Sequence

import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.graph.core.names import loop_name
from loopedge.graph.integer_weights.embedding_rows import find_embeddings
from loopedge.graph.weight_reads import weight_reads
from loopedge.graph.weights import linears

__all__ = ["EVERY", "core_like_nodes", "kept_in_float", "weight_only_nodes"]

EVERY = "all"
"""Stands for every linear, where linears are named that are treated as the core's."""


def kept_in_float(model: ir.Model, keep: Sequence[str]) -> dict[str, str]:
    """Return the nodes and tables that the names mean, in every iteration, each with its reason.

    A linear that reads the weight of a named one is among them: the weight is stored once.
    """
    tables = [item.weight.name or "" for item in find_embeddings(model)]
    linear_nodes = {item.node for item in linears(model)}
    products = [read.node for read in weight_reads(model) if read.node not in linear_nodes]
    tables += [node.name or "" for node in products]
    named = _named(model, keep, "keep", tables)
    kept_tables = {name for name in keep if name in tables}
    return dict.fromkeys(
        sorted(_sharing(model, named, kept_tables) | kept_tables), "kept in float on request"
    )


def weight_only_nodes(model: ir.Model, names: Sequence[str], kept: Collection[str]) -> set[str]:
    """Return the nodes whose weights alone are asked for, and those that share a weight with them."""
    found = _sharing(model, _named(model, names, "store by its weight alone"))
    both = sorted(found & set(kept))
    if both:
        raise InputError(f"{both[0]} is to be kept in float and to be weight-only: choose one")
    return found


def core_like_nodes(
    model: ir.Model, names: Sequence[str], otherwise: Collection[str] = ()
) -> set[str]:
    """Return the nodes that are to be treated as the core's, and those that share a weight with them.

    Args:
        model: The float graph.
        names: Linears; `EVERY`: all of them.
        otherwise: Nodes that are kept in float or weight-only by their names.

    Raises:
        InputError: There is no such linear, or it is named for something else, too.
    """
    if EVERY in names:
        return {item.node.name or "" for item in linears(model)}
    found = _sharing(model, _named(model, names, "treat as the core's"))
    both = sorted(found & set(otherwise))
    if both:
        raise InputError(f"{both[0]} is to be treated as the core's and otherwise: choose one")
    return found


def _sharing(model: ir.Model, named: Collection[str], weights: Collection[str] = ()) -> set[str]:
    """Return the linears that read a weight of the named ones, or a weight of these names."""
    items = linears(model)
    read = {item.weight for item in items if item.node.name in named or item.weight.name in weights}
    return {item.node.name or "" for item in items if item.weight in read}


def _named(
    model: ir.Model, names: Sequence[str], purpose: str, others: Collection[str] = ()
) -> set[str]:
    """Return the linears that the names mean, in every iteration and in every part."""
    nodes = {item.node.name or "": loop_name(item.node) for item in linears(model)}
    whole = {node: _without_part(general) for node, general in nodes.items()}
    for name in names:
        if name not in {*nodes, *nodes.values(), *whole.values(), *others}:
            known = ", ".join([*nodes, *others])
            raise InputError(f"there is no linear {name} to {purpose}, there are {known}")
    exact = {*nodes, *nodes.values()}
    return {
        node
        for node, general in nodes.items()
        if not {node, general}.isdisjoint(names)
        or (whole[node] in names and whole[node] not in exact)
    }


def _without_part(name: str) -> str:
    """Return what a linear was called before it was split: part 3 of ``x`` is ``x.3``."""
    before, _, part = name.rpartition(".")
    return before if before and part.isdigit() else name
