"""The check of a written file against the folder that its weights come from: every weight, and the outputs."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from safetensors import safe_open
from torch import Tensor

from loopedge.artifact.artifact import Artifact
from loopedge.artifact.opsets import check_versions
from loopedge.errors import VerificationError
from loopedge.exporter.assembled import Assembled
from loopedge.exporter.published.stand_ins import stream_weights
from loopedge.exporter.verification.verify import ExportErrors
from loopedge.graph.agreement import largest_error
from loopedge.graph.lazy_weights import LazyWeight
from loopedge.graph.metadata import Metadata
from loopedge.model.contract import as_tuple, run_loops
from loopedge.model.published.loading import PublishedFolder
from loopedge.model.published.reading import CHUNK_BYTES, StoredTensor
from loopedge.runtime.session import Session

__all__ = ["StoredCheck"]

Array = npt.NDArray[Any]

SAME = 1e-9
"""Largest relative error of a product with a weight as written, against the stored one, both in float64."""

OUTPUTS_AGREE = 1e-3
"""Largest relative error of the outputs: ten times what the small architecture is held to, for real depths and widths add
up more rounding."""

SEED, BATCH, SEQUENCE = 20410, 2, 5


@dataclass(slots=True, kw_only=True)
class StoredCheck:
    """Compares a staged file with the folder when it is called.

    Each weight of the file is multiplied with a random vector, and so is the stored tensor, read by another reader than
    wrote it. Then the file runs, its weights mapped, and so does PyTorch, which reads each weight when it computes with it.

    Args:
        folder: Where the weights come from.
        assembled: The graph that was written.
        opset: Of the file.
        loops: Iterations that run.
        rounds: Names of the parameters that the file holds in float16.
        errors: Of the small architecture.
    """

    folder: PublishedFolder
    assembled: Assembled
    opset: int
    loops: int
    rounds: frozenset[str]
    errors: ExportErrors
    rounding_error: float | None = None
    weights: int = 0
    outputs_error: float = 0.0
    seconds: float = field(default=0.0)

    def __call__(self, staged: Path) -> Metadata:
        begun = time.perf_counter()
        written = Artifact.open(staged)
        check_versions(written.graph, self.opset, self.assembled.domains)
        self.weights = sum(1 for _ in self._compare_weights(written.graph))
        del written
        self.outputs_error = self._compare_outputs(staged)
        self.seconds = time.perf_counter() - begun
        return self.assembled.metadata.model_copy(
            update={"max_rel_error": max(self.errors.max_rel_error, self.outputs_error)}
        )

    def _compare_weights(self, graph: ir.Model) -> Iterator[str]:
        """Yield the name of each weight that is the stored one.

        Raises:
            VerificationError: One is another.
        """
        generator = np.random.default_rng(SEED)
        made = self.assembled.graph.graph.initializers
        for name, value in graph.graph.initializers.items():
            stored, tensor = self.folder.tensors.get(name), value.const_value
            if stored is None or tensor is None:
                continue
            origin = made[name].const_value
            turned = isinstance(origin, LazyWeight) and origin.is_turned
            vector = generator.standard_normal(stored.row_values)
            error = largest_error(
                _product(tensor, vector, turned=turned),
                _stored_product(stored, vector, rounds=name in self.rounds),
            ).relative
            if isinstance(tensor, ir.ExternalTensor):
                tensor.release()
            if not error <= SAME:
                raise VerificationError(
                    f"the file holds {name} with other values than {stored.file}: relative error {error:.1e}",
                    measured=error,
                    allowed=SAME,
                )
            yield name

    def _compare_outputs(self, staged: Path) -> float:
        module = self.folder.build()
        stream_weights(module, self.folder.tensors, self._rounded)
        generator = torch.Generator().manual_seed(SEED)
        shape = (BATCH, min(SEQUENCE, module.max_length))
        ids = torch.randint(module.vocab_size, shape, generator=generator)
        with torch.no_grad():
            (expected,) = as_tuple(run_loops(module, ids, loops=self.loops))
        session = Session(staged, threads=1, memory="low")
        (given,) = session.run({"input_ids": ids.numpy()}).values()
        wanted = expected.numpy()
        wanted = wanted if given.shape == wanted.shape else wanted[:, -1:]
        error = largest_error(given, wanted).relative
        if not error <= OUTPUTS_AGREE:
            raise VerificationError(
                f"the file differs from PyTorch on the folder's weights: relative error {error:.1e}, "
                f"allowed {OUTPUTS_AGREE:.0e}",
                measured=error,
                allowed=OUTPUTS_AGREE,
            )
        return error

    def _rounded(self, name: str, values: Tensor) -> Tensor:
        return values.half().float() if name in self.rounds else values


def _product(tensor: ir.TensorProtocol, vector: Array, *, turned: bool) -> Array:
    """Return what a weight of the file makes of a vector, float64 (rows,)."""
    array = tensor.numpy()
    array = array.T if turned else array
    rows = array.reshape(len(array) if array.ndim else 1, -1)
    step = max(1, CHUNK_BYTES // (8 * max(1, rows.shape[1])))
    parts = [rows[i : i + step].astype(np.float64) @ vector for i in range(0, len(rows), step)]
    return np.concatenate(parts)


def _stored_product(stored: StoredTensor, vector: Array, *, rounds: bool) -> Array:
    """Return what the tensor of the folder makes of it, read by the safetensors library."""
    parts = []
    step = max(1, CHUNK_BYTES // (8 * max(1, stored.row_values)))
    for start in range(0, (stored.shape or (1,))[0], step):
        with safe_open(stored.file, "pt") as file:  # opened anew: what it maps is given back
            if stored.shape:
                rows = file.get_slice(stored.name)[start : start + step]
            else:
                rows = file.get_tensor(stored.name)
            rows = rows.half() if rounds else rows
            parts.append(rows.double().reshape(-1, stored.row_values).numpy() @ vector)
    return np.concatenate(parts)
