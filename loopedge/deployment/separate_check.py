"""Compare a file with its source in a process of its own.

Files of other tools can end the process that loads them: ONNX Runtime aborts on some graphs instead of raising an
error. A command must outlive that, and leave no file.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx_ir as ir

from loopedge.artifact.artifact import Artifact
from loopedge.deployment.verification import Difference, Tolerance, compare_with_source
from loopedge.errors import InputError, LoopedgeError, VerificationError
from loopedge.graph.operators import Fact, having

__all__ = ["compare_in_child", "tolerated_error"]

FLOAT32_ERROR, FLOAT16_ERROR = 1e-5, 2e-3
"""Largest allowed max |y - ref| / max |ref|: what the types resolve, over a few iterations."""

FLOAT16_STEP = 2.0**-11
"""Largest relative error of one rounding to float16: ONNX Runtime computes on in float32 where nodes follow each other, and
what goes from iteration to iteration of a Loop is rounded once more."""

ROUNDS = having(Fact.ROUNDING) | having(Fact.RANGED) | having(Fact.INT8) | having(Fact.BLOCKS)


def tolerated_error(graph: ir.Model, iterations: int) -> float:
    """Return how far two computations of a graph may be apart, one with Loops and one without.

    Args:
        graph: Whose types count.
        iterations: Of all Loops that were given back, or written out.
    """
    if not _is_narrow(graph):
        return FLOAT32_ERROR
    return max(FLOAT16_ERROR, FLOAT16_STEP * iterations)


def _is_narrow(graph: ir.Model) -> bool:
    """Tell whether a graph computes or stores floats of two bytes."""
    narrow = {ir.DataType.FLOAT16, ir.DataType.BFLOAT16}
    values = (output for node in graph.graph.all_nodes() for output in node.outputs)
    stored = graph.graph.initializers.values()
    return any(value.dtype in narrow for value in (*values, *stored))


def rounds_inside(graph: ir.Model) -> bool:
    """Tell whether a graph rounds activations to integers: then a last bit that differs grows by a step."""
    return any(node.op_type in ROUNDS for node in graph.graph.all_nodes())


def compare_in_child(
    source: Artifact,
    written: Path,
    tolerance: Tolerance,
    *,
    longest: int,
    threads: int | None,
    fixed: Mapping[str, int] | None = None,
) -> Difference:
    """Compare as `compare_with_source`, in a process of its own.

    A graph that rounds, to integers or to floats of two bytes, runs without optimizers: they fuse what is written out in
    another way than what stands in a body, and then it is rounded elsewhere.

    Raises:
        InputError: The source cannot be loaded.
        VerificationError: An output differs by more, or the process ended on one of the files.
    """
    request = {
        "source": str(source.path),
        "written": str(written),
        "tolerance": asdict(tolerance),
        "longest": longest,
        "threads": threads,
        "fixed": dict(fixed or {}),
        "optimized": not (rounds_inside(source.graph) or _is_narrow(source.graph)),
    }
    words = [sys.executable, "-P", "-m", __name__, json.dumps(request)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError as error:
        raise LoopedgeError(
            f"no process could be started to verify {written.name}: {error.strerror}"
        ) from error
    last = done.stdout.strip().splitlines()[-1:]
    if done.returncode or not last:
        raise VerificationError(
            f"{tolerance.file} was not verified: ONNX Runtime ended the process {_ending(done.returncode)} while it "
            f"compared {written.name} with {source.path}",
            hint=f"loopedge run {source.path}",
        )
    return _answer(json.loads(last[0]))


def _ending(code: int) -> str:
    if code >= 0:
        return f"with code {code}"
    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"


def _answer(answer: dict[str, Any]) -> Difference:
    error = answer.get("error")
    if error is None:
        return Difference(**answer["difference"])
    if error["kind"] == "VerificationError":
        raise VerificationError(
            error["message"],
            measured=error["measured"],
            allowed=error["allowed"],
            hint=error["hint"],
        )
    kind = InputError if error["kind"] == "InputError" else LoopedgeError
    raise kind(error["message"], hint=error["hint"])


def main() -> None:
    """Answer one request on the standard output, as JSON."""
    request = json.loads(sys.argv[1])
    answer: dict[str, Any]
    try:
        difference = compare_with_source(
            Artifact.open(request["source"]),
            Path(request["written"]),
            Tolerance(**request["tolerance"]),
            longest=request["longest"],
            threads=request["threads"],
            fixed=request["fixed"],
            optimized=request["optimized"],
        )
        answer = {"difference": asdict(difference)}
    except LoopedgeError as error:
        answer = {
            "error": {
                "kind": type(error).__name__,
                "message": error.message,
                "hint": error.hint,
                "measured": getattr(error, "measured", None),
                "allowed": getattr(error, "allowed", None),
            }
        }
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
