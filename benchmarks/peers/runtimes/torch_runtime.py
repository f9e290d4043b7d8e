"""PyTorch, eager or compiled, the model as it is."""

import os
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

import loopedge.model.transformer  # noqa: F401  part of the runtime, not of what loading costs
from loopedge.model.checkpoint import load

torch.set_num_threads(1)


class Model:
    """A module in evaluation mode.

    Args:
        path: The checkpoint.
        compiled: By ``torch.compile``; the first run compiles, or reads the cache that stands beside
            the checkpoint, so loading includes one.
        sequence: Positions of that first run.
    """

    def __init__(self, path: str, *, compiled: bool = False, sequence: int = 128) -> None:
        self._model = load(Path(path))
        self._call = torch.compile(self._model) if compiled else self._model
        self._loops: dict[str, int] = {}
        if compiled:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(path).with_name("cache"))
            with torch.inference_mode():
                self._call(torch.zeros((1, sequence), dtype=torch.int64))

    def run(self, ids: NDArray[Any]) -> NDArray[Any]:
        """Return the logits of int64 (1, sequence)."""
        with torch.inference_mode():
            logits: torch.Tensor = self._call(torch.from_numpy(ids), **self._loops)
        return logits.numpy()

    def set_loops(self, loops: int) -> None:
        """Run so many iterations from now on."""
        self._loops = {"loops": loops}
