"""Which execution provider runs which node; refuse a session whose products do not run where asked."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from loopedge.errors import ProviderError
from loopedge.graph.operators import CONTROL_FLOW, PRODUCTS
from loopedge.runtime.providers import CPU_PROVIDER

__all__ = [
    "MEMCPY",
    "PRODUCTS",
    "RECORD_ASSIGNMENT",
    "FallenNode",
    "Placement",
    "assigned_operators",
    "check_products",
    "elsewhere_notes",
    "read_placement",
]

RECORD_ASSIGNMENT = "session.record_ep_graph_assignment_info"
"""Session option that lets a session tell which provider each node was assigned to."""

REPEATING = ("Loop", "Scan")
SHAPES = frozenset(
    {"Cast", "Concat", "Constant", "Gather", "Identity", "Shape", "Slice", "Squeeze", "Unsqueeze"}
)
"""Operators that shapes and indices are computed with: small ones of them belong on the CPU."""
MEMCPY = ("MemcpyToHost", "MemcpyFromHost")
"""Nodes that ONNX Runtime inserts where a tensor changes sides."""


def assigned_operators(session: Any) -> dict[str, dict[str, int]]:
    """Count the operators that a session has assigned to each provider, Loop bodies included.

    Args:
        session: Created with `RECORD_ASSIGNMENT` set to 1.
    """
    found: dict[str, Counter[str]] = {}
    for part in session.get_provider_graph_assignment_info():
        counts = found.setdefault(str(part.ep_name), Counter())
        counts.update(str(node.op_type) for node in part.get_nodes())
    return {provider: dict(counts) for provider, counts in found.items()}


def check_products(
    assigned: Mapping[str, Mapping[str, int]], provider: str, model: object, *, hint: str
) -> None:
    """Refuse a model of whose matrix products and attentions none runs on the provider.

    One whose graph holds none at all must have some node there. A Loop or Scan that stays elsewhere with most of the
    products is refused too: what runs on the provider is then the little that is computed once.

    Args:
        assigned: As `assigned_operators` returns it.
        provider: That was asked for.
        model: Its file, for the message.
        hint: What can be done.

    Raises:
        ProviderError: The provider runs none of them, or not those of the Loop.
    """
    products = _products(assigned)
    kind, counts = "matrix products and attentions", products
    if not any(products.values()):
        kind, counts = "nodes", {name: sum(ops.values()) for name, ops in assigned.items()}
    if not counts.get(provider):
        there = ", ".join(f"{count} on {name}" for name, count in counts.items() if count)
        raise ProviderError(
            f"{provider} was asked for and runs none of the {kind} of {model}: {there or 'it has none'}",
            hint=hint,
        )
    away = {name: count for name, count in products.items() if name != provider and count}
    for op in REPEATING:
        stays = any(ops.get(op) for name, ops in assigned.items() if name != provider)
        if stays and sum(away.values()) > products.get(provider, 0):
            there = ", ".join(f"{count} on {name}" for name, count in away.items())
            raise ProviderError(
                f"{provider} was asked for and does not run the {op} of {model}: of its matrix products and "
                f"attentions {products[provider]} would run there, {there}",
                hint=f"loopedge unroll {model}",
            )


def elsewhere_notes(assigned: Mapping[str, Mapping[str, int]], provider: str) -> list[str]:
    """Say how many products, and how many other nodes that compute data, do not run on the provider."""
    away: Counter[str] = Counter()
    for name, ops in assigned.items():
        away.update(ops if name != provider else {})
    products = {op: count for op, count in away.items() if op in PRODUCTS}
    others = {
        op: count for op, count in away.items() if op not in {*PRODUCTS, *SHAPES, *CONTROL_FLOW}
    }
    total = sum(_products(assigned).values())
    notes = []
    if products:
        notes.append(
            f"{sum(products.values())} of {total} matrix products and attentions run on the CPU: "
            f"{_listed(products)}"
        )
    if others:
        nodes = sum(sum(ops.values()) for ops in assigned.values())
        notes.append(
            f"{sum(others.values())} of {nodes} nodes run on the CPU beside them: {_listed(others)}"
            if products
            else f"{sum(others.values())} of {nodes} nodes run on the CPU: {_listed(others)}"
        )
    return notes


def _products(assigned: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Count the matrix products and attentions of each provider."""
    return {
        name: sum(count for op, count in ops.items() if op in PRODUCTS)
        for name, ops in assigned.items()
    }


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {op}" for op, count in sorted(counts.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class FallenNode:
    """A node that ran on the CPU though another provider was asked for; ``runs`` in one inference."""

    op: str
    name: str
    runs: float

    def __str__(self) -> str:
        times = "" if self.runs == 1 else f", {self.runs:g} times"
        return f"{self.op} {self.name}{times}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where the nodes of a trace ran.

    ``fell_back``: nodes on the CPU that compute data; ``host_nodes``: those that belong there: shapes,
    and the bookkeeping of a Loop, whose trip count and condition live on the host. ``memcpy_nodes``:
    copies between the host and the device that ONNX Runtime inserted. ``replayed``: whether the last
    run launched no node by itself, as the replay of a CUDA graph does.
    """

    fell_back: list[FallenNode]
    host_nodes: list[FallenNode]
    memcpy_nodes: int
    replayed: bool


def read_placement(events: Iterable[Mapping[str, Any]]) -> Placement:
    """Read from a trace where each node ran.

    Args:
        events: All events of the trace, the first run too: replays of a CUDA graph hold no nodes.
    """
    listed = list(events)
    kernels = [event for event in listed if _is_kernel(event)]
    runs = sorted(
        (int(event["ts"]), int(event["ts"]) + int(event["dur"]))
        for event in listed
        if event.get("name") == "model_run"
    )
    traced = sum(
        any(first <= int(kernel["ts"]) <= last for kernel in kernels) for first, last in runs
    )
    memcpy, fallen = set(), Counter[tuple[str, str, bool]]()
    for event in kernels:
        op, name = str(event["args"]["op_name"]), _node_name(event)
        if op in MEMCPY:
            memcpy.add((op, name))
        elif event["args"].get("provider") == CPU_PROVIDER:
            fallen[op, name, _belongs_on_the_host(op, event["args"])] += 1
    nodes = [
        (FallenNode(op=op, name=name, runs=count / max(traced, 1)), host)
        for (op, name, host), count in sorted(fallen.items())
    ]
    return Placement(
        fell_back=[node for node, host in nodes if not host],
        host_nodes=[node for node, host in nodes if host],
        memcpy_nodes=len(memcpy),
        replayed=bool(runs)
        and not any(runs[-1][0] <= int(kernel["ts"]) <= runs[-1][1] for kernel in kernels),
    )


def _is_kernel(event: Mapping[str, Any]) -> bool:
    return str(event.get("name", "")).endswith("_kernel_time") and "op_name" in event.get(
        "args", {}
    )


def _node_name(event: Mapping[str, Any]) -> str:
    return str(event["name"]).removesuffix("_kernel_time")


def _belongs_on_the_host(op: str, args: Mapping[str, Any]) -> bool:
    """Tell whether a node computes shapes, indices or conditions: a few integers or bools."""
    if op in CONTROL_FLOW:
        return True
    outputs = [
        (kind, shape)
        for described in args.get("output_type_shape", [])
        for kind, shape in described.items()
    ]
    return bool(outputs) and all(
        kind in {"int64", "int32", "bool"} and len(shape) <= 1 for kind, shape in outputs
    )
