"""Windows of a table as arrays: what training never saw is refused, and short ones are padded as it pads."""

from collections.abc import Sequence

import numpy as np

from loopedge.errors import InputError
from loopedge.files.arrays import Array
from loopedge.runtime.array_checks import sample_number
from loopedge.runtime.tables.described_table import DescribedTable

__all__ = ["check_windows", "pad_windows"]


def check_windows(
    values: Array,
    mask: Array | None,
    described: DescribedTable,
    where: str,
    numbers: Sequence[int] | None,
    *,
    names: tuple[str, str, str],
) -> None:
    """Refuse windows of a table that training never saw: shorter ones, and ones whose last position is masked.

    What a model answers to them is a number like any other, and nothing tells that it was never learned.

    Args:
        values: (batch, positions, columns).
        mask: (batch, positions), 1 = keep; None: the model takes none.
        described: The table that the model was trained on.
        where: What messages begin with.
        numbers: What messages call each sample; default: from 1.
        names: Of the input, of the mask, and of the model's file.

    Raises:
        InputError: It is so.
    """
    name, mask_name, model = names
    length = values.shape[1]
    if mask is None:
        if length < described.context:
            raise InputError(
                f"{where}input {name} has {length} position{'s' if length > 1 else ''}, {model} was trained "
                f"on windows of {described.context} table rows and takes no {mask_name}",
                hint=f"name the last {described.context} table rows of each",
            )
        return
    kept = mask.astype(bool)
    wrong = ~kept[:, -1]
    if wrong.any():
        raise InputError(
            f"{where}input {mask_name}: sample {sample_number(int(wrong.argmax()), numbers)} masks its last position, "
            f"{model} answers at that one",
            hint="pad windows on the left",
        )
    fewest = kept.sum(axis=1)
    if fewest.min() < described.min_context:
        row = int(fewest.argmin())
        raise InputError(
            f"{where}sample {sample_number(row, numbers)} has {fewest[row]} position{'s' if fewest[row] > 1 else ''}, "
            f"{model} was trained on {described.min_context} table rows at least",
            hint=f"name {described.min_context} table rows of each at least",
        )


def pad_windows(values: Array, described: DescribedTable) -> Array:
    """Return windows padded on the left to the context, as training pads; longer ones as they are.

    A position before the last one has its own embedding, whatever the length: all windows have the context's.

    Args:
        values: (batch, positions, columns).
        described: The table that the model was trained on.
    """
    batch, length = values.shape[:2]
    padded = max(described.context - int(length), 0)
    if not padded or values.shape[2:] != described.mean.shape:
        return values
    mean = described.mean.astype(values.dtype)  # what training pads with
    padding = np.broadcast_to(mean, (batch, padded, len(mean)))
    return np.concatenate([padding, values], axis=1)
