"""Which linears and tables the user named: what stays in float, what is stored by its weight alone."""

from collections.abc import Collection, Sequence

import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.graph.weights import linears, loop_name
from loopedge.quantizer.embedding import find_embeddings

__all__ = ["kept_in_float", "weight_only_nodes"]


def kept_in_float(model: ir.Model, keep: Sequence[str]) -> dict[str, str]:
    """Return the nodes and tables that the names mean (in every iteration), each with its reason."""
    tables = [item.weight.name or "" for item in find_embeddings(model)]
    kept = {*_named(model, keep, "keep", tables), *(name for name in keep if name in tables)}
    for item in linears(model):  # the head of a table that is kept
        if item.weight.name in kept:
            kept.add(item.node.name or "")
    return dict.fromkeys(sorted(kept), "kept in float on request")


def weight_only_nodes(model: ir.Model, names: Sequence[str], kept: Collection[str]) -> set[str]:
    """Return the nodes whose weights alone are asked for, and those that share a weight with them."""
    named = _named(model, names, "store by its weight alone")
    items = linears(model)
    weights = {item.weight for item in items if item.node.name in named}
    found = {item.node.name or "" for item in items if item.weight in weights}
    both = sorted(found & set(kept))
    if both:
        raise InputError(f"{both[0]} is to be kept in float and to be weight-only: choose one")
    return found


def _named(
    model: ir.Model, names: Sequence[str], purpose: str, others: Collection[str] = ()
) -> set[str]:
    """Return the linears that the names mean, in every iteration."""
    nodes = {item.node.name or "": loop_name(item.node) for item in linears(model)}
    for name in names:
        if name not in {*nodes, *nodes.values(), *others}:
            known = ", ".join([*nodes, *others])
            raise InputError(f"there is no linear {name} to {purpose}, there are {known}")
    return {node for node, general in nodes.items() if node in names or general in names}
