"""The check of a written file against the folder that its weights come from: every weight, and the outputs."""

import time
from collections.abc import Iterator, Mapping
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
from loopedge.exporter.published.stand_ins import stream_weights
from loopedge.exporter.verification.verify import ExportErrors
from loopedge.graph.agreement import NoiseRatio, largest_error
from loopedge.graph.decoding.fusing.products import names_joined
from loopedge.graph.integer_weights.blocks import Blocks
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
        turned: The parameters that stand in the file as their transpose.
        rounds: Those that it holds in float16.
        packed: Those that it holds in 8 or 4 bits.
        bits: Of these.
        errors: Of the small architecture.
    """

    folder: PublishedFolder
    graph: ir.Model
    metadata: Metadata
    domains: Mapping[str, int]
    opset: int
    loops: int
    turned: frozenset[str]
    rounds: frozenset[str]
    packed: frozenset[str]
    bits: int | None
    errors: ExportErrors
    rounding_error: float | None = None
    weights: int = 0
    outputs_error: float = 0.0
    outputs_db: float | None = None
    seconds: float = 0.0

    def __call__(self, staged: Path) -> Metadata:
        begun = time.perf_counter()
        written = Artifact.open(staged)
        check_versions(written.graph, self.opset, self.domains)
        for name, value in written.graph.graph.initializers.items():
            if name in self.graph.graph.initializers:
                self.graph.graph.initializers[name].const_value = value.const_value
        self.weights = sum(1 for _ in self._compare_weights(written.graph))
        self._compare_outputs(staged)
        self.seconds = time.perf_counter() - begun
        worst = max(self.errors.max_rel_error, 0 if self.packed else self.outputs_error)
        quantization = self.metadata.quantization
        if quantization is not None:
            quantization = {
                **quantization,
                "sqnr_db": self.outputs_db,
                "measured_on": "generated",
                "measured_samples": 1,
            }
        return self.metadata.model_copy(
            update={"max_rel_error": worst, "quantization": quantization}
        )

    def _compare_weights(self, graph: ir.Model) -> Iterator[str]:
        """Yield the name of each weight that is the stored one.

        Raises:
            VerificationError: One is another.
        """
        generator = np.random.default_rng(SEED)
        for name, value in graph.graph.initializers.items():
            if value.const_value is None:
                continue
            first = 0
            for part in names_joined(name):
                stored = self.folder.tensors.get(part)
                if stored is None:
                    continue
                vector = generator.standard_normal(stored.row_values)
                product = _product(self._rows(graph, name, stored, part, first), vector)
                wanted = _stored_product(stored, vector, rounds=part in self.rounds)
                self._check_weight(part, product, wanted)
                first += (stored.shape or (1,))[0]
                yield part
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value.release()

    def _rows(
        self, graph: ir.Model, name: str, stored: StoredTensor, part: str, first: int
    ) -> Iterator[Array]:
        """Yield the rows of a weight of the file, some of them at a time, as they are stored.

        Args:
            graph: Of the file.
            name: Of the weight.
            stored: What it, or a part of it, was made from.
            part: The name of that.
            first: The row of the weight at which it begins.
        """
        values = graph.graph.initializers
        tensor = values[name].const_value
        assert tensor is not None
        array = tensor.numpy()
        step = max(1, CHUNK_BYTES // (8 * max(1, stored.row_values)))
        last = first + (stored.shape or (1,))[0]
        if part not in self.packed:
            rows = array.T if part in self.turned else array
            rows = rows.reshape(-1, stored.row_values)
            last = len(rows) if part == name else last
            for start in range(first, last, step):
                yield rows[start : min(start + step, last)]
            return
        scale = values[f"{name}.scale"].const_value
        assert scale is not None
        scales = scale.numpy()
        for start in range(first, len(array) if part == name else last, step):
            some = slice(start, start + step if part == name else min(start + step, last))
            if array.dtype == np.int8:  # rows of an embedding
                yield array[some] * scales[some]
            else:
                yield Blocks(array[some], scales[some], self.bits or 8, stored.row_values).floats()

    def _check_weight(self, name: str, product: Array, wanted: Array) -> None:
        if name in self.packed:
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
        self.outputs_error, self.outputs_db = largest_error(given, wanted).relative, ratio.db
        if not self.packed and not self.outputs_error <= OUTPUTS_AGREE:
            raise VerificationError(
                f"the file differs from PyTorch on the folder's weights: relative error {self.outputs_error:.1e}, "
                f"allowed {OUTPUTS_AGREE:.0e}",
                measured=self.outputs_error,
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


def _product(rows: Iterator[Array], vector: Array) -> Array:
    """Return what a weight makes of a vector, float64 (rows,), from parts of its rows."""
    return np.concatenate([part.astype(np.float64) @ vector for part in rows])


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
