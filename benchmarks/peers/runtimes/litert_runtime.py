"""LiteRT's interpreter, with XNNPACK, which is what it runs by default."""

from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray


class Model:
    """An interpreter with its tensors allocated.

    Args:
        path: The ``.tflite`` file.
    """

    def __init__(self, path: str) -> None:
        self._interpreter = Interpreter(model_path=path, num_threads=1)
        self._interpreter.allocate_tensors()
        (self._input,) = self._interpreter.get_input_details()
        (self._output,) = self._interpreter.get_output_details()

    def run(self, ids: NDArray[Any]) -> NDArray[Any]:
        """Return the logits of int64 (1, sequence)."""
        self._interpreter.set_tensor(self._input["index"], ids.astype(self._input["dtype"]))
        self._interpreter.invoke()
        logits: NDArray[Any] = self._interpreter.get_tensor(self._output["index"])
        if logits.dtype == np.int8:  # the graph ends quantized
            scale, zero_point = self._output["quantization"]
            logits = (logits.astype(np.float32) - zero_point) * np.float32(scale)
        return logits

    def set_loops(self, loops: int) -> None:
        """Refuse: a model's inputs are those of its conversion."""
        raise ValueError("the model has no input for the loop count")
