"""The paths of one command against each other: no output is an input, and no output is another one."""

import os
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from loopedge.errors import InputError
from loopedge.files.staging import CONFIG_SUFFIX, CONTENT_DIGITS

__all__ = [
    "CONTENT_NAMED",
    "ArtifactTarget",
    "Files",
    "check_name",
    "check_paths",
    "check_text",
]

DIGITS = rf"\.[0-9a-f]{{{CONTENT_DIGITS}}}\."
CONTENT_NAMED = rf"{DIGITS}data"
"""What follows ``NAME.onnx`` in the name of a data file that is named by its content, as a pattern."""


@dataclass(frozen=True, slots=True)
class ArtifactTarget:
    """The target of an artifact: ``NAME.onnx``, with its data files, or ``NAME.ort`` and its operators."""

    path: Path

    def files(self) -> list[Path]:
        """Return the file and every file of it that may be written or removed."""
        folder, name = self.path.parent, self.path.name
        if self._is_ort:
            found = [self.path, folder / f"{self.path.stem}.{CONFIG_SUFFIX}"]
        else:
            found = [self.path, folder / f"{name}.data"]
        if name and folder.is_dir():
            found += sorted(file for file in folder.iterdir() if self._is_beside(file.name))
        return found

    def covers(self, path: Path) -> bool:
        """Tell whether a path, that need not exist, is named as a file beside it."""
        same = os.path.realpath(path.parent) == os.path.realpath(self.path.parent)
        return same and self._is_beside(path.name)

    @property
    def _is_ort(self) -> bool:
        return self.path.suffix == ".ort"

    def _is_beside(self, name: str) -> bool:
        pattern = re.escape(self.path.name) + CONTENT_NAMED
        if self._is_ort:
            pattern = rf"{re.escape(self.path.stem)}{DIGITS}{re.escape(CONFIG_SUFFIX)}"
        return re.fullmatch(pattern, name) is not None


Entry = str | Path | ArtifactTarget
Files = Entry | Iterable[Entry] | None
"""What an option names: nothing, a file, or several."""


def check_paths(
    *,
    inputs: Mapping[str, Files] | None = None,
    outputs: Mapping[str, Files] | None = None,
    emptied: Mapping[str, Files] | None = None,
) -> None:
    """Refuse an output that is an input or another output, and names that cannot be used.

    Files are compared by what they are, where they exist: a symbolic and a hard link is the file that it
    leads to. Others are compared by their place. ``force`` changes nothing here.

    Args:
        inputs: What is read, by the option that names it: of an artifact its data files and companions
            too (`loopedge.artifact.needed_files.files_of_model`), of a folder the files that are read.
        outputs: What is written, by the option that names it: also the files that stand beside a target.
        emptied: Folders whose content is removed: no input and no other output may lie within.

    Raises:
        InputError: As said; it names both options.
    """
    read, written, removed = (_entries(group) for group in (inputs, outputs, emptied))
    for option, entry in read:
        check_name(_path(entry), option)
    for option, entry in (*written, *removed):
        check_name(_path(entry), option, is_output=True)
    for place, (option, entry) in enumerate(written):
        for other, known in (*read, *(one for one in written[:place] if one[0] != option)):
            met = _meeting(entry, known)
            if met is not None:
                raise InputError(
                    f"{option} {met} is also a file of {other}, which it would replace",
                    hint=f"name another file with {option}",
                )
    for option, folder in removed:
        for other, known in (*read, *(one for one in written if one[0] != option)):
            inside = [file for file in _files(known) if _lies_within(file, Path(_path(folder)))]
            if inside:
                raise InputError(
                    f"{inside[0]} of {other} lies in {_path(folder)}, which {option} empties",
                    hint=f"name another place with {option}",
                )


def check_name(path: str | Path, option: str, *, is_output: bool = False) -> None:
    """Refuse a path that no file can have, or that what is written cannot name.

    An artifact names the files beside it: a control character would end in one that cannot be opened.

    Raises:
        InputError: The path is empty or holds a NUL; as an output it is not Unicode, is ``.`` or ``/``, or
            holds a control character.
    """
    name = str(path)
    if not name:
        raise InputError(f"{option} names no file: it is empty", hint=f"name a file with {option}")
    shown = ascii(name)
    if is_output:
        check_text(path, option)
    if "\0" in name or (is_output and re.search(r"[\x00-\x1f\x7f]", name)):
        raise InputError(f"{option} {shown} holds a control character", hint="name another file")
    if is_output and not Path(path).name:
        raise InputError(
            f"{name} is a folder, a file name is needed", hint=f"name a file with {option}"
        )


def check_text(path: str | Path, option: str) -> None:
    """Refuse a path that is not Unicode: ONNX Runtime takes paths as text, and files hold names as text.

    Raises:
        InputError: It is bytes that are not text of the locale, which Python holds as surrogates.
    """
    name = str(path)
    if any("\ud800" <= letter <= "\udfff" for letter in name):
        raise InputError(
            f"{option} {name!a} is not text in this locale's encoding",
            hint="rename the file; where its name is UTF-8: PYTHONUTF8=1 loopedge ...",
        )


def _entries(group: Mapping[str, Files] | None) -> list[tuple[str, Entry]]:
    return [(option, entry) for option, files in (group or {}).items() for entry in _each(files)]


def _each(files: Files) -> Iterator[Entry]:
    if files is None:
        return
    if isinstance(files, str | Path | ArtifactTarget):
        yield files
    else:
        yield from files


def _path(entry: Entry) -> str | Path:
    return entry.path if isinstance(entry, ArtifactTarget) else entry


def _files(entry: Entry) -> list[Path]:
    return entry.files() if isinstance(entry, ArtifactTarget) else [Path(entry)]


def _meeting(entry: Entry, known: Entry) -> Path | None:
    """Return the file that both entries name."""
    others = _files(known)
    taken = {key for file in others for key in _identities(file)}
    for file in _files(entry):
        if not taken.isdisjoint(_identities(file)):
            return file
        if isinstance(known, ArtifactTarget) and known.covers(file):
            return file
    if isinstance(entry, ArtifactTarget):
        return next((file for file in others if entry.covers(file)), None)
    return None


def _identities(path: Path) -> set[Hashable]:
    """Return what distinguishes a file from others: its place, where that leads to, and the file itself."""
    place = os.path.join(os.path.realpath(path.parent), path.name)  # noqa: PTH118  (keeps a link)
    found: set[Hashable] = {place, os.path.realpath(path)}
    try:
        known = path.stat()
    except OSError:
        return found
    if known.st_ino:  # some file systems of Windows number no files
        found.add((known.st_dev, known.st_ino))
    return found


def _lies_within(file: Path, folder: Path) -> bool:
    outer = Path(os.path.realpath(folder))
    return any(Path(key).is_relative_to(outer) for key in _identities(file) if isinstance(key, str))
