"""OpenVINO on the CPU."""

from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

CONFIG = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}


class Model:
    """A compiled model; the core that runs it is made here, since plugins are part of loading.

    Args:
        path: The ``.xml`` file.
        precision: ``f32``; None leaves OpenVINO its choice, bfloat16 where the processor has it.
        loops: What the input ``loops`` is given, where there is one.
    """

    def __init__(self, path: str, precision: str | None = None, loops: int | None = None) -> None:
        hint = {} if precision is None else {"INFERENCE_PRECISION_HINT": precision}
        self._model = ov.Core().compile_model(path, "CPU", CONFIG | hint)
        self._names = [sorted(item.get_names() or {""})[0] for item in self._model.inputs]
        self._loops = np.array(loops)

    def run(self, ids: NDArray[Any]) -> NDArray[Any]:
        """Return the logits of int64 (1, sequence)."""
        feeds = [self._loops if name == "loops" else ids for name in self._names]
        logits: NDArray[Any] = self._model(feeds)[0]
        return logits

    def set_loops(self, loops: int) -> None:
        """Run so many iterations from now on."""
        if "loops" not in self._names:
            raise ValueError("the graph has no input for the loop count")
        self._loops = np.array(loops)
