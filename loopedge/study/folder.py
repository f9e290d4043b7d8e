"""The folder of a pilot: what stands in it, how it is begun, and how it is resumed."""

import json
import shutil
from pathlib import Path
from typing import Any

from loopedge.errors import InputError
from loopedge.files.json_text import read_json
from loopedge.files.plain_json import dump_json
from loopedge.files.targets import write_text_atomic
from loopedge.options import option, option_name
from loopedge.study.state import STATE_FILE

__all__ = [
    "REPORT_FILE",
    "RESULT_FILE",
    "emptied_folders",
    "known_seeds",
    "open_folder",
    "pilot_files",
    "write_design",
]

DESIGN_FILE, RESULT_FILE, REPORT_FILE = "design.json", "results.json", "report.html"
OF_RUNS = ("runs", "trials", "baselines")
"""Folders of what was made, one for each."""
GROWING = {"design.arms", "design.loops", "design.seeds"}
"""What may differ when a pilot is resumed: runs are kept by arm, loop count and seed."""


def pilot_files(folder: Path) -> list[Path]:
    """Return the files that a pilot writes into its folder, beside those of its runs."""
    return [folder / name for name in (DESIGN_FILE, RESULT_FILE, REPORT_FILE, STATE_FILE)]


def emptied_folders(folder: Path) -> list[Path]:
    """Return the folders that a new pilot empties."""
    return [folder / name for name in OF_RUNS]


def known_seeds(folder: Path) -> int:
    """Return how many seeds the pilot in a folder had at its last look; 0: there is none."""
    path = folder / DESIGN_FILE
    if not path.exists():
        return 0
    stored = read_json(
        path, needed="the design of a pilot", hint=f"start anew with {option('force')}"
    )
    design = stored.get("design") if isinstance(stored, dict) else None
    seeds = design.get("seeds") if isinstance(design, dict) else None
    return seeds if isinstance(seeds, int) else 0


def write_design(folder: Path, described: dict[str, Any]) -> None:
    """Write what a resumed pilot is compared with."""
    write_text_atomic(folder / DESIGN_FILE, dump_json(described) + "\n")


def open_folder(folder: Path, wanted: dict[str, Any], *, resume: bool, force: bool) -> None:
    """Make the folder of a new pilot, or check that it holds the one that is resumed."""
    stored = folder / DESIGN_FILE
    if folder.is_file():
        raise InputError(
            f"{folder} is a file, a folder is needed",
            hint=f"name another with {option_name('output')}",
        )
    if not folder.parent.is_dir():
        raise InputError(f"folder {folder.parent} does not exist", hint=f"mkdir -p {folder.parent}")
    if resume:
        if not stored.exists():
            raise InputError(
                f"no pilot to resume in {folder}", hint=f"start without {option('resume')}"
            )
        hint = f"start anew with {option('force')}"
        known = read_json(stored, needed="the design of a pilot", hint=hint)
        if not isinstance(known, dict) or not all(
            isinstance(group, dict) for group in known.values()
        ):
            raise InputError(f"{stored} is not the design of a pilot", hint=hint)
        if "format" not in known:
            raise InputError(
                f"{folder} holds a pilot of an earlier loopedge, whose runs left no scores of single samples",
                hint=f"{hint}, or name another folder with {option_name('output')}",
            )
        _check_same(known, wanted, folder)
        write_design(folder, wanted)
        return
    if folder.exists() and any(folder.iterdir()):
        if not force:
            raise InputError(
                f"{folder} is not empty",
                hint=f"add {option('resume')} to go on, or {option('force')} to start anew",
            )
        if not stored.exists():
            raise InputError(
                f"{folder} holds something else than a pilot, which {option('force')} does not remove",
                hint=f"name another folder with {option_name('output')}",
            )
        for emptied in emptied_folders(folder):
            shutil.rmtree(emptied, ignore_errors=True)
        for name in (RESULT_FILE, REPORT_FILE, STATE_FILE):
            (folder / name).unlink(missing_ok=True)
    folder.mkdir(exist_ok=True)
    write_design(folder, wanted)


def _check_same(known: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    wanted = json.loads(dump_json(wanted))
    different = [
        f"{group}.{name} was {known.get(group, {}).get(name)!r} and is {values.get(name)!r}"
        for group, values in wanted.items()
        for name in sorted({*known.get(group, {}), *values})
        if known.get(group, {}).get(name) != values.get(name) and f"{group}.{name}" not in GROWING
    ]
    if different:
        raise InputError(
            f"{folder} holds another pilot: {'; '.join(different[:3])}",
            hint=f"resume with the options of that pilot, or start anew with {option('force')}",
        )
