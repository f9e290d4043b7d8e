"""Find what ONNX Runtime refuses, or dies of, in a graph that breaks no other rule."""

from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.graph.core.captures import bodies_of, captured_roundings

__all__ = ["check_loads", "unloadable_reasons"]


def unloadable_reasons(model: ir.Model) -> list[str]:
    """Say what keeps ONNX Runtime from loading a graph, one sentence each; empty where nothing is found.

    Bodies whose input is an initializer too (ONNX Runtime refuses them from 1.28.3 on, and read past the end of a
    buffer before), and what `loopedge.graph.core.captures` finds.
    """
    reasons = list(dict.fromkeys(_stored_inputs(model)))
    return [*reasons, *(found.sentence for found in captured_roundings(model))]


def check_loads(model: ir.Model, source: Path) -> None:
    """Refuse a graph that ONNX Runtime does not load.

    Raises:
        InputError: With the first of `unloadable_reasons`.
    """
    reasons = unloadable_reasons(model)
    if reasons:
        raise InputError(
            f"{source} cannot be loaded: {reasons[0]}", hint=f"loopedge inspect {source}"
        )


def _stored_inputs(model: ir.Model) -> Iterator[str]:
    for graph in [model.graph, *(function.graph for function in model.functions.values())]:
        for node in graph.all_nodes():
            for body in bodies_of(node):
                for value in body.inputs:
                    if value.is_initializer():
                        what = f"{node.op_type} {node.name or ''}".strip()
                        yield f"{what} hands {value.name!r} to its body, where an initializer has that name"
