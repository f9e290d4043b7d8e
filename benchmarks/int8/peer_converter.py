"""Quantize an ONNX file with another tool, in that tool's environment; the last line printed is what came of it, as JSON.

Started by `low_bits_peers.py`, with a job as JSON: ``variant``, ``source``, ``data`` (an .npz, first axis the samples)
and ``target``. Four bits are symmetric, in blocks of 32, as loopedge's are.
"""

import json
import logging
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

BLOCK, BATCH = 32, 16
Feeds = dict[str, NDArray[Any]]
STORED = {"MatMulNBits": 1, "DequantizeLinear": 0, "MatMulInteger": 1}
"""Operators that read a weight of integers, and where."""


def batches(path: str) -> Iterator[Feeds]:
    """Yield the samples that calibrate."""
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    total = len(next(iter(arrays.values())))
    for start in range(0, total, BATCH):
        yield {name: array[start : start + BATCH] for name, array in arrays.items()}


class Reader:
    """Calibration data as onnxruntime's quantizers read it."""

    def __init__(self, path: str) -> None:
        self.path, self.taken = path, 0  # it is copied: it holds no generator

    def get_next(self) -> Feeds | None:
        """Return the next batch."""
        self.taken += 1
        return next(islice(batches(self.path), self.taken - 1, None), None)

    def __iter__(self) -> Iterator[Feeds]:
        return batches(self.path)


def onnxruntime_nbits(algorithm: str) -> Callable[[dict[str, str]], onnx.ModelProto]:
    """Return a conversion by ``MatMulNBitsQuantizer``."""

    def convert(job: dict[str, str]) -> onnx.ModelProto:
        from onnxruntime.quantization import matmul_nbits_quantizer as peer

        class Data(Reader, peer.CalibrationDataReader):  # type: ignore[misc]
            pass

        configs: dict[str, Callable[[], Any]] = {
            "Default": lambda: peer.DefaultWeightOnlyQuantConfig(
                block_size=BLOCK, is_symmetric=True, bits=4, accuracy_level=4
            ),
            "RTN": peer.RTNWeightOnlyQuantConfig,
            "k_quant": peer.KQuantWeightOnlyQuantConfig,
            "HQQ": lambda: peer.HQQWeightOnlyQuantConfig(block_size=BLOCK, bits=4),
            "GPTQ": lambda: peer.GPTQWeightOnlyQuantConfig(
                calibration_data_reader=Data(job["data"]), block_size=BLOCK
            ),
        }
        quantizer = peer.MatMulNBitsQuantizer(
            onnx.load(job["source"]),
            bits=4,
            block_size=BLOCK,
            is_symmetric=True,
            accuracy_level=4,
            algo_config=configs[algorithm](),
        )
        quantizer.process()
        made: onnx.ModelProto = quantizer.model.model
        return made

    return convert


def tables(model: onnx.ModelProto) -> list[str]:
    """Return the nodes that gather rows of a stored table.

    NNCF takes timestep rows for embeddings; ONNX Runtime cannot run what it makes of them, nor of an embedding.
    """
    stored = {item.name for item in model.graph.initializer}
    gathers = [node for node in model.graph.node if node.op_type == "Gather"]
    return [node.name for node in gathers if node.input[0] in stored]


def nncf_weights(*, bits: int, data: bool) -> Callable[[dict[str, str]], onnx.ModelProto]:
    """Return a conversion by ``nncf.compress_weights``."""

    def convert(job: dict[str, str]) -> onnx.ModelProto:
        import nncf
        from nncf.quantization.advanced_parameters import (
            AdvancedCompressionParameters,
            GroupSizeFallbackMode,
        )

        model = onnx.load(job["source"])
        modes = nncf.CompressWeightsMode
        options: dict[str, Any] = {
            "mode": modes.INT4_SYM if bits == 4 else modes.INT8_SYM,
            "ignored_scope": nncf.IgnoredScope(names=tables(model)),
        }
        if bits == 4:
            options |= {
                "group_size": BLOCK,
                "all_layers": True,
                "advanced_parameters": AdvancedCompressionParameters(
                    group_size_fallback_mode=GroupSizeFallbackMode.IGNORE
                ),
            }
        if data:
            found = nncf.Dataset(list(batches(job["data"])))
            options |= {"dataset": found, "awq": True, "scale_estimation": True}
        compressed: onnx.ModelProto = nncf.compress_weights(model, **options)
        return compressed

    return convert


def exporters(job: dict[str, str]) -> onnx.ModelProto:
    """Convert by the quantizer that ``transformers.exporters`` has for ONNX files."""
    import nncf
    import onnx_ir
    from transformers.exporters.configs import ExportFormat
    from transformers.exporters.quantizers.quantizer_nncf import (
        NNCFOnnxQuantizer,
        NNCFWeightCompressionConfig,
    )

    mode = nncf.CompressWeightsMode.INT4_SYM
    config = NNCFWeightCompressionConfig(mode=mode, group_size=BLOCK)
    samples = list(batches(job["data"]))
    quantizer = NNCFOnnxQuantizer(config, calibration_dataset=samples)
    model = onnx_ir.load(job["source"])
    return onnx_ir.to_proto(quantizer.quantize(model, samples[0], ExportFormat.ONNX))


VARIANTS: dict[str, Callable[[dict[str, str]], onnx.ModelProto]] = {
    **{
        f"onnxruntime {name}": onnxruntime_nbits(name)
        for name in ("Default", "RTN", "k_quant", "HQQ", "GPTQ")
    },
    "NNCF int4": nncf_weights(bits=4, data=False),
    "NNCF int4, AWQ, scale estimation": nncf_weights(bits=4, data=True),
    "NNCF int8": nncf_weights(bits=8, data=False),
    "transformers.exporters, NNCF int4": exporters,
}


def stored_weights(model: onnx.ModelProto) -> tuple[int, int]:
    """Return how many nodes read a weight of integers, and how many such weights are stored."""
    read: list[str] = []

    def visit(graph: onnx.GraphProto) -> None:
        for node in graph.node:
            if node.op_type in STORED:
                read.append(node.input[STORED[node.op_type]])
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    visit(attribute.g)

    visit(model.graph)
    stored = [item.name for item in model.graph.initializer]
    known = set(read) & set(stored)
    return sum(name in known for name in read), sum(name in known for name in stored)


def main() -> None:
    """Convert, run one batch, and say what came of it."""
    logging.disable(logging.WARNING)
    job = json.loads(sys.argv[1])
    outcome: dict[str, Any] = {}
    try:
        model = VARIANTS[job["variant"]](job)
        onnx.save(model, job["target"])
        outcome["nodes"], outcome["weights"] = stored_weights(model)
        import onnxruntime as ort

        session = ort.InferenceSession(job["target"])
        session.run(None, next(batches(job["data"])))
    except Exception as error:  # a tool that cannot is a result
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        outcome["failed"] = f"{type(error).__name__}: {' '.join(lines)[:400]}"
    print("\n" + json.dumps(outcome))


if __name__ == "__main__":
    main()
