"""ExecuTorch through its Python binding."""

from pathlib import Path
from typing import Any

import torch
from executorch.extension.pybindings import portable_lib
from executorch.runtime import Runtime
from numpy.typing import NDArray

portable_lib._unsafe_reset_threadpool(1)


class Model:
    """A program with its method loaded, which else the first run would do.

    Args:
        path: The ``.pte`` file.
    """

    def __init__(self, path: str) -> None:
        self._program = Runtime.get().load_program(Path(path))
        self._method = self._program.load_method("forward")

    def run(self, ids: NDArray[Any]) -> NDArray[Any]:
        """Return the logits of int64 (1, sequence)."""
        logits: torch.Tensor = self._method.execute((torch.from_numpy(ids),))[0]
        return logits.numpy()

    def set_loops(self, loops: int) -> None:
        """Refuse: a program's inputs are those of its export."""
        raise ValueError("the program has no input for the loop count")
