"""What the nodes and values of the cores are called, by the place where they stand.

| place | name |
|---|---|
| body of the core's Loop, which is itself called ``core`` | ``core/x`` |
| iteration ``t`` of the unrolled form | ``core.<t>/x`` |
| last iteration, where it stands behind the Loop | ``core.last/x`` |

Where a graph has several cores they are called ``core``, ``core2``, ``core3`` and so on, in its order: ``core2/x``,
``core2.<t>/x``. (``core.2/x`` is of iteration 2 of the first.)

These names are written into files: an artifact of an earlier version has the same ones. Another tool
may have called nodes so: before weights are worked on they are renamed (`loopedge.graph.naming.rename_foreign_steps`).
"""

import re

import onnx_ir as ir

from loopedge.graph.metadata import CORE_PATTERN

__all__ = [
    "CORE_NAME",
    "LAST_PREFIX",
    "core_in_name",
    "core_name",
    "in_last_iteration",
    "in_last_name",
    "is_core",
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
"""Name of the Loop node of the first core; with a slash the prefix of what its body holds."""

LAST_PREFIX = f"{CORE_NAME}.last/"
"""Prefix of the nodes of a last iteration that stands behind the Loop."""

ITERATION = re.compile(rf"^({CORE_PATTERN})\.(\d+)/")
IN_CORE = re.compile(rf"^({CORE_PATTERN})(?:\.[^/]*)?/")


def core_name(place: int) -> str:
    """Return the name of the core at a place among those of a graph, from 0: ``core``, ``core2``, ``core3``."""
    return f"{CORE_NAME}{place + 1}" if place else CORE_NAME


def is_core(name: str | None) -> bool:
    """Tell whether a node is called as a core itself is."""
    return re.fullmatch(CORE_PATTERN, name or "") is not None


def core_in_name(name: str) -> str | None:
    """Return the core that a node of this name belongs to, in any form; None: to none."""
    match = IN_CORE.match(name)
    return match[1] if match else None


def iteration_prefix(t: int, core: str = CORE_NAME) -> str:
    """Return the prefix of what belongs to iteration ``t`` of a core in the unrolled form."""
    return f"{core}.{t}/"


def iteration_in_name(name: str) -> int | None:
    """Return the iteration of the unrolled form that a node of this name belongs to; None: to none."""
    match = ITERATION.match(name)
    return int(match[2]) if match else None


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
    """Tell the name of a node of a core, in any form; a node that left the Loop keeps such a name."""
    return core_in_name(name) is not None


def loop_name(node: ir.Node) -> str:
    """Return the name that a node has in the loop form: ``core.<t>/x`` is ``core/x``."""
    return loop_value_name(node, node.name or "")


def loop_value_name(node: ir.Node, name: str) -> str:
    """Return the name that a value of a node, or the node, has in the loop form."""
    match = ITERATION.match(node.name or "")
    return name if match is None else name.replace(match[0], f"{match[1]}/", 1)


def name_in_iteration(name: str, t: int) -> str | None:
    """Return the name that ``core/x`` has in iteration ``t`` of the unrolled form; None for other names."""
    core, slash, rest = name.partition("/")
    return iteration_prefix(t, core) + rest if slash and is_core(core) else None
