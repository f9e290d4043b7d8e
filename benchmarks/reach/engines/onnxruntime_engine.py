"""Compute with a release of ONNX Runtime; runs in an environment of its own."""

from pathlib import Path
from typing import Any

import onnxruntime

VERSION = f"ONNX Runtime {onnxruntime.__version__}"


def compute(path: Path, feeds: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Return the outputs of a model, computed on one thread of the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(names, feeds), strict=True))
