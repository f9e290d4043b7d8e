"""Write a CSV, whole or not at all."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from loopedge.files.staging import staged_folder
from loopedge.files.targets import check_target

__all__ = ["write_csv"]


def write_csv(
    target: Path, header: Sequence[str], rows: Iterable[Sequence[str]], *, force: bool = False
) -> None:
    """Write rows of texts in UTF-8, separated by commas; a text is in quotes where it needs them.

    Args:
        target: The file.
        header: Names of the columns.
        rows: Cells of each row.
        force: Replace an existing file.

    Raises:
        InputError: As `loopedge.files.targets.check_target`, or the disk is full.
    """
    check_target(target, force=force)
    with (
        staged_folder(target) as folder,
        (folder / target.name).open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
