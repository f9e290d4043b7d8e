"""LiteRT from PyTorch, and AI Edge Quantizer."""

from pathlib import Path

import litert_torch
import numpy as np
import torch
from ai_edge_quantizer import quantizer, recipe
from ai_edge_quantizer.utils import tfl_flatbuffer_utils

from benchmarks.peers.convert import Job, Made
from benchmarks.peers.whole import calibration, load_whole, loop_count

__all__ = ["convert"]

FULLY_CONNECTED, BATCH_MATMUL, INT8 = 9, 126, 9
"""Codes of the file format: BuiltinOperator and TensorType."""


def convert(job: Job) -> Made:
    """Convert, and quantize where the variant says so."""
    path = job.target / "model.tflite"
    looped = job.variant == "while-loop"
    module, ids = load_whole(job.subject, "while" if looped else "whole")
    inputs = (ids, torch.tensor(loop_count(job.subject))) if looped else (ids,)
    litert_torch.convert(module, inputs).export(str(path))
    if job.variant in ("float32", "while-loop"):
        return _made(path)
    recipes = {"dynamic": recipe.dynamic_wi8_afp32, "static": recipe.static_wi8_ai8}
    tool = quantizer.Quantizer(str(path), recipes[job.variant]())
    ranges = None
    if tool.need_calibration:
        samples = [
            {"args_0": sample.numpy().astype(np.int32)} for sample in calibration(job.subject)
        ]
        ranges = tool.calibrate({"serving_default": samples}, num_threads=1)
    target = job.target / "int8.tflite"
    tool.quantize(ranges).export_model(str(target), overwrite=True)
    return _made(target)


def _made(path: Path) -> Made:
    """Count the products with a stored weight, and those whose weight has eight bits."""
    model = tfl_flatbuffer_utils.read_model(str(path))
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    quantized = products = 0
    for graph in model.subgraphs:
        for operator in graph.operators:
            if codes[operator.opcodeIndex] not in (FULLY_CONNECTED, BATCH_MATMUL):
                continue
            weight = graph.tensors[operator.inputs[1]]
            if model.buffers[weight.buffer].data is not None:
                products += 1
                quantized += weight.type == INT8
    return Made(path=path, files=(path,), quantized=quantized, products=products)
