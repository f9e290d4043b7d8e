"""Whether ONNX Runtime's graph optimizers have anything to do in a file."""

import tempfile
from collections import Counter
from pathlib import Path

from loopedge.artifact.reading.onnx_file import parse_onnx
from loopedge.errors import LoopedgeError
from loopedge.runtime.graph_file import data_entries, write_graph
from loopedge.runtime.session_options import session_options

__all__ = ["nothing_to_optimize"]

FOLDED = {("", "Gather"), ("", "Unsqueeze")}
"""Rows of tables at a constant place, and scales under another shape: the optimizers compute them once, a run in no
time."""


def nothing_to_optimize(path: Path) -> bool:
    """Let ONNX Runtime optimize a file as the memory profile ``low`` opens it, and compare the operators.

    The optimized graph is written beside the file, with its weights, and removed.

    Args:
        path: The ``.onnx`` file.

    Returns:
        Whether each operator is still there as often as in the file, apart from `FOLDED`: nothing was
        fused, and a session without optimizers runs the same graph. False where that cannot be known.
    """
    options = session_options(1, "low", model=path)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        optimized = Path(folder) / path.name
        try:
            write_graph(path, optimized, options, data_entries(optimized), purpose="optimized")
        except LoopedgeError:  # no room for a second file: then the optimizers stay on
            return False
        before, after = _operators(path), _operators(optimized)
    changed = {name for name in before | after if before[name] != after[name]}
    return changed <= FOLDED and all(after[name] <= before[name] for name in changed)


def _operators(path: Path) -> Counter[tuple[str, str]]:
    """Count the operators of a graph and of all bodies in it, by domain and name."""
    found: Counter[tuple[str, str]] = Counter()
    graphs = [parse_onnx(path).graph]
    while graphs:
        for node in graphs.pop().node:
            found["" if node.domain == "ai.onnx" else node.domain, node.op_type] += 1
            graphs += [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return found
