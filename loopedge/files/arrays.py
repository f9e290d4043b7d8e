"""Read the inputs of a model from .npz, .npy and .csv files, and write its outputs."""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loopedge.errors import InputError
from loopedge.files.csv.form import CsvForm
from loopedge.files.csv.numbers import read_number_table
from loopedge.files.input_files import check_file
from loopedge.files.npy_format import most_bytes, open_archive, read_npy
from loopedge.files.staging import staged_folder
from loopedge.files.targets import check_target
from loopedge.options import option, option_name

__all__ = [
    "Array",
    "ArrayFile",
    "check_arrays_target",
    "read_array_file",
    "write_arrays",
]

Array = npt.NDArray[Any]

KINDS = ".npz, .npy or .csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayFile:
    """The arrays of a file by name, and of a table the names of its columns, where it has a header."""

    arrays: dict[str, Array]
    header: tuple[str, ...] | None = None


def read_array_file(
    path: str | Path,
    ranks: Mapping[str, int],
    *,
    missing: bool = False,
    form: CsvForm | None = None,
) -> ArrayFile:
    """Read the inputs of a model.

    Args:
        path: ``.npz`` (one array per input, by name), or ``.npy``, ``.csv`` or ``.csv.gz`` for a model of one
            input. A CSV holds numbers, with or without a header: a table row is one position
            of a continuous input (1, rows, columns), or one sequence of token ids (rows, columns). Its columns are
            taken in their order.
        ranks: The inputs that the model takes and the number of axes of each, without ``loops``.
        missing: Whether a cell of a CSV may stand for a missing value, NaN.
        form: How a CSV is written down; default: found.

    Returns:
        One array per name in the file.

    Raises:
        InputError: The file is missing, damaged, of another kind, or holds what is not a number.
    """
    source = check_file(path, needed=KINDS, hint=f"name a {KINDS} file with {option_name('input')}")
    if source.suffix == ".npz":
        return ArrayFile(arrays=_read_npz(source))
    is_csv = source.name.endswith((".csv", ".csv.gz"))
    if source.suffix != ".npy" and not is_csv:
        raise InputError(f"{source} has an unknown kind, {KINDS} is needed")
    if len(ranks) != 1:
        raise InputError(
            f"{source} holds one array, the model takes {', '.join(ranks)}",
            hint="put one array per input into an .npz file: numpy.savez('x.npz', name=array, ...)",
        )
    [(name, rank)] = ranks.items()
    if source.suffix == ".npy":
        return ArrayFile(arrays={name: read_npy(source)})
    positions = rank == 3  # else each table row is a sample of its own
    table = read_number_table(source, missing=missing, ordered=positions, form=form)
    values = table.values[np.newaxis] if positions else table.values
    return ArrayFile(arrays={name: values}, header=table.header)


def write_arrays(path: str | Path, arrays: Mapping[str, Array], *, force: bool = False) -> None:
    """Write the outputs of a model, whole or not at all.

    Args:
        path: ``.npz``, or ``.npy`` for a single array.
        arrays: Arrays by name.
        force: Replace an existing file.

    Raises:
        InputError: As `check_arrays_target`, or the disk is full.
    """
    target = Path(path)
    check_arrays_target(target, len(arrays), force=force)
    with staged_folder(target) as folder:
        staged = folder / target.name
        if target.suffix == ".npy":
            np.save(staged, next(iter(arrays.values())), allow_pickle=False)
            return
        # Not numpy.savez: it takes the names as keywords, and an output may be called "file".
        with zipfile.ZipFile(staged, "w") as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, np.asanyarray(array), allow_pickle=False)


def check_arrays_target(target: Path, count: int, *, force: bool) -> None:
    """Refuse a target that `write_arrays` could not write, before any work is done.

    Raises:
        InputError: The target is not an ``.npz`` (or ``.npy`` for one array), exists, or cannot be
            written.
    """
    if target.suffix not in {".npz", ".npy"}:
        raise InputError(
            f"{target} has an unknown kind, .npz or .npy is needed",
            hint=option("path", str(target.with_suffix(".npz"))),
        )
    if target.suffix == ".npy" and count != 1:
        raise InputError(
            f"{target} can hold one array, the model gives {count}",
            hint=option("path", str(target.with_suffix(".npz"))),
        )
    check_target(target, force=force)


def _read_npz(source: Path) -> dict[str, Array]:
    with open_archive(source) as members:
        total, allowed = sum(member.header.nbytes for member in members), most_bytes(source)
        if total > allowed:
            raise InputError(
                f"{source} holds arrays of {total:,} bytes, at most {allowed:,} are read from a file of "
                "its size",
                hint="put fewer samples into it",
            )
        return {member.name: member.array() for member in members}
