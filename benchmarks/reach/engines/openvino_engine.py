"""Compute with OpenVINO; runs in an environment of its own, which holds nothing of loopedge."""

from pathlib import Path
from typing import Any

import numpy as np
import openvino

VERSION = f"OpenVINO {openvino.__version__.partition('-')[0]}"


def compute(path: Path, feeds: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Return the outputs of a model, computed in float32 on one thread of the CPU."""
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(path, "CPU", settings)
    given = model(feeds)
    return {name: np.array(given[name]) for name in names}
