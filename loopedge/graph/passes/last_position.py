"""Give the outputs of the last position alone: what a language model that generates needs."""

import numpy as np
import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.graph.editing import add_initializer, make_node
from loopedge.graph.shapes import known_shape
from loopedge.options import option

__all__ = ["keep_last_position"]

SEQUENCE_AXIS = 1


def keep_last_position(model: ir.Model, length: int | None = None) -> list[str]:
    """Let outputs (batch, sequence, ...) become (batch, 1, ...), those of the last position, in place.

    Args:
        model: A graph whose free sequence axis is called ``sequence``.
        length: The number of positions, where it is fixed.

    Returns:
        The names of these outputs; others stay as they are.

    Raises:
        InputError: No output has a position axis.
    """
    graph, kept = model.graph, []
    bounds = [
        add_initializer(graph, f"loopedge.rows.{bound}", np.array([bound], np.int64))
        for bound in (-1, 2**31 - 1, SEQUENCE_AXIS)
    ]
    for index, value in enumerate(list(graph.outputs)):
        shape = known_shape(value)
        if shape is None or len(shape) < 3 or shape[SEQUENCE_AXIS] not in {"sequence", length}:
            continue
        name = value.name or f"output_{index}"
        last = make_node("Slice", [value, *bounds], f"coda/last.{index}")
        last.outputs[0].type = value.type
        last.outputs[0].shape = ir.Shape([shape[0], 1, *shape[2:]])
        graph.append(last)
        graph.outputs[index] = last.outputs[0]
        value.name, last.outputs[0].name = f"coda/{name}.all", name
        kept.append(name)
    if not kept:
        told = ", ".join(f"{value.name} {_text(value)}" for value in graph.outputs)
        raise InputError(
            f"no output has a value per position, there is none to keep the last of: {told}",
            hint=option("logits", "all"),
        )
    return kept


def _text(value: ir.Value) -> str:
    return (
        "of unknown shape"
        if (shape := known_shape(value)) is None
        else f"({', '.join(map(str, shape))})"
    )
