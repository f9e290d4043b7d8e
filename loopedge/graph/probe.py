"""Look inside the loop: make values of the core extra outputs, one row per iteration."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.graph.unrolling import CORE_NAME, find_core
from loopedge.graph.weights import iteration_of, loop_count

__all__ = ["probe", "stack_probed", "state_names"]

PREFIX = "probe/"
UNROLLED_CORE = f"{CORE_NAME}."


def state_names(model: ir.Model) -> list[str]:
    """Return the names of the states that an iteration hands on, without their iteration.

    They are the same in the loop form and in the unrolled form; an unrolled graph of one iteration
    names none.
    """
    loop = find_core(model)
    if loop is not None:
        return [value.name or "" for value in loop.attributes["body"].as_graph().outputs[1:]]
    names = []
    for node in model.graph:
        if iteration_of(node) != 0:
            continue
        names += [
            (output.name or "").replace(f"{CORE_NAME}.0/", f"{CORE_NAME}/", 1)
            for output in node.outputs
            if any(iteration_of(user) == 1 for user in output.consumers())
        ]
    return names


def probe(model: ir.Model, names: Iterable[str]) -> ir.Model:
    """Return a copy of the model that also gives values of the core.

    Args:
        model: Loop or unrolled form. Not modified.
        names: Names of values made in the core, as ``core/...`` (as in the loop form).

    Returns:
        A model with extra outputs: ``probe/<name>`` (loops, ...) in the loop form,
        ``probe/core.<t>/...`` in the unrolled one; read them with `stack_probed`.

    Raises:
        InputError: The core makes no value of a name.
    """
    probed = model.clone()
    loop = find_core(probed)
    if loop is not None:
        _probe_loop(probed, loop, list(names))
    else:
        _probe_unrolled(probed, list(names))
    return probed


def stack_probed(
    outputs: Mapping[str, npt.NDArray[Any]], names: Iterable[str]
) -> dict[str, npt.NDArray[Any]]:
    """Collect what a probed model gave: one array (loops, ...) per name."""
    stacked = {}
    for name in names:
        if PREFIX + name in outputs:
            stacked[name] = outputs[PREFIX + name]
            continue
        rest = name.removeprefix(f"{CORE_NAME}/")
        rows: list[npt.NDArray[Any]] = []
        while (key := f"{PREFIX}{UNROLLED_CORE}{len(rows)}/{rest}") in outputs:
            rows.append(outputs[key])
        stacked[name] = np.stack(rows)
    return stacked


def _probe_loop(model: ir.Model, loop: ir.Node, names: list[str]) -> None:
    body = loop.attributes["body"].as_graph()
    made = {output.name or "": output for node in body for output in node.outputs}
    for value in body.inputs:
        made[value.name or ""] = value
    extra = []
    for name in names:
        source = made.get(name)
        if source is None:
            raise InputError(f"the core makes no value {name}")
        copy = ir.node("Identity", [source], name=f"{PREFIX}{name}")
        copy.outputs[0].name = f"{PREFIX}{name}.row"
        copy.outputs[0].type, copy.outputs[0].shape = source.type, source.shape
        body.append(copy)
        body.outputs.append(copy.outputs[0])
        extra.append((name, source))
    states = len(loop.outputs)
    wider = ir.Node(
        "",
        "Loop",
        loop.inputs,
        loop.attributes.values(),
        num_outputs=states + len(extra),
        name=loop.name,
    )
    model.graph.insert_before(loop, wider)
    for old, new in zip(loop.outputs, wider.outputs[:states], strict=True):
        final_name, new.type, new.shape = old.name, old.type, old.shape
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        new.name = final_name
    model.graph.remove(loop)
    for (name, source), output in zip(extra, wider.outputs[states:], strict=True):
        output.name, output.type = f"{PREFIX}{name}", source.type
        if source.shape is not None:
            output.shape = ir.Shape([None, *source.shape])
        model.graph.outputs.append(output)


def _probe_unrolled(model: ir.Model, names: list[str]) -> None:
    # Nodes are looked up, not values: the last state may carry the name of a graph output.
    nodes = {node.name or "": node for node in model.graph}
    for name in names:
        for t in range(loop_count(model) or 1):
            source = _made_in(nodes, name, t)
            label = f"{PREFIX}{UNROLLED_CORE}{t}/{name.removeprefix(f'{CORE_NAME}/')}"
            copy = ir.node("Identity", [source], name=label)
            copy.outputs[0].name = label
            copy.outputs[0].type, copy.outputs[0].shape = source.type, source.shape
            model.graph.append(copy)
            model.graph.outputs.append(copy.outputs[0])


def _made_in(nodes: Mapping[str, ir.Node], name: str, t: int) -> ir.Value:
    """Find the value of iteration ``t`` that is called ``name`` in iteration 0."""
    rest = name.removeprefix(f"{CORE_NAME}/")
    for node in nodes.values():
        for index, output in enumerate(node.outputs):
            if output.name == f"{UNROLLED_CORE}0/{rest}":
                suffix = (node.name or "").removeprefix(f"{UNROLLED_CORE}0/")
                twin = nodes.get(f"{UNROLLED_CORE}{t}/{suffix}")
                if twin is not None:
                    return twin.outputs[index]
    raise InputError(f"iteration {t} of the core makes no value {name}")
