"""What engines ask of QuantizeLinear and DequantizeLinear pairs: one row per engine, with where each rule is written.

Linears stand between pairs: what one reads is rounded by one scale per tensor, its weight by one scale per output
channel or per tensor. A bias is added in float, behind the product: nowhere a pair of its own. All else stays in
float, for norms, attention and activations have no integer form that all of these engines share.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.options import option

__all__ = ["COMMON", "TARGETS", "IntegerType", "Target", "target_of"]

PRIMITIVE_OPSET = 20
"""Attention and RMSNormalization came with opset 23: in files of this one they are written out."""

WIDE_OPSET = 21
"""From which QuantizeLinear gives 16 bits: https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegerType:
    """Integers that an activation is rounded to.

    ``symmetric``: zero is the zero point, and the largest magnitude is the same on both sides.
    """

    dtype: np.dtype[Any]
    symmetric: bool

    @property
    def name(self) -> str:
        """The type as ONNX and numpy call it."""
        return str(self.dtype)

    @property
    def bits(self) -> int:
        """Bits of a value."""
        return 8 * self.dtype.itemsize

    def rounding(self, low: float, high: float) -> tuple[np.float32, np.generic]:
        """Return scale and zero point of a range; zero is always exact.

        Args:
            low: Smallest value.
            high: Largest value.
        """
        least, most = min(low, 0.0), max(high, 0.0)
        limits = np.iinfo(self.dtype)
        smallest = float(np.finfo(np.float32).tiny)
        if self.symmetric:
            scale = max(max(-least, most) / limits.max, smallest)
            return np.float32(scale), self.dtype.type(0)
        scale = max((most - least) / (limits.max - limits.min), smallest)
        zero = np.rint(limits.min - least / scale)
        return np.float32(scale), self.dtype.type(np.clip(zero, limits.min, limits.max))


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What an engine asks.

    ``per_channel``: its products take a scale per output channel of a weight. ``unsigned_weights``: it takes weights as
    uint8 with the zero point 128; else int8 with the zero point 0. ``apart``: operators that it leaves to the CPU, so that
    the graph goes to it in pieces. ``sources`` say where that is written, ``note`` what a user of the file must know, where
    there is something.
    """

    name: str
    engine: str
    activations: IntegerType
    per_channel: bool = True
    unsigned_weights: bool = False
    apart: tuple[str, ...] = ()
    sources: tuple[str, ...]
    note: str | None = None

    def notes(self, model: ir.Model) -> list[str]:
        """Say what a user of a file for this engine must know.

        Args:
            model: The graph of the file.
        """
        found = Counter(node.op_type for node in model.graph.all_nodes() if not node.domain)
        left = [f"{found[name]} {name}" for name in self.apart if name in found]
        notes = [] if self.note is None else [self.note]
        if left:
            notes.append(
                f"{self.engine} may leave {', '.join(left)} to the CPU, and get the graph in pieces: "
                f"{option('opset', PRIMITIVE_OPSET, command='export model.pt')} writes them in smaller operators"
            )
        return notes

    def check_opset(self, opset: int, source: str | Path) -> None:
        """Refuse a graph whose operators do not round to so many bits.

        Raises:
            InputError: As said.
        """
        if self.activations.bits > 8 and opset < WIDE_OPSET:
            raise InputError(
                f"{option('target', self.name)} rounds activations to {self.activations.name}, which needs opset "
                f"{WIDE_OPSET}; {source} has opset {opset}",
                hint=option("opset", 23, command="export model.pt"),
            )


FUSED = ("Attention", "RMSNormalization")
"""Operators of opset 23 that the OpenVINO plug-in of ONNX Runtime leaves to the CPU (benchmarks/int8/qdq.py), and that the
lists of the QNN and CoreML providers lack."""

SIGNED = IntegerType(dtype=np.dtype(np.int8), symmetric=True)
UNSIGNED = IntegerType(dtype=np.dtype(np.uint8), symmetric=False)
WIDE = IntegerType(dtype=np.dtype(np.uint16), symmetric=False)

ORT = "https://github.com/microsoft/onnxruntime/blob/main"
ORT_DOCS = "https://onnxruntime.ai/docs"
COMMON = "common"
"""The target where none is named."""

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target(
            name=COMMON,
            engine="an accelerator",
            activations=SIGNED,
            apart=FUSED,
            sources=("what the rows of tensorrt, openvino, coreml and xnnpack share",),
        ),
        Target(
            name="qnn",
            engine="ONNX Runtime's QNN provider (Qualcomm)",
            # MatMul on HTP takes (uint8, uint8), (uint8, uint16) and (uint16, uint8): the page's table of operators. The
            # quantizer that the page names writes one scale per weight, and asks for uint16 activations.
            activations=WIDE,
            per_channel=False,
            unsigned_weights=True,
            sources=(
                f"{ORT_DOCS}/execution-providers/QNN-ExecutionProvider.html",
                f"{ORT}/onnxruntime/python/tools/quantization/execution_providers/qnn/quant_config.py",
                f"{ORT}/onnxruntime/core/providers/qnn/builder/opbuilder/matmul_op_builder.cc",
            ),
            apart=FUSED,
            note="QNN takes fixed sizes alone: fix batch and sequence of the inputs before the file is compiled for it",
        ),
        Target(
            name="openvino",
            engine="OpenVINO as a provider of ONNX Runtime",
            # Low precision transformations take s8 and u8 activations with any zero point, and weights per channel. Signed ones
            # without zero points save a correction of every product: benchmarks/int8/qdq.py.
            activations=SIGNED,
            apart=FUSED,
            sources=(
                "https://docs.openvino.ai/2025/documentation/openvino-extensibility/openvino-plugin-library/"
                "advanced-guides/low-precision-transformations.html",
                f"{ORT_DOCS}/execution-providers/OpenVINO-ExecutionProvider.html",
            ),
        ),
        Target(
            name="tensorrt",
            engine="TensorRT, alone and as a provider of ONNX Runtime",
            # Symmetric alone: zero points are 0; activations per tensor, weights per channel.
            activations=SIGNED,
            sources=(
                "https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-quantized-types.html",
                "https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/"
                "quantized-types-explicit-quantization.html",
            ),
        ),
        Target(
            name="coreml",
            engine="ONNX Runtime's CoreML provider (Apple)",
            activations=SIGNED,
            apart=FUSED,
            sources=(
                f"{ORT}/tools/ci_build/github/apple/coreml_supported_mlprogram_ops.md",
                f"{ORT_DOCS}/execution-providers/CoreML-ExecutionProvider.html",
            ),
            note="ONNX Runtime's CoreML provider lists neither QuantizeLinear nor DequantizeLinear: the linears of this "
            "file run in int8 on the CPU beside it",
        ),
        Target(
            name="xnnpack",
            engine="ONNX Runtime's XNNPACK provider (ARM, web)",
            # s8 with s8 or u8 with u8: "we do not handle u8s8"; weights per channel in s8 alone, zero points 0.
            activations=SIGNED,
            sources=(
                f"{ORT}/onnxruntime/core/providers/xnnpack/detail/utils.cc",
                f"{ORT_DOCS}/execution-providers/Xnnpack-ExecutionProvider.html",
            ),
            note="ONNX Runtime's XNNPACK provider takes pairs around convolutions, pooling and Softmax, none around MatMul: "
            "the linears of this file run in int8 on the CPU beside it",
        ),
    )
}


def target_of(name: str | None) -> Target:
    """Return the row of a target; None: what most share.

    Raises:
        InputError: There is no such target.
    """
    found = TARGETS.get(name or COMMON)
    if found is None:
        raise InputError(
            f"target {name!r} is not known, known are {', '.join(TARGETS)}",
            hint=option("target", "openvino"),
        )
    return found
