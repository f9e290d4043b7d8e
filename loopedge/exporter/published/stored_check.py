"""The check of a written file against the folder that its weights come from: every weight, and the outputs."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
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
from loopedge.exporter.published.pieces import Piece
from loopedge.exporter.published.stand_ins import stream_weights
from loopedge.exporter.verification.verify import ExportErrors
from loopedge.graph.agreement import NoiseRatio, largest_error
from loopedge.graph.metadata import Metadata
from loopedge.model.contract import as_tuple, run_loops
from loopedge.model.published.loading import PublishedFolder
from loopedge.model.published.reading import CHUNK_BYTES, StoredTensor
from loopedge.runtime.generator import Generator
from loopedge.runtime.session import Session

__all__ = ["StoredCheck"]

Array = npt.NDArray[Any]

SAME = 1e-9
"""Largest relative error of a product with a weight as written, against the stored one, both in float64."""

OUTPUTS_AGREE = 1e-3
"""Largest relative error of the outputs: ten times what the small architecture is held to, for real depths and widths add
up more rounding."""

LEAST_DB = {8: 30.0, 4: 10.0}
"""Least SQNR of a product with a weight of so many bits: right ones give 40 and 19 dB, a wrong one 0 or less."""

LIBRARIES_BYTES = 500e6
"""What PyTorch, ONNX Runtime and a captured graph take."""

SEED, SEQUENCE = 20410, 6


@dataclass(slots=True, kw_only=True)
class StoredCheck:
    """Compares a staged file with the folder when it is called.

    Each weight of the file is multiplied with a random vector, and so is the stored tensor, read by another reader than
    wrote it. Then the file runs, its weights mapped, and so does PyTorch, which reads each weight when it computes with it.

    Args:
        folder: Where the weights come from.
        graph: What was written; its tensors are replaced by those of the file, so that none is held.
        metadata: What the file says of itself.
        domains: Versions of its operators that are not ONNX's own.
        opset: Of the file.
        loops: Iterations that run.
        pieces: Where the parameters stand in it.
        rounds: Those that it holds in float16.
        bits: Of those that it holds packed.
        errors: Of the small architecture.

    ``outputs_error`` and ``outputs_db`` are None where the file is too large to run within the memory of an export.
    """

    folder: PublishedFolder
    graph: ir.Model
    metadata: Metadata
    domains: Mapping[str, int]
    opset: int
    loops: int
    pieces: list[Piece]
    rounds: frozenset[str]
    bits: int | None
    errors: ExportErrors
    rounding_error: float | None = None
    outputs_error: float | None = None
    outputs_db: float | None = None
    seconds: float = 0.0

    @property
    def packed(self) -> bool:
        """Whether there are weights in 8 or 4 bits."""
        return any(piece.packed for piece in self.pieces)

    def __call__(self, staged: Path) -> Metadata:
        begun = time.perf_counter()
        written = Artifact.open(staged)
        check_versions(written.graph, self.opset, self.domains)
        for name, value in written.graph.graph.initializers.items():
            if name in self.graph.graph.initializers:
                self.graph.graph.initializers[name].const_value = value.const_value
        self._compare_weights(written.graph.graph)
        if self._fits(written.file_bytes):
            self._compare_outputs(staged)
        self.seconds = time.perf_counter() - begun
        measured = 0.0 if self.packed else self.outputs_error or 0.0
        worst = max(self.errors.max_rel_error, measured)
        quantization = self.metadata.quantization
        if quantization is not None and self.outputs_db is not None:
            quantization = {
                **quantization,
                "sqnr_db": self.outputs_db,
                "measured_on": "generated",
                "measured_samples": 1,
            }
        return self.metadata.model_copy(
            update={"max_rel_error": worst, "quantization": quantization}
        )

    def _compare_weights(self, graph: ir.Graph) -> None:
        """Compare the products of all weights with a random vector.

        Raises:
            VerificationError: A weight is another one, or one is not there.
        """
        generator = np.random.default_rng(SEED)
        for piece in self.pieces:
            stored = self.folder.tensors[piece.name]
            vector = generator.standard_normal(stored.row_values)
            step = max(1, CHUNK_BYTES // (8 * max(1, stored.row_values)))
            parts = piece.parts(graph, stored.row_values, step, self.bits)
            product = np.concatenate([part.astype(np.float64) @ vector for part in parts])
            rounds = piece.name in self.rounds
            self._check_weight(piece, product, _stored_product(stored, vector, rounds=rounds))
            for name in (piece.weight, piece.scale):
                tensor = None if name is None else graph.initializers[name].const_value
                if isinstance(tensor, ir.ExternalTensor):
                    tensor.release()

    def _check_weight(self, piece: Piece, product: Array, wanted: Array) -> None:
        name = piece.name
        if piece.packed:
            ratio = NoiseRatio()
            ratio.add(wanted, product)
            floor = LEAST_DB[self.bits or 8]
            if not ratio.db >= floor:
                raise VerificationError(
                    f"{name} in {self.bits} bits is {ratio.db:.1f} dB from the stored one, at least {floor:.0f} is "
                    "asked",
                    measured=ratio.db,
                    allowed=floor,
                )
            return
        error = largest_error(product, wanted).relative
        if not error <= SAME:
            raise VerificationError(
                f"the file holds {name} with other values than the folder: relative error {error:.1e}",
                measured=error,
                allowed=SAME,
            )

    def _fits(self, file_bytes: int) -> bool:
        """Tell whether ONNX Runtime can run the file without more memory than an export may take.

        It maps float32 weights as they are; of float16 ones it makes float32 copies, and packed ones it packs anew.
        """
        copies = 3 if self.rounds else 2 if self.packed else 1
        return LIBRARIES_BYTES + copies * file_bytes <= 1.3 * file_bytes + 1e9

    def _compare_outputs(self, staged: Path) -> None:
        module = self.folder.build()
        stream_weights(module, self.folder.tensors, self._rounded)
        generator = torch.Generator().manual_seed(SEED)
        shape = (1, min(SEQUENCE, module.max_length))
        ids = torch.randint(module.vocab_size, shape, generator=generator)
        with torch.no_grad():
            (expected,) = as_tuple(run_loops(module, ids, loops=self.loops))
        wanted = expected.numpy()
        given = self._run(staged, ids.numpy())
        wanted = wanted[:, -given.shape[1] :]
        ratio = NoiseRatio()
        ratio.add(wanted, given)
        error = largest_error(given, wanted).relative
        self.outputs_error, self.outputs_db = error, ratio.db
        if not self.packed and not error <= OUTPUTS_AGREE:
            raise VerificationError(
                f"the file differs from PyTorch on the folder's weights: relative error {error:.1e}, "
                f"allowed {OUTPUTS_AGREE:.0e}",
                measured=error,
                allowed=OUTPUTS_AGREE,
            )
        if not np.isfinite(given).all():
            raise VerificationError("the file gives values that are not finite")

    def _run(self, staged: Path, ids: Array) -> Array:
        """Return the logits of the file: those that it decodes token by token, where it has a cache."""
        memory = "balanced" if self.packed else "low"
        if self.metadata.generate is None:
            session = Session(staged, threads=1, memory=memory)
            (logits,) = session.run({"input_ids": ids}).values()
            return logits
        decoder = Generator(staged, threads=1, memory=memory)
        first = decoder.prefill(ids[0, :-2].tolist())
        return np.stack([first, *(decoder.step(int(token)) for token in ids[0, -2:])], axis=1)

    def _rounded(self, name: str, values: Tensor) -> Tensor:
        return values.half().float() if name in self.rounds else values


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
