"""Compare a quantized artifact with its float source: SQNR of the outputs and of every state, and the states' cosines."""

import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.artifact.artifact import write_scratch
from loopedge.errors import InputError, VerificationError
from loopedge.files.scratch import never_named
from loopedge.graph.agreement import NoiseRatio, at_kept
from loopedge.graph.core.cores import Cores
from loopedge.graph.core.names import loop_name, loop_value_name
from loopedge.graph.core.probe import can_probe, probe, stack_probed
from loopedge.graph.inputs import default_sequence, generate_inputs
from loopedge.graph.metadata import read_metadata
from loopedge.graph.offsets import OutputOffsets
from loopedge.graph.timestep_rows import random_rows, shuffled_rows
from loopedge.graph.weights import TABLE_PREFIX
from loopedge.options import option
from loopedge.quantizer.held_out.state_fidelity import (
    StateCosines,
    StateFidelity,
    cosines_of_states,
)
from loopedge.quantizer.weights.matrix_rows import stored_rows
from loopedge.runtime.inputs import MASK
from loopedge.runtime.session import Session

__all__ = [
    "QuantizationNoise",
    "generated_batches",
    "longest_generated",
    "measure_noise",
    "outputs_db",
]

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array]

BATCHES = (1, 3)
LONGEST = 64
"""Longest generated sequence: SQNR hardly depends on the length, the time does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationNoise:
    """Signal-to-quantization-noise ratios in dB, over all compared inputs.

    What the graph adds to its outputs last, the mean of a series, is not a signal.

    ``random_rows_db`` is measured with the timestep tables replaced by seeded random rows, in both
    models: the gates of an untrained stack are zero and would hide a wrong core. Rows that are not floats, and all rows
    of a model whose outputs are not finite with random ones, are its own in another order. ``per_iteration_db`` is of the
    first state of the core; of several cores one follows the other. ``states`` holds the cosines of all states of all
    cores. Masked positions count in neither. ``linears_db`` is
    what each linear of a core, by node name, gives in the first iteration, where no error has
    accumulated yet; ``worst_linears_db`` the least of all its iterations.
    """

    sqnr_db: float
    per_iteration_db: list[float]
    random_rows_db: float | None
    linears_db: dict[str, float]
    worst_linears_db: dict[str, float]
    states: list[StateFidelity] = field(default_factory=list)


def measure_noise(
    reference: ir.Model,
    quantized: ir.Model,
    folder: Path,
    *,
    inputs: Sequence[Feeds],
    random_rows: bool = True,
    rescaled: Collection[str] = (),
    moved: Mapping[str, str] | None = None,
    threads: int | None = None,
) -> QuantizationNoise:
    """Run both models on the same inputs.

    Args:
        reference: The float model.
        quantized: The model to judge; the same inputs, outputs and loop count.
        folder: Where temporary copies may be written.
        inputs: Batches to run on.
        random_rows: Also compare with random timestep tables. Not for static ranges: they hold for
            the table that they were calibrated with.
        rescaled: Values of the core that the quantized model holds in another scale.
        moved: What linears of the core gave, where the quantized model gives another value instead.
        threads: Threads of ONNX Runtime.

    Returns:
        The ratios.

    Raises:
        InputError: There is no batch.
        VerificationError: An output has another shape or is not finite.
    """
    batches = list(inputs)
    if not batches:
        raise InputError("there is no sample to compare on", hint=option("data", "samples.npz"))
    cores = Cores(reference)
    states = [core.states for core in cores]
    cosines = cosines_of_states(cores, rescaled)
    folded = _convolutions(
        quantized
    )  # what they give has another order of axes than their linear's
    products = {
        node: (moved or {}).get(value, value)
        for node, value in _core_products(reference).items()
        if value not in rescaled and node not in folded
    }
    tables = _tables(reference) if random_rows else {}
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix=".compare.") as scratch,
        never_named(Path(scratch), "the model"),
    ):
        place = Path(scratch)
        names = list(dict.fromkeys([*chain(*states), *products.values()]))
        outputs, rows = _ratios(reference, quantized, names, batches, place, threads, cosines)
        random_db = None
        if tables:
            rows_of = _other_rows(reference, tables, batches[0], place, threads)
            models = _with_tables(reference, rows_of), _with_tables(quantized, rows_of)
            random_db = _ratios(*models, [], batches, place, threads)[0].db
    iterations = [ratio.db for own in states for name in own[:1] for ratio in rows[name]]
    return QuantizationNoise(
        sqnr_db=outputs.db,
        per_iteration_db=iterations,
        random_rows_db=random_db,
        linears_db={node: rows[value][0].db for node, value in products.items()},
        worst_linears_db={
            node: min(ratio.db for ratio in rows[value]) for node, value in products.items()
        },
        states=[found for each in cosines.values() if (found := each.found) is not None],
    )


def outputs_db(
    reference: ir.Model,
    given: ir.Model,
    folder: Path,
    *,
    inputs: Sequence[Feeds],
    threads: int | None = None,
) -> float:
    """Return the SQNR of the outputs of a model against those of another, in dB.

    Args:
        reference: The model to judge by.
        given: The model to judge; the same inputs and outputs.
        folder: Where temporary copies may be written.
        inputs: As in `measure_noise`, like the rest.
        threads: Threads of ONNX Runtime.

    Raises:
        VerificationError: An output has another shape or is not finite.
    """
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix=".compare.") as scratch,
        never_named(Path(scratch), "the model"),
    ):
        return _ratios(reference, given, [], inputs, Path(scratch), threads)[0].db


def _core_products(model: ir.Model) -> dict[str, str]:
    """Return the linears of the cores and the values that they give, named as in the loop form.

    Those of branches and of a Scan are not among them.
    """
    cores = Cores(model)
    return {
        loop_name(item.node): loop_value_name(item.node, item.node.outputs[0].name or "")
        for core in cores
        for item in core.linears
        if can_probe(cores, item.node)
    }


def _convolutions(model: ir.Model) -> set[str]:
    """Return the convolutions that stayed in float, named as in the loop form."""
    return {loop_name(node) for node in model.graph.all_nodes() if node.op_type == "Conv"}


def _ratios(
    reference: ir.Model,
    quantized: ir.Model,
    names: list[str],
    batches: Sequence[Feeds],
    place: Path,
    threads: int | None,
    cosines: Mapping[str, StateCosines] | None = None,
) -> tuple[NoiseRatio, dict[str, list[NoiseRatio]]]:
    """Return the ratios of the outputs, and of each named value by iteration; fill the cosines of states."""
    sessions = [
        _session(probe(model, names), place / f"{role}.onnx", threads)
        for role, model in (("reference", reference), ("quantized", quantized))
    ]
    outputs = NoiseRatio()
    per_row: dict[str, list[NoiseRatio]] = {name: [] for name in names}
    known = read_metadata(reference.metadata_props)
    plain = list(known.answers({value.name or "": value for value in reference.graph.outputs}))
    offsets = OutputOffsets(reference)
    for inputs in batches:
        exact, given = (session.run(inputs) for session in sessions)
        kept = inputs.get(MASK)
        for name in plain:
            _check(name, exact[name], given[name])
            offset = offsets.at_kept(name, exact[name], inputs)
            outputs.add(at_kept(exact[name], kept), at_kept(given[name], kept), offset)
        rows, given_rows = stack_probed(exact, names), stack_probed(given, names)
        for name, ratios in per_row.items():
            ratios += [NoiseRatio() for _ in range(len(rows[name]) - len(ratios))]
            # A Loop that ends itself may run fewer iterations on one batch, or in one of the models.
            for ratio, row, given_row in zip(ratios, rows[name], given_rows[name], strict=False):
                ratio.add(at_kept(row, kept), at_kept(given_row, kept))
        for name, each in (cosines or {}).items():
            each.add(inputs, rows[name], given_rows[name])
    return outputs, per_row


def generated_batches(model: ir.Model, lengths: Collection[int] = ()) -> list[Feeds]:
    """Return generated inputs of several batch sizes and lengths.

    Args:
        model: The graph that takes them.
        lengths: Sequence lengths that the model is for; default: 1 and that it was trained with.

    Raises:
        InputError: They cannot be guessed.
    """
    ends = sorted({min(lengths), max(lengths)} if lengths else {1, longest_generated(model)})
    sizes = [(batch, length) for batch in BATCHES for length in ends]
    try:
        return [
            generate_inputs(model, batch=batch, sequence=sequence, seed=seed)
            for seed, (batch, sequence) in enumerate(sizes)
        ]
    except InputError as error:
        hint = error.hint or option("data", "samples.npz")
        raise InputError(error.message, hint=hint) from error


def _session(model: ir.Model, path: Path, threads: int | None) -> Session:
    write_scratch(model, path)
    return Session(path, threads=threads)


def longest_generated(model: ir.Model) -> int:
    """Return the length of the longest generated sequence."""
    return min(default_sequence(model), LONGEST)


def _check(name: str, exact: Array, given: Array) -> None:
    if exact.shape != given.shape:
        raise VerificationError(
            f"the quantized graph gives {name} with shape {given.shape}, its source {exact.shape}"
        )
    if not np.isfinite(given).all() and np.isfinite(exact).all():
        raise VerificationError(f"the quantized graph gives values that are not finite at {name}")


def _tables(model: ir.Model) -> dict[str, Array]:
    metadata = read_metadata(model.metadata_props)
    tables: dict[str, Array] = {}
    for name in metadata.tables:
        stored = model.graph.initializers.get(name)
        if stored is None or stored.const_value is None or not name.startswith(TABLE_PREFIX):
            continue
        tables[name] = stored.const_value.numpy()
    return tables


def _other_rows(
    model: ir.Model, tables: Mapping[str, Array], feeds: Feeds, place: Path, threads: int | None
) -> dict[str, Array]:
    """Return tables unlike the model's own, random where the model takes any values."""
    generator = np.random.default_rng(0)
    rows = random_rows(tables, generator)
    session = _session(_with_tables(model, rows), place / "rows.onnx", threads)
    try:
        outputs = session.run(feeds)
        finite = all(np.isfinite(output).all() for output in outputs.values())
    except InputError:  # a model may take its own timestep rows alone
        finite = False
    return rows if finite else shuffled_rows(tables, generator)


def _with_tables(model: ir.Model, tables: Mapping[str, Array]) -> ir.Model:
    changed = model.clone()
    for name, table in tables.items():
        held = changed.graph.initializers[name]
        if held.dtype == ir.DataType.INT8 and held.const_value is not None:
            rows, scales = stored_rows(table, held.const_value.numpy())
            held.const_value = ir.tensor(rows, name=name)
            scale = changed.graph.initializers[f"{name}.scale"]
            scale.const_value = ir.tensor(scales, name=scale.name)
        else:
            held.const_value = ir.tensor(table, name=name)
    return changed
