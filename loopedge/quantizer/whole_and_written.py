"""Quantize a file whose last iteration computes only the positions that are read (`loopedge.graph.positions.last_iteration`).

Ranges, coverage and the SQNR by iteration need a Loop with all iterations: the file is quantized so, and its
last iteration taken out of the Loop at the end. What is written is compared with both.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from loopedge.errors import VerificationError
from loopedge.graph.positions.last_iteration import (
    LastIterationOutcome,
    restore_last_iteration,
)
from loopedge.options import option
from loopedge.quantizer.noise import Feeds, QuantizationNoise, measure_noise, outputs_db

__all__ = ["compare_whole_and_written", "unchanged_note"]

SAME_DB = 40.0
"""Least SQNR of the outputs with fewer positions against those with all: products of integers are the same, and
rounding in float32 moves an activation by one step of 256 here and there."""


def compare_whole_and_written(
    reference: ir.Model,
    written: ir.Model,
    folder: Path,
    *,
    inputs: Sequence[Feeds],
    random_rows: bool,
    rescaled: Collection[str],
    moved: Mapping[str, str],
    threads: int | None,
) -> QuantizationNoise:
    """Compare as `measure_noise`, which needs all iterations in the Loop, and the outputs of the file itself.

    Args:
        reference: The float model, all iterations in its Loop.
        written: The quantized file.
        folder: As in `measure_noise`, like the rest.
        inputs: Batches.
        random_rows: Also with random timestep tables.
        rescaled: Values in another scale.
        moved: Values that stand elsewhere.
        threads: Threads of ONNX Runtime.

    Returns:
        The ratios; those of the outputs are the file's own.

    Raises:
        VerificationError: The last iteration computes something else than all positions would give.
    """
    whole = written.clone()
    restored = restore_last_iteration(whole)
    noise = measure_noise(
        reference,
        whole,
        folder,
        inputs=inputs,
        random_rows=random_rows,
        rescaled=rescaled,
        moved=moved,
        threads=threads,
    )
    if not restored:
        return noise
    same = outputs_db(whole, written, folder, inputs=inputs, threads=threads)
    if not same >= SAME_DB:
        raise VerificationError(
            f"with the positions that are read alone the last iteration gives other outputs: {same:.1f} dB of "
            f"SQNR against all positions, at least {SAME_DB:g} are needed",
            measured=same,
            allowed=SAME_DB,
            hint=option("last_rows", False, command="export model.pt"),
        )
    own = outputs_db(reference, written, folder, inputs=inputs, threads=threads)
    return replace(noise, sqnr_db=own)


def unchanged_note(outcome: LastIterationOutcome | None) -> list[str]:
    """Say why the last iteration computes all positions although that of the source does not."""
    if outcome is None or outcome.applied:
        return []
    return [f"the last iteration computes all positions: {outcome.reason}"]
