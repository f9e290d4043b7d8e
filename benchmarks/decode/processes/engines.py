"""What decodes, each behind the same three calls; an engine imports its runtime when it is made ready."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["ENGINES", "Engine"]

Ids = NDArray[np.int64]
Logits = NDArray[np.float32]


class Engine(Protocol):
    """One text at a time; it is loaded by `open`, so that the memory of imports is known before."""

    def open(self, request: Mapping[str, Any]) -> None:
        """Load ``file`` for ``context`` positions and ``threads``, with the rest of the request as options."""

    def reset(self) -> None:
        """Forget the text."""

    def append(self, ids: Ids) -> Logits:
        """Put ids (sequence,) behind the text and return the last position's logits (vocabulary,)."""


class GeneratorEngine:
    """`loopedge.Generator`."""

    def __init__(self) -> None:
        importlib.import_module("onnxruntime")
        self.library: Any = importlib.import_module("loopedge.runtime.generator")

    def open(self, request: Mapping[str, Any]) -> None:
        """Load."""
        self.generator = self.library.Generator(
            request["file"],
            context=request["context"],
            threads=request["threads"],
            loops=request.get("loops"),
            memory=request.get("memory"),
        )

    def reset(self) -> None:
        """Forget."""
        self.generator.reset()

    def append(self, ids: Ids) -> Logits:
        """Prefill, or one step."""
        call = self.generator.prefill if len(ids) > 1 else self.generator.step
        logits: Logits = call(ids)[0]
        return logits


class RecomputationEngine:
    """`loopedge.Session` on a file without a cache: the whole text again for every token."""

    def __init__(self) -> None:
        importlib.import_module("onnxruntime")
        self.library: Any = importlib.import_module("loopedge.runtime.session")
        self.text = np.zeros(0, np.int64)

    def open(self, request: Mapping[str, Any]) -> None:
        """Load."""
        self.session = self.library.Session(request["file"], threads=request["threads"])

    def reset(self) -> None:
        """Forget."""
        self.text = self.text[:0]

    def append(self, ids: Ids) -> Logits:
        """Compute everything."""
        self.text = np.concatenate([self.text, ids])
        logits: Logits = self.session.run({"input_ids": self.text[None]})["logits"][0, -1]
        return logits


class TorchEngine:
    """PyTorch, eager, with buffers for keys and values."""

    def __init__(self) -> None:
        self.torch: Any = importlib.import_module("torch")
        self.library: Any = importlib.import_module("benchmarks.decode.model")

    def open(self, request: Mapping[str, Any]) -> None:
        """Load."""
        self.torch.set_num_threads(request["threads"])
        model = self.library.make_model(request["shape"])
        self.decoder = self.library.CachedDecoder(model, request["context"])

    def reset(self) -> None:
        """Forget."""
        self.decoder.length = 0

    def append(self, ids: Ids) -> Logits:
        """Compute the new positions."""
        logits: Logits = self.decoder.run(self.torch.from_numpy(ids[None]))[0].numpy()
        return logits


class LlamaEngine:
    """llama.cpp."""

    def __init__(self) -> None:
        source: Any = importlib.import_module("benchmarks.decode.llama.source")
        self.module: Any = importlib.import_module("benchmarks.decode.llama.library")
        self.library = self.module.Library(source.BUILD / "bin" / "libllama.so")

    def open(self, request: Mapping[str, Any]) -> None:
        """Load."""
        self.decoder = self.module.LlamaDecoder(
            self.library,
            Path(request["file"]),
            context=request["context"],
            threads=request["threads"],
            cache_type=request["cache_type"],
            flash=request["flash"],
        )

    def reset(self) -> None:
        """Forget."""
        self.decoder.rewind(0)

    def append(self, ids: Ids) -> Logits:
        """Decode a batch."""
        logits: Logits = self.decoder.run(ids[None])[0]
        return logits


ENGINES: dict[str, type[Engine]] = {
    "generator": GeneratorEngine,
    "recomputation": RecomputationEngine,
    "torch": TorchEngine,
    "llama": LlamaEngine,
}
