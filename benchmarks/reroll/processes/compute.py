"""Compute a file and what was made of it in ONNX Runtime, and print how far they are apart, as JSON.

A process of its own, for ONNX Runtime may end it: ``python -m benchmarks.reroll.processes.compute SOURCE TARGET FEEDS...``
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

__all__: list[str] = []

Arrays = dict[str, NDArray[Any]]


def open_session(path: Path) -> ort.InferenceSession:
    """Open a file with one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def outputs_of(session: ort.InferenceSession, stored: Arrays) -> Arrays:
    """Run a session on the inputs of a reference, by name."""
    feeds = {port.name: stored[f"input {port.name}"] for port in session.get_inputs()}
    names = [port.name for port in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def distance(given: NDArray[Any], expected: NDArray[Any]) -> float:
    """Return the largest difference against the largest value; infinity where shapes differ or one is NaN."""
    if given.shape != expected.shape:
        return float("inf")
    if not expected.size:
        return 0.0
    difference = float(np.abs(given.astype(np.float64) - expected).max())
    found = difference / (float(np.abs(expected).max()) or 1.0)
    return found if np.isfinite(found) else float("inf")


def count_nodes(graph: onnx.GraphProto) -> int:
    """Count the nodes of a graph and of the bodies in it."""
    bodies = (
        attribute.g
        for node in graph.node
        for attribute in node.attribute
        if attribute.type == onnx.AttributeProto.GRAPH
    )
    return len(graph.node) + sum(map(count_nodes, bodies))


def main() -> None:
    """Print ``error`` between both files, ``exact_error`` of the source to PyTorch, and node counts."""
    source, target, *references = map(Path, sys.argv[1:])
    nodes = [
        count_nodes(onnx.load(path, load_external_data=False).graph) for path in (source, target)
    ]
    one, two = open_session(source), open_session(target)
    error = exact = 0.0
    for reference in references:
        with np.load(reference) as opened:
            stored = dict(opened)
        expected, given = outputs_of(one, stored), outputs_of(two, stored)
        if list(expected) != list(given):
            raise SystemExit(f"outputs {list(given)}, not {list(expected)}")
        error = max([error, *(distance(given[name], expected[name]) for name in expected)])
        torch_outputs = [value for name, value in stored.items() if name.startswith("output ")]
        exact = max(
            [
                exact,
                *(distance(a, b) for a, b in zip(expected.values(), torch_outputs, strict=False)),
            ]
        )
    print(json.dumps({"error": error, "exact_error": exact, "nodes": nodes}))


if __name__ == "__main__":
    main()
