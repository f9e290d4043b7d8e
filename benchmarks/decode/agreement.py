"""Whether products compute the same model: logits in uneven chunks against PyTorch's of the whole text."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.decode.model import SHAPES, make_model
from benchmarks.decode.processes.process import DecodingProcess, ProcessError
from benchmarks.decode.products import Product
from loopedge.graph.agreement import noise_ratio

__all__ = ["LEAST_DB", "agreement_db"]

LEAST_DB = 100.0
"""In float32; a product below it computes another model, or another arithmetic."""

LENGTH = 24
CHUNKS = ((0, 5), *((i, i + 1) for i in range(5, 15)), (15, LENGTH))


def agreement_db(products: Sequence[Product], shape: str, folder: Path) -> dict[str, float | str]:
    """Return by label the ratio of signal to noise in dB, or why there is none.

    Args:
        products: What is asked.
        shape: A key of `SHAPES`.
        folder: That holds the files.
    """
    vocabulary = SHAPES[shape].vocab_size
    ids = np.random.default_rng(0).integers(0, vocabulary, LENGTH)
    with torch.inference_mode():
        reference = make_model(shape)(torch.from_numpy(ids[None]))[0].numpy()
    wanted = reference[[end - 1 for _, end in CHUNKS]]
    found: dict[str, float | str] = {}
    with tempfile.TemporaryDirectory() as name:
        given, to = Path(name) / "ids.npy", Path(name) / "logits.npy"
        np.save(given, ids)
        for product in products:
            request = {
                "engine": product.engine,
                "shape": shape,
                "file": str(folder / product.file),
                "context": 64,
                "threads": 1,
                "vocab_size": vocabulary,
                **product.options,
            }
            try:
                with DecodingProcess(request) as process:
                    logits = np.load(process.save_logits(given, CHUNKS, to))
            except ProcessError as error:
                found[product.label] = str(error)
            else:
                found[product.label] = noise_ratio([{"": wanted}], [{"": logits}]).db
    return found
