"""ggml-compiler's runtime, on the CPU."""

from pathlib import Path
from typing import Any

import numpy as np
from ggml_compiler.runtime import Session
from numpy.typing import NDArray


class Model:
    """A loaded artifact."""

    def __init__(self, path: str) -> None:
        self._session = Session(Path(path), backend="cpu", n_threads=1)
        self._start = np.zeros(1, np.int32)

    def run(self, ids: NDArray[Any]) -> NDArray[Any]:
        """Return the logits of int64 (1, sequence)."""
        logits: NDArray[Any] = self._session.run(input_ids=ids, start=self._start)["logits"]
        return logits

    def set_loops(self, loops: int) -> None:
        """Run so many iterations from now on."""
        self._session.set_symbol("loops", loops)
