"""Compare a quantized artifact with its float source: SQNR of the outputs and of every state."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.errors import VerificationError
from loopedge.graph.inputs import default_sequence, generate_inputs
from loopedge.graph.metadata import read_metadata
from loopedge.graph.probe import probe, stack_probed, state_names
from loopedge.graph.weights import TABLE_PREFIX
from loopedge.runtime import Session

__all__ = ["Agreement", "compare", "sqnr_db"]

Array = npt.NDArray[Any]

BATCHES = (1, 3)
LONGEST = 64
"""Longest generated sequence: SQNR hardly depends on the length, the time does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Signal-to-quantization-noise ratios in dB, over all compared inputs.

    ``random_rows_db`` is measured with the timestep tables replaced by seeded random rows, in both
    models: the gates of an untrained stack are zero and would hide a wrong core.
    """

    sqnr_db: float
    per_iteration_db: list[float]
    random_rows_db: float | None


class _Ratio:
    """Sums signal and noise power."""

    def __init__(self) -> None:
        self.signal = self.noise = 0.0

    def add(self, reference: Array, given: Array) -> None:
        exact = reference.astype(np.float64)
        self.signal += float(np.square(exact).sum())
        self.noise += float(np.square(exact - given).sum())

    @property
    def db(self) -> float:
        return sqnr_db(self.signal, self.noise)


def sqnr_db(signal: float, noise: float) -> float:
    """Return 10 log10(signal / noise); 200 dB where there is no noise, to stay finite."""
    if not np.isfinite(noise):
        return float("-inf")
    if noise <= 0 or signal <= 0:
        return 200.0 if noise <= 0 else -200.0
    return min(200.0, 10.0 * float(np.log10(signal / noise)))


def compare(
    reference: ir.Model, quantized: ir.Model, folder: Path, *, threads: int | None = None
) -> Agreement:
    """Run both models on generated inputs, several batches and lengths.

    Args:
        reference: The float model.
        quantized: The model to judge; the same inputs, outputs and loop count.
        folder: Where temporary copies may be written.
        threads: Threads of ONNX Runtime.

    Returns:
        The ratios.

    Raises:
        VerificationError: An output has another shape or is not finite.
    """
    names = state_names(reference)
    random = _random_tables(reference)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".compare.") as scratch:
        place = Path(scratch)
        outputs, iterations = _ratios(reference, quantized, names, place, threads)
        random_db = None
        if random:
            noisy, _ = _ratios(
                _with_tables(reference, random), _with_tables(quantized, random), [], place, threads
            )
            random_db = noisy.db
    return Agreement(
        sqnr_db=outputs.db,
        per_iteration_db=[ratio.db for ratio in iterations],
        random_rows_db=random_db,
    )


def _ratios(
    reference: ir.Model, quantized: ir.Model, names: list[str], place: Path, threads: int | None
) -> tuple[_Ratio, list[_Ratio]]:
    sessions = [
        _session(probe(model, names), place / f"{role}.onnx", threads)
        for role, model in (("reference", reference), ("quantized", quantized))
    ]
    outputs, iterations = _Ratio(), list[_Ratio]()
    plain = [value.name or "" for value in reference.graph.outputs]
    for seed, (batch, sequence) in enumerate(_sizes(reference)):
        inputs = generate_inputs(reference, batch=batch, sequence=sequence, seed=seed)
        exact, given = (session.run(inputs) for session in sessions)
        for name in plain:
            _check(name, exact[name], given[name])
            outputs.add(exact[name], given[name])
        rows, given_rows = stack_probed(exact, names), stack_probed(given, names)
        for name in names:
            for t, (row, given_row) in enumerate(zip(rows[name], given_rows[name], strict=True)):
                if t == len(iterations):
                    iterations.append(_Ratio())
                iterations[t].add(row, given_row)
    return outputs, iterations


def _session(model: ir.Model, path: Path, threads: int | None) -> Session:
    ir.save(model, path, external_data=f"{path.name}.data", size_threshold_bytes=1024)
    return Session(path, threads=threads)


def _sizes(model: ir.Model) -> list[tuple[int, int]]:
    longest = min(default_sequence(model), LONGEST)
    return [(batch, length) for batch in BATCHES for length in sorted({1, longest})]


def _check(name: str, exact: Array, given: Array) -> None:
    if exact.shape != given.shape:
        raise VerificationError(
            f"the quantized graph gives {name} with shape {given.shape}, its source {exact.shape}"
        )
    if not np.isfinite(given).all() and np.isfinite(exact).all():
        raise VerificationError(f"the quantized graph gives values that are not finite at {name}")


def _random_tables(model: ir.Model) -> dict[str, Array]:
    metadata = read_metadata(model.metadata_props)
    generator = np.random.default_rng(0)
    tables: dict[str, Array] = {}
    for name in metadata.tables if metadata else []:
        stored = model.graph.initializers.get(name)
        if stored is None or stored.const_value is None or not name.startswith(TABLE_PREFIX):
            continue
        table = stored.const_value.numpy()
        tables[name] = generator.normal(0.5, 0.25, table.shape).astype(table.dtype)
    return tables


def _with_tables(model: ir.Model, tables: Mapping[str, Array]) -> ir.Model:
    changed = model.clone()
    for name, table in tables.items():
        changed.graph.initializers[name].const_value = ir.tensor(table, name=name)
    return changed
