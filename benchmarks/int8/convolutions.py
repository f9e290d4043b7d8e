"""Does int8 make a convolution in a Loop faster, and by which operators?

Convolutions with kernels larger than one: the feed-forward of a Universal Transformer, a residual block of a deep-thinking
net, a convolutional forecaster. Each stands in the body of a Loop of `LOOPS` iterations, its weights in the graph around it,
as loopedge writes them. Four ways, in turns, one thread: `Conv` of floats; `QLinearConv`; `ConvInteger`; and
`MatMulIntegerToFloat` over windows that Slice and Concat unfold from the rounded input. Weights have seven bits, so that
products overflow on no processor; ranges are those of the data, and SQNR is against the floats. About a minute.

    python benchmarks/int8/convolutions.py [--output benchmarks/results/int8]
"""

import argparse
import itertools
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from loopedge.graph.agreement import noise_ratio
from loopedge.runtime.latency import time_in_turns, time_ratios
from loopedge.runtime.processor import FAST_INT8, this_processor
from loopedge.runtime.session_options import session_options

Array = npt.NDArray[Any]
LOOPS, RUNS, KERNEL = 4, 60, 3
LIMIT = 63
"""Largest magnitude of a stored weight: seven bits."""
LARGEST = 4.0
"""Values are drawn from a normal distribution and clipped there."""
STEP = np.float32(2 * LARGEST / 255)
MICROSOFT = "com.microsoft"


@dataclass(frozen=True)
class Subject:
    """A convolution of as many channels out as in, over one axis or two."""

    name: str
    channels: int
    sizes: tuple[int, ...]

    @property
    def weight(self) -> Array:
        """float32 (channels, channels, kernel, ...)."""
        shape = (self.channels, self.channels, *[KERNEL] * len(self.sizes))
        drawn = np.random.default_rng(0).normal(size=shape) / math.sqrt(math.prod(shape[1:]))
        return drawn.astype(np.float32)

    @property
    def state(self) -> Array:
        """float32 (1, channels, size, ...)."""
        drawn = np.random.default_rng(1).normal(size=(1, self.channels, *self.sizes))
        return drawn.clip(-LARGEST, LARGEST).astype(np.float32)


SUBJECTS = (
    Subject("forecaster", 32, (48,)),
    Subject("feed-forward, one axis", 256, (64,)),
    Subject("feed-forward, one axis, wide", 768, (128,)),
    Subject("deep-thinking block, two axes", 64, (16, 16)),
    Subject("deep-thinking block, two axes, wide", 128, (32, 32)),
)


class Body:
    """Nodes of a Loop body, and the constants of the graph around it."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def node(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node; return the name of its output."""
        name = f"{operator.lower()}.{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(operator, list(inputs), [name], name, domain=domain, **attributes)
        )
        return name

    def constant(self, name: str, value: npt.ArrayLike) -> str:
        """Add a constant; return its name."""
        if all(each.name != name for each in self.constants):
            self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name


def float_convolution(subject: Subject, body: Body) -> str:
    """Write Conv of floats."""
    weight = body.constant("w", subject.weight)
    return body.node("Conv", "s", weight, auto_pad="SAME_UPPER")


def qlinear_convolution(subject: Subject, body: Body) -> str:
    """Write QLinearConv between QuantizeLinear and DequantizeLinear."""
    values, scales = rounded(subject.weight)
    step, zero = body.constant("step", STEP), body.constant("zero", np.array(128, np.uint8))
    product = body.node(
        "QLinearConv",
        body.node("QuantizeLinear", "s", step, zero),
        step,
        zero,
        body.constant("w", values),
        body.constant("w.scale", scales),
        body.constant("w.zero", np.zeros(len(scales), np.int8)),
        step,
        zero,
        auto_pad="SAME_UPPER",
    )
    return body.node("DequantizeLinear", product, step, zero)


def integer_convolution(subject: Subject, body: Body) -> str:
    """Write ConvInteger, and the scales behind it."""
    values, scales = rounded(subject.weight)
    step, zero = body.constant("step", STEP), body.constant("zero", np.array(128, np.uint8))
    taken = body.node("QuantizeLinear", "s", step, zero)
    product = body.node(
        "ConvInteger", taken, body.constant("w", values), zero, auto_pad="SAME_UPPER"
    )
    floats = body.node("Cast", product, to=TensorProto.FLOAT)
    both = (scales * STEP).reshape(1, -1, *[1] * len(subject.sizes))
    return body.node("Mul", floats, body.constant("both", both))


def unfolded_product(subject: Subject, body: Body) -> str:
    """Write the product of integers over windows: (1, channels, ...) -> (1, ..., kernel x channels)."""
    axes = len(subject.sizes)
    values, scales = rounded(subject.weight)
    step, zero = body.constant("step", STEP), body.constant("zero", np.array(128, np.uint8))
    last = body.node("Transpose", "s", perm=[0, *range(2, axes + 2), 1])
    taken = body.node("QuantizeLinear", last, step, zero)
    around = body.constant("around", np.array([0, *[1] * axes, 0] * 2, np.int64))
    padded = body.node("Pad", taken, around, zero)
    windows = []
    for place in itertools.product(range(KERNEL), repeat=axes):
        ends = [start + size for start, size in zip(place, subject.sizes, strict=True)]
        names = [
            body.constant(f"{what}.{'.'.join(map(str, numbers))}", np.array(numbers, np.int64))
            for what, numbers in (("at", place), ("at", ends), ("axes", range(1, axes + 1)))
        ]
        windows.append(body.node("Slice", padded, *names))
    unfolded = body.node("Concat", *windows, axis=axes + 1)
    matrix = np.ascontiguousarray(
        values.transpose(*range(2, axes + 2), 1, 0).reshape(-1, subject.channels)
    )
    product = body.node(
        "MatMulIntegerToFloat",
        unfolded,
        body.constant("w", matrix),
        step,
        body.constant("w.scale", scales),
        zero,
        domain=MICROSOFT,
    )
    return body.node("Transpose", product, perm=[0, axes + 1, *range(1, axes + 1)])


WAYS: dict[str, Callable[[Subject, Body], str]] = {
    "Conv, float32": float_convolution,
    "QLinearConv": qlinear_convolution,
    "ConvInteger": integer_convolution,
    "MatMulIntegerToFloat, unfolded": unfolded_product,
}


def rounded(weight: Array) -> tuple[Array, Array]:
    """Return s8 values and a scale per output channel."""
    scales = np.abs(weight).reshape(len(weight), -1).max(axis=1) / LIMIT
    values = np.rint(weight / scales.reshape(-1, *[1] * (weight.ndim - 1)))
    return values.astype(np.int8), scales.astype(np.float32)


def looped(subject: Subject, write: Callable[[Subject, Body], str]) -> onnx.ModelProto:
    """Return s <- Clip(convolution(s)) in a Loop."""
    inside = Body()
    product = write(subject, inside)
    ends = [
        inside.constant(name, np.float32(value))
        for name, value in (("low", -LARGEST), ("high", LARGEST))
    ]
    inside.node("Clip", product, *ends)
    inside.nodes[-1].output[0] = "after"
    inside.nodes.append(helper.make_node("Identity", ["c"], ["d"]))
    shape = [1, subject.channels, *subject.sizes]
    state, after = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("s", "after")
    )
    number, condition, going_on = (
        helper.make_tensor_value_info(name, kind, [])
        for name, kind in (
            ("i", TensorProto.INT64),
            ("c", TensorProto.BOOL),
            ("d", TensorProto.BOOL),
        )
    )
    body = helper.make_graph(inside.nodes, "body", [number, condition, state], [going_on, after])
    outside = [
        *inside.constants,
        numpy_helper.from_array(np.array(LOOPS, np.int64), "loops"),
        numpy_helper.from_array(np.array(True), "go"),
    ]
    graph = helper.make_graph(
        [helper.make_node("Loop", ["loops", "go", "x"], ["y"], "core", body=body)],
        "looped",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        outside,
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


@dataclass(frozen=True)
class Measured:
    """One way: time and bytes of the weight against Conv of floats, and SQNR."""

    time_ratio: float
    bytes_ratio: float
    sqnr_db: float | None


def measure(subject: Subject) -> dict[str, Measured]:
    """Run all ways of one convolution in turns."""
    models = {name: looped(subject, write) for name, write in WAYS.items()}
    sessions = {
        name: ort.InferenceSession(
            model.SerializeToString(), session_options(1), ["CPUExecutionProvider"]
        )
        for name, model in models.items()
    }
    feeds = {"x": subject.state}
    outputs = {name: session.run(None, feeds)[0] for name, session in sessions.items()}

    def timed(session: ort.InferenceSession) -> Callable[[int], list[float]]:
        def run(count: int) -> list[float]:
            latencies_ms = []
            for _ in range(count):
                started = time.thread_time()
                session.run(None, feeds)
                latencies_ms.append((time.thread_time() - started) * 1e3)
            return latencies_ms

        return run

    rounds = time_in_turns([timed(each) for each in sessions.values()], [RUNS] * len(sessions))
    ratios = dict(zip(sessions, time_ratios(rounds), strict=True))
    exact = next(iter(outputs.values()))
    stored = {name: weight_bytes(model) for name, model in models.items()}
    return {
        name: Measured(
            ratios[name],
            stored[name] / subject.weight.nbytes,
            None if given is exact else noise_ratio([{"y": exact}], [{"y": given}]).db,
        )
        for name, given in outputs.items()
    }


def weight_bytes(model: onnx.ModelProto) -> int:
    """Return the bytes of the weight and its scales."""
    stored = {each.name: numpy_helper.to_array(each).nbytes for each in model.graph.initializer}
    return sum(size for name, size in stored.items() if name.split(".")[0] == "w")


def main() -> int:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder for convolutions.md")
    arguments = parser.parse_args()
    processor = this_processor()
    fast = "with" if not FAST_INT8.isdisjoint(processor.features) else "without"
    lines = [
        f"{processor.name}, {fast} instructions for products of bytes, one thread; ONNX Runtime {ort.__version__}; "
        f"kernel {KERNEL}, {LOOPS} iterations, {RUNS} runs each, in turns, by the thread's own time.",
        "",
        "| convolution | channels, sizes | way | time | bytes of the weight | SQNR, dB |",
        "|---|---|---|---|---|---|",
    ]
    for subject in SUBJECTS:
        sizes = " x ".join(map(str, subject.sizes))
        for name, each in measure(subject).items():
            db = "" if each.sqnr_db is None else f"{each.sqnr_db:.1f}"
            lines.append(
                f"| {subject.name} | {subject.channels}, {sizes} | {name} | {each.time_ratio:.2f} "
                f"| {each.bytes_ratio:.3f} | {db} |"
            )
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "convolutions.md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
