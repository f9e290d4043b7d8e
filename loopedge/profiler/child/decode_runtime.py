"""A file that decodes, in the measured process: one token behind a text that fills its cache."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from loopedge.profiler.child.ort_runtime import OrtRuntime
from loopedge.runtime.decoding.cache_buffers import CacheBuffers, cache_ports

__all__ = ["DecodeRuntime"]

CACHE_TYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(int8)": np.dtype(np.int8),
    "tensor(uint8)": np.dtype(np.uint8),
}
IDS, LENGTHS, LOGITS = "input_ids", "lengths", "logits"


class DecodeRuntime(OrtRuntime):
    """A session whose cache is bound in place; each run computes the same token.

    Args:
        request: As for `OrtRuntime`, and ``cache``: ``rows``, the iterations of each port, ``batch`` and ``capacity``, the
            positions that there is room for.
    """

    def load(self) -> str:
        """Create the session and its buffers; return the provider that runs it."""
        provider = super().load()
        asked = self.request["cache"]
        ports = cache_ports(self.session, CACHE_TYPES)
        self.buffers = CacheBuffers(
            ports, rows=asked["rows"], batch=asked["batch"], capacity=asked["capacity"]
        )
        self.binding = self.session.io_binding()
        self.buffers.bind(self.binding, asked["rows"])
        self.values = {
            name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in self.inputs.items()
        }
        for name, value in self.values.items():
            self.binding.bind_ortvalue_input(name, value)
        self.binding.bind_output(LOGITS)
        return provider

    def run(self) -> None:
        """Compute the token once."""
        self.session.run_with_iobinding(self.binding)

    def prefill(self) -> None:
        """Compute the whole text at once, from an empty cache, and its last token's logits."""
        prompt = np.tile(self.inputs[IDS], (1, int(self.inputs[LENGTHS].max())))
        self.binding.bind_ortvalue_input(IDS, ort.OrtValue.ortvalue_from_numpy(prompt))
        try:
            self.session.run_with_iobinding(self.binding)
        finally:
            self.binding.bind_ortvalue_input(IDS, self.values[IDS])

    def save(self, path: Path) -> None:
        """Compute the token once and write its logits as ``.npz``."""
        self.run()
        np.savez(path, **{LOGITS: self.binding.get_outputs()[-1].numpy()})  # it was bound last
