"""torch.onnx.export, and ONNX Runtime's own quantizers."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process

from benchmarks.peers.convert import Job, Made
from benchmarks.peers.converters.counting import count_run_products
from benchmarks.peers.whole import calibration, load_whole, loop_count

__all__ = ["convert"]

KINDS = {
    "unrolled": "whole",
    "unrolled-last": "last",
    "table": "table",
    "untied": "untied",
    "while-loop": "while",
}
NEWEST_OPSET = 23
QUANTIZER_OPSET = 20
"""The quantizers write invalid files from opset 23."""


def convert(job: Job) -> Made:
    """Export, and quantize where the variant says so.

    ``unrolled[-last]``, ``table`` and ``untied`` are Python loops, ``while-loop`` is one of torch.while_loop;
    ``static`` and ``dynamic`` quantize the first, ``while-loop-static`` the last; ``-unprepared`` leaves out the
    preprocessing that ONNX Runtime recommends.
    """
    if job.variant in KINDS:
        return _made(_export(job, KINDS[job.variant], NEWEST_OPSET))
    kind = "while" if job.variant.startswith("while-loop") else "whole"
    exported = _export(job, kind, QUANTIZER_OPSET)
    target = job.target / "int8.onnx"
    prepared = exported
    if not job.variant.endswith("-unprepared"):
        prepared = job.target / "prepared.onnx"
        quant_pre_process(str(exported), str(prepared), skip_symbolic_shape=True)
    if job.variant.startswith("dynamic"):
        quantization.quantize_dynamic(
            str(prepared), str(target), per_channel=True, weight_type=quantization.QuantType.QInt8
        )
        return _made(target)
    quantization.quantize_static(
        str(prepared),
        str(target),
        _Reader(job.subject, with_loops=kind == "while"),
        per_channel=True,
        op_types_to_quantize=["MatMul"],  # the embedding's Gather gets a scale of the wrong size
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
    )
    return _made(target)


class _Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, subject: Path, *, with_loops: bool) -> None:
        self.samples = iter(calibration(subject))
        self.others = {"loops": np.array(loop_count(subject))} if with_loops else {}

    def get_next(self) -> dict[str, Any] | None:
        """Return the next sample."""
        sample = next(self.samples, None)
        return None if sample is None else {"input_ids": sample.numpy(), **self.others}


def _export(job: Job, kind: str, opset: int) -> Path:
    model, ids = load_whole(job.subject, kind)
    inputs: dict[str, torch.Tensor] = {"input_ids": ids}
    if kind == "while":
        inputs["loops"] = torch.tensor(loop_count(job.subject))
    program = torch.onnx.export(
        model, (), kwargs=inputs, dynamo=True, opset_version=opset, verbose=False
    )
    assert program is not None
    path = job.target / "model.onnx"
    # Weights beside the file take less memory; the quantizers want them within.
    program.save(path, external_data=opset == NEWEST_OPSET)
    return path


def _made(path: Path) -> Made:
    quantized, products = count_run_products(path)
    files = (path, *path.parent.glob(f"{path.name}.data"))
    return Made(path=path, files=files, quantized=quantized, products=products)
