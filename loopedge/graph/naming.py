"""Names: what a pass makes up neither hides nor takes what a graph holds already.

In memory a graph refers to values by themselves, in a file by their names. So a pass may call what it makes as it likes
(`mark_made_up`), and `keep_names_apart` says at the end which of two values of one name gets another: what was made up.
"""

from collections.abc import Collection, Iterator

import onnx_ir as ir

from loopedge.graph.core.names import in_last_iteration, iteration_of

__all__ = [
    "free_name",
    "is_made_up",
    "keep_names_apart",
    "mark_made_up",
    "rename_foreign_steps",
    "rename_foreign_weights",
    "rename_repeated_values",
    "take_name",
]

MADE_UP = "loopedge.made_up"
FOREIGN_PREFIX = "model."
"""Before names of other tools' graphs that would mean something in a graph of loopedge."""


def mark_made_up(named: ir.Value | ir.Node) -> None:
    """Note that a pass made up the name of a value or node: it gets another one where the name is taken."""
    named.meta[MADE_UP] = True


def is_made_up(named: ir.Value | ir.Node) -> bool:
    """Tell whether a pass made up the name of a value or node."""
    return bool(named.meta.get(MADE_UP))


def take_name(named: ir.Value | ir.Node, name: str | None) -> None:
    """Give a value, or node, the name that another one had in the graph, and keep it from now on."""
    named.name = name
    named.meta.pop(MADE_UP, None)


def free_name(name: str, taken: Collection[str | None]) -> str:
    """Return the name, numbered where it is taken."""
    number, free = 0, name
    while free in taken:
        number += 1
        free = f"{name}.{number}"
    return free


def keep_names_apart(model: ir.Model) -> bool:
    """Let no value have the name of another one that it can be mistaken for, in place.

    A name in a body hides the same name of the graphs around it. Inputs and outputs of the model keep their names,
    and what stood in the graph goes before what a pass made up. Bodies beside each other may use the same names.
    No two nodes have the same name: ONNX Runtime refuses them in one graph, and linears are known by theirs.

    Returns:
        Whether anything was renamed.
    """
    ends = [*model.graph.inputs, *model.graph.outputs]
    values = list(dict.fromkeys([*ends, *_values(model.graph, deep=True)]))
    stay = [value for value in values if not value.meta.get(MADE_UP)]
    used = {value.name for value in values}
    known = {value.name for value in (*ends, *stay)}
    changed = _rename_hiding(model.graph, frozenset(), ends, used)
    for value in values:
        if not value.meta.get(MADE_UP) or value in ends:
            continue
        if value.name in known:
            value.name = free_name(value.name or "", used)
            used.add(value.name)
            changed = True
        known.add(value.name)
    return _rename_nodes(list(model.graph.all_nodes())) or changed


def _rename_nodes(nodes: list[ir.Node]) -> bool:
    """Number the names of nodes that another node has, those that a pass made up behind the others."""
    used, seen, changed = {node.name for node in nodes}, set[str](), False
    for node in sorted(nodes, key=lambda node: bool(node.meta.get(MADE_UP))):
        if node.name and node.name in seen:
            node.name = free_name(node.name, used)
            used.add(node.name)
            changed = True
        seen.add(node.name or "")
    return changed


def _rename_hiding(
    graph: ir.Graph, outer: frozenset[str | None], ends: list[ir.Value], used: set[str | None]
) -> bool:
    """Rename what hides a name of the graphs around, or has that of a value of the same graph."""
    changed = False
    own = {value.name for value in ends if value.graph is graph}
    for value in dict.fromkeys(_values(graph)):
        if value.meta.get(MADE_UP) or value in ends:
            continue
        if value.name and (value.name in own or value.name in outer):
            value.name = free_name(value.name, used)
            used.add(value.name)
            changed = True
        own.add(value.name)
    inside = outer | own
    for node in graph:
        for body in _bodies(node):
            changed |= _rename_hiding(body, inside, [], used)
    return changed


def _values(graph: ir.Graph, *, deep: bool = False) -> Iterator[ir.Value]:
    """Yield the named values of a graph, with ``deep`` those of the bodies that it holds too."""
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from (output for output in node.outputs if output.name)
        if deep:
            for body in _bodies(node):
                yield from _values(body, deep=True)


def _bodies(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def rename_foreign_weights(model: ir.Model, prefixes: tuple[str, ...]) -> None:
    """Rename initializers of another tool's graph that are called as what loopedge does not take for weights, in place.

    Inputs and outputs of the graph keep their names.

    Args:
        model: A graph that loopedge has not written: what it adds to one stands under these prefixes.
        prefixes: Of the names that mean something: timestep tables, scales, counts.
    """
    ends = {*model.graph.inputs, *model.graph.outputs}
    taken = {value.name for value in _values(model.graph, deep=True)}
    for graph in (model.graph, *model.graph.subgraphs()):
        for name, value in list(graph.initializers.items()):
            if name.startswith(prefixes) and value not in ends:
                value.name = free_name(FOREIGN_PREFIX + name, taken)
                taken.add(value.name)


def rename_repeated_values(model: ir.Model) -> None:
    """Rename values of bodies that have the name of another value, in place: what is looked into is known by its name."""
    ends = {*model.graph.inputs, *model.graph.outputs}
    values = list(dict.fromkeys([*_values(model.graph), *_values(model.graph, deep=True)]))
    taken, seen = {value.name for value in values}, set[str | None]()
    for value in values:
        if value.name and value.name in seen and value not in ends:
            value.name = free_name(value.name, taken)
            taken.add(value.name)
        seen.add(value.name)


def rename_foreign_steps(model: ir.Model) -> None:
    """Rename nodes of another tool's graph that are called as those of an iteration of loopedge, in place.

    ``core.0/x`` and ``core.1/x`` of another tool are two layers, not one of two iterations.
    """
    for node in model.graph.all_nodes():
        if iteration_of(node) is not None or in_last_iteration(node):
            node.name = f"{FOREIGN_PREFIX}{node.name}"
