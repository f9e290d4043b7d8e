"""PyTorch eager in the measured process: what the model costs before it is exported."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from loopedge.model.checkpoint import load
from loopedge.model.contract import as_tuple

__all__ = ["TorchRuntime"]


class TorchRuntime:
    """A checkpoint on fixed inputs, in the order of the exported model's.

    Args:
        request: What the parent asked for: ``model``, a ``model.pt``, ``inputs``, ``threads``, ``loops``
            or None, and ``options``, names of inputs that are none of the prelude's.
    """

    def __init__(self, request: dict[str, Any]) -> None:
        torch.set_num_threads(request["threads"])
        with np.load(request["inputs"], allow_pickle=False) as stored:
            self.inputs = [
                torch.from_numpy(stored[name])
                for name in stored.files
                if name not in request["options"]
            ]
        self.request = request
        self.assigned: dict[str, dict[str, int]] = {}

    def load(self) -> str:
        """Load the checkpoint; return what runs it."""
        self.module = load(self.request["model"]).eval()
        return "PyTorch eager"

    @torch.no_grad()
    def run(self) -> Any:
        """Run the model once."""
        return self.module(*self.inputs, loops=self.request["loops"])

    def prefill(self) -> None:
        """Refuse: only a model that decodes reads prompts."""
        raise ValueError("the model does not decode")

    def save(self, path: Path) -> None:
        """Run the model once and write its outputs as ``.npz``."""
        np.savez(path, *[output.numpy() for output in as_tuple(self.run())])

    def end_trace(self) -> str:
        """Refuse: eager PyTorch writes no trace of ONNX Runtime's kind."""
        raise ValueError("eager PyTorch writes no trace")
