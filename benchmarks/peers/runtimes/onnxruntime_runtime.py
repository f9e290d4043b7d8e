"""ONNX Runtime: as it comes, or as loopedge opens sessions and runs them."""

from contextlib import nullcontext
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from loopedge.runtime.denormals import POOL_ENTRIES, DenormalsAreZero
from loopedge.runtime.session_options import open_session, session_options

PROVIDER = "CPUExecutionProvider"
LOG_ERROR = 3


class Model:
    """A session.

    Args:
        path: The ``.onnx`` file.
        memory: loopedge's memory profile; None leaves ONNX Runtime's own choices.
        loops: What the input ``loops`` is given, where there is one.
        optimize: Whether the optimizers run, where loopedge opens the session.
        denormals_are_zero: Where ONNX Runtime's own choices are left: this option of it is set.
    """

    def __init__(
        self,
        path: str,
        memory: str | None = None,
        loops: int | None = None,
        *,
        optimize: bool = True,
        denormals_are_zero: bool = False,
    ) -> None:
        if memory is None:
            options = ort.SessionOptions()
            options.log_severity_level = LOG_ERROR
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            if denormals_are_zero:  # of the first session of a process, for the thread too
                for key, value in POOL_ENTRIES.items():
                    options.add_session_config_entry(key, value)
            self._session = ort.InferenceSession(path, options, providers=[PROVIDER])
        else:
            options = session_options(1, memory, model=path, optimize=optimize)
            self._session = open_session(path, options, PROVIDER, memory)
        self._inputs = [item.name for item in self._session.get_inputs()]
        self._loops = np.array(loops)
        self._scope = nullcontext if memory is None else DenormalsAreZero

    def run(self, ids: NDArray[Any]) -> NDArray[Any]:
        """Return the logits of int64 (1, sequence)."""
        feeds = {name: self._loops if name == "loops" else ids for name in self._inputs}
        with self._scope():
            logits: NDArray[Any] = self._session.run(None, feeds)[0]
        return logits

    def set_loops(self, loops: int) -> None:
        """Run so many iterations from now on."""
        if "loops" not in self._inputs:
            raise ValueError("the graph has no input for the loop count")
        self._loops = np.array(loops)
