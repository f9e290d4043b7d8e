"""What each sample of a run adds to its score, as a file beside the run: the bootstrap draws from it."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from loopedge.errors import InputError
from loopedge.files.staging import staged_folder
from loopedge.options import by_face, option
from loopedge.tasks.metrics import Tally
from loopedge.tasks.task import Split

__all__ = ["MOST_NUMBERS", "SAMPLES_FILE", "read_samples", "write_samples"]

SAMPLES_FILE = "samples.npz"
MOST_NUMBERS = 4_000_000
"""Numbers of a split beyond which nothing is kept: confusion matrices of many classes grow with their square."""


def write_samples(path: Path, tallies: Mapping[Split, Tally]) -> None:
    """Write ``SPLIT.NAME`` float64 (samples, ...) for each split and name, whole or not at all.

    Args:
        path: Target, replaced where it stands.
        tallies: Of `sample_tallies`, by split; of a split with more than `MOST_NUMBERS` nothing is written.

    Raises:
        InputError: The disk is full or the folder cannot be written.
    """
    arrays = {
        f"{split}.{name}": values
        for split, tally in tallies.items()
        if sum(values.size for values in tally.values()) <= MOST_NUMBERS
        for name, values in tally.items()
    }
    with staged_folder(path) as folder, (folder / path.name).open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def read_samples(path: Path) -> dict[str, Tally]:
    """Return what `write_samples` wrote, by split; a split of which nothing was kept is missing.

    Raises:
        InputError: The file is missing or damaged.
    """
    found: dict[str, Tally] = {}
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            for key in arrays.files:
                split, _, name = key.partition(".")
                found.setdefault(split, {})[name] = arrays[key]
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} does not hold the samples of a run: {error}",
            hint=f"rm -r {path.parent}, then {by_face('the same command', 'the same call')} with "
            f"{option('resume')}: that run is made again",
        ) from error
    return found
