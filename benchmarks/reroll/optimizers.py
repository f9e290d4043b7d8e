"""What other tools make of an exported file: slimmers, ONNX Runtime's optimizers, float16, dynamic int8.

Runs in the environment of `requirements.txt`; it imports nothing of loopedge.
"""

import importlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort

__all__ = ["OPTIMIZERS", "optimize"]


def optimize(optimizer: str, source: Path, path: Path) -> Path:
    """Write what an optimizer makes of a file, and return it.

    Raises:
        Exception: Whatever the tool raises.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        OPTIMIZERS[optimizer](source, path)
    return path


def _onnxslim(source: Path, path: Path) -> None:
    slim: Any = importlib.import_module("onnxslim")
    onnx.save(slim.slim(str(source)), path)


def _onnxsim(source: Path, path: Path) -> None:
    sim: Any = importlib.import_module("onnxsim")
    simplified, same = sim.simplify(onnx.load(source))
    if not same:
        raise ValueError("onnxsim says that its result computes something else")
    onnx.save(simplified, path)


def _written_by_runtime(level: str) -> Callable[[Path, Path], None]:
    def write(source: Path, path: Path) -> None:
        options = ort.SessionOptions()
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
        options.optimized_model_filepath = str(path)
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])

    return write


def _fused(source: Path, path: Path) -> None:
    """Let the transformer optimizer of ONNX Runtime look for attention and norms, as for a BERT."""
    optimizer: Any = importlib.import_module("onnxruntime.transformers.optimizer")
    made = optimizer.optimize_model(str(source), model_type="bert", opt_level=0)
    made.save_model_to_file(str(path))


def _float16(source: Path, path: Path) -> None:
    float16: Any = importlib.import_module("onnxruntime.transformers.float16")
    onnx.save(float16.convert_float_to_float16(onnx.load(source), keep_io_types=True), path)


def _dynamic_int8(source: Path, path: Path) -> None:
    quantization: Any = importlib.import_module("onnxruntime.quantization")
    quantization.quantize_dynamic(source, path, weight_type=quantization.QuantType.QInt8)


OPTIMIZERS: dict[str, Callable[[Path, Path], None]] = {
    "onnxslim": _onnxslim,
    "onnxsim": _onnxsim,
    "ort basic": _written_by_runtime("ORT_ENABLE_BASIC"),
    "ort extended": _written_by_runtime("ORT_ENABLE_EXTENDED"),
    "ort all": _written_by_runtime("ORT_ENABLE_ALL"),
    "ort transformers": _fused,
    "float16": _float16,
    "dynamic int8": _dynamic_int8,
}
