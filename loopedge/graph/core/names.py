"""What the nodes and values of the core are called, by the place where they stand.

| place | name |
|---|---|
| body of the core's Loop, which is itself called ``core`` | ``core/x`` |
| iteration ``t`` of the unrolled form | ``core.<t>/x`` |
| last iteration, where it stands behind the Loop | ``core.last/x`` |

These names are written into files: an artifact of an earlier version has the same ones. Another tool
may have called nodes so: before weights are worked on they are renamed (`loopedge.graph.naming.rename_foreign_steps`).
"""

import re

import onnx_ir as ir

__all__ = [
    "CORE_NAME",
    "LAST_PREFIX",
    "in_last_iteration",
    "in_last_name",
    "is_core_name",
    "iteration_in_name",
    "iteration_of",
    "iteration_prefix",
    "last_state_name",
    "loop_name",
    "loop_value_name",
    "name_in_iteration",
]

CORE_NAME = "core"
"""Name of the Loop node; with a slash the prefix of what its body holds."""

LAST_PREFIX = f"{CORE_NAME}.last/"
"""Prefix of the nodes of a last iteration that stands behind the Loop."""

ITERATION = re.compile(rf"^{CORE_NAME}\.(\d+)/")


def iteration_prefix(t: int) -> str:
    """Return the prefix of what belongs to iteration ``t`` of the unrolled form."""
    return f"{CORE_NAME}.{t}/"


def iteration_in_name(name: str) -> int | None:
    """Return the iteration of the unrolled form that a node of this name belongs to; None: to none."""
    match = ITERATION.match(name)
    return int(match[1]) if match else None


def iteration_of(node: ir.Node) -> int | None:
    """Return the iteration of the unrolled form that a node belongs to; None: to none."""
    return iteration_in_name(node.name or "")


def in_last_name(name: str | None) -> bool:
    """Tell whether a name is that of a node or value of a last iteration that stands behind the Loop."""
    return (name or "").startswith(LAST_PREFIX)


def in_last_iteration(node: ir.Node) -> bool:
    """Tell whether a node of the loop form is of the last iteration, where that stands behind the Loop."""
    return in_last_name(node.name)


def last_state_name(state: int) -> str:
    """Return the name of a state after a last iteration that stands behind the Loop."""
    return f"{LAST_PREFIX}state.{state}"


def is_core_name(name: str) -> bool:
    """Tell the name of a node of the core, in any form; a node that left the Loop keeps such a name."""
    return name.startswith((f"{CORE_NAME}/", f"{CORE_NAME}."))


def loop_name(node: ir.Node) -> str:
    """Return the name that a node has in the loop form: ``core.<t>/x`` is ``core/x``."""
    return loop_value_name(node, node.name or "")


def loop_value_name(node: ir.Node, name: str) -> str:
    """Return the name that a value of a node, or the node, has in the loop form."""
    t = iteration_of(node)
    return name if t is None else name.replace(iteration_prefix(t), f"{CORE_NAME}/", 1)


def name_in_iteration(name: str, t: int) -> str | None:
    """Return the name that ``core/x`` has in iteration ``t`` of the unrolled form; None for other names."""
    rest = name.removeprefix(f"{CORE_NAME}/")
    return None if rest == name else iteration_prefix(t) + rest
