"""Where does looping win in decoding? The cache: one position through a block that is applied again and again.

Chains of bare products in one position: a block of some megabytes applied r times in a Loop (tied) against as many blocks
with weights of their own (untied), four bits (MatMulNBits) and float32. A block that fits in a core's own cache is read
from memory once per token. Takes two minutes.

    python -m benchmarks.decode.chains [--output benchmarks/results/decode]
"""

import argparse
import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from loopedge.profiler.machine import describe_machine

__all__ = ["Chain", "measure_chain"]

BLOCK = 32
WIDTHS = {"int4": 1024, "float32": 512}
"""d of the products: 0.66 MB in four bits, 1 MB in float32."""

PRODUCTS = (1, 2, 3, 4, 6, 8, 12, 16, 24)
"""Of a block."""

LOOPS = (6, 12)
ROUNDS, ROUND_MS = 7, 60
MB = 1e6


@dataclass(frozen=True, kw_only=True)
class Chain:
    """A block and what it takes: microseconds of processor time per product, tied and untied."""

    weights: str
    block_bytes: int
    loops: int
    tied_us: float
    untied_us: float

    @property
    def ratio(self) -> float:
        """Time of the tied chain against the untied one."""
        return self.tied_us / self.untied_us


def write_block(weights: str, products: int, seed: int) -> tuple[list[Any], list[Any], int]:
    """Return nodes from ``state`` to ``next``, their weights, and the bytes of these."""
    d = WIDTHS[weights]
    generator = np.random.default_rng(seed)
    nodes, arrays, read = [], {}, "state"
    for i in range(products):
        name, gives = f"w{seed}.{i}", "next" if i + 1 == products else f"p{i}"
        if weights == "int4":
            arrays[name] = generator.integers(0, 256, (d, d // BLOCK, BLOCK // 2), np.uint8)
            arrays[f"{name}.scale"] = np.full(d * d // BLOCK, 0.2 / d**0.5, np.float32)
            nodes.append(
                helper.make_node(
                    "MatMulNBits",
                    [read, name, f"{name}.scale"],
                    [gives],
                    domain="com.microsoft",
                    K=d,
                    N=d,
                    bits=4,
                    block_size=BLOCK,
                    accuracy_level=4,
                )
            )
        else:
            arrays[name] = generator.standard_normal((d, d), np.float32) / d**0.5
            nodes.append(helper.make_node("MatMul", [read, name], [gives]))
        read = gives
    initializers = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
    return nodes, initializers, sum(array.nbytes for array in arrays.values())


def make_chain(weights: str, products: int, loops: int, *, tied: bool) -> tuple[bytes, int]:
    """Return a model that applies a block ``loops`` times, or as many blocks once, and a block's bytes."""
    d = WIDTHS[weights]
    state = helper.make_tensor_value_info("inputs", TensorProto.FLOAT, [1, d])
    if tied:
        block, stored, size = write_block(weights, products, 0)
        body = helper.make_graph(
            [*block, helper.make_node("Identity", ["more"], ["again"])],
            "body",
            [
                helper.make_tensor_value_info("number", TensorProto.INT64, []),
                helper.make_tensor_value_info("more", TensorProto.BOOL, []),
                helper.make_tensor_value_info("state", TensorProto.FLOAT, [1, d]),
            ],
            [
                helper.make_tensor_value_info("again", TensorProto.BOOL, []),
                helper.make_tensor_value_info("next", TensorProto.FLOAT, [1, d]),
            ],
        )
        nodes = [helper.make_node("Loop", ["loops", "true", "inputs"], ["outputs"], body=body)]
        stored += [
            onnx.numpy_helper.from_array(np.array(loops, np.int64), "loops"),
            onnx.numpy_helper.from_array(np.array(True), "true"),
        ]
    else:
        nodes, stored, read = [], [], "inputs"
        for i in range(loops):
            block, own, size = write_block(weights, products, i)
            gives = "outputs" if i + 1 == loops else f"state{i}"
            for node in block:
                for names in (node.input, node.output):
                    renamed = [
                        {"state": read, "next": gives}.get(
                            name, name if name.startswith("w") else f"{name}.{i}"
                        )
                        for name in names
                    ]
                    del names[:]
                    names.extend(renamed)
            nodes, stored, read = [*nodes, *block], [*stored, *own], gives
    gives = helper.make_tensor_value_info("outputs", TensorProto.FLOAT, [1, d])
    graph = helper.make_graph(nodes, "chain", [state], [gives], stored)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString(), size


def measure_chain(weights: str, products: int, loops: int) -> Chain:
    """Measure both chains in turns."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    feeds = {"inputs": np.random.default_rng(0).standard_normal((1, WIDTHS[weights]), np.float32)}
    sessions, size = [], 0
    for tied in (True, False):
        model, size = make_chain(weights, products, loops, tied=tied)
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        session.run(None, feeds)
        sessions.append(session)
    begun = time.process_time()
    sessions[1].run(None, feeds)
    runs = max(3, int(ROUND_MS / 1e3 / max(time.process_time() - begun, 1e-5)))
    taken: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        for session, times in zip(sessions, taken, strict=True):
            session.run(None, feeds)
            begun = time.process_time()
            for _ in range(runs):
                session.run(None, feeds)
            times.append((time.process_time() - begun) / runs / products / loops * 1e6)
    tied_us, untied_us = (statistics.median(times) for times in taken)
    return Chain(
        weights=weights, block_bytes=size, loops=loops, tied_us=tied_us, untied_us=untied_us
    )


def table(chains: list[Chain]) -> list[str]:
    """Return the lines of the Markdown table."""
    lines = [
        "| weights | block, MB | applied | us per product, tied | untied | time |",
        "|---|---|---|---|---|---|",
    ]
    for chain in chains:
        times = f"{chain.tied_us:.1f} | {chain.untied_us:.1f} | {chain.ratio:.2f}"
        lines.append(
            f"| {chain.weights} | {chain.block_bytes / MB:.1f} | {chain.loops} | {times} |"
        )
    return lines


def main() -> int:
    """Measure every size and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--output", type=Path, help="folder for chains.md and chains.json")
    arguments = parser.parse_args()
    chains = []
    for weights in WIDTHS:
        for products in PRODUCTS:
            for loops in LOOPS:
                chains.append(measure_chain(weights, products, loops))
                print(table(chains[-1:])[-1], flush=True)
    if arguments.output:
        machine = describe_machine()
        arguments.output.mkdir(parents=True, exist_ok=True)
        head = f"{machine['cpu']}, ONNX Runtime {machine['onnxruntime']}, one thread, one position."
        (arguments.output / "chains.md").write_text("\n".join([head, "", *table(chains)]) + "\n")
        figures = {"machine": machine, "chains": [asdict(chain) for chain in chains]}
        (arguments.output / "chains.json").write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
