"""What kind of file stands under a name, by its first bytes: names and endings are often wrong."""

import shlex
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from loopedge.errors import InputError

__all__ = ["FileKind", "Readable", "find_kind", "other_kind", "packed_kind", "starts_as_stream"]

Readable = Literal["parquet", "arrow", "arrow-stream", "gzip"]
"""Kinds of tables that are not plain text."""

MAGIC: tuple[tuple[bytes, Readable], ...] = (
    (b"PAR1", "parquet"),
    (b"ARROW1", "arrow"),
    (b"\x1f\x8b", "gzip"),
)
MOST_SCHEMA_BYTES = 1 << 24


@dataclass(frozen=True, slots=True, kw_only=True)
class FileKind:
    """A kind of file that is not read here.

    Args:
        magic: What its first bytes are.
        name: What it is called, with its article.
        mend: What makes a table of it; ``{path}`` stands for the file and ``{stem}`` for its name without ending.
    """

    magic: bytes
    name: str
    mend: str


OTHERS = (
    FileKind(
        magic=b"FEA1",
        name="a file of Feather version 1",
        mend="python -c \"import pyarrow.feather as f; f.write_feather(f.read_table('{path}'), '{stem}.arrow')\"",
    ),
    FileKind(
        magic=b"SQLite format 3\0",
        name="an SQLite database",
        mend="sqlite3 -header -csv {path} 'SELECT * FROM name_of_the_table' > {stem}.csv",
    ),
    FileKind(
        magic=b"\x93NUMPY",
        name="a NumPy array",
        mend="python -c \"import numpy; numpy.savetxt('{stem}.csv', numpy.load('{path}'), '%.17g', ',', header='a,b', comments='')\"",
    ),
    FileKind(
        magic=b"\xd0\xcf\x11\xe0",
        name="an Excel workbook (.xls)",
        mend="save the sheet as CSV UTF-8",
    ),
    FileKind(magic=b"BZh", name="compressed with bzip2", mend="bunzip2 --keep {path}"),
    FileKind(magic=b"\xfd7zXZ\0", name="compressed with xz", mend="unxz --keep {path}"),
    FileKind(magic=b"\x28\xb5\x2f\xfd", name="compressed with zstd", mend="unzstd {path}"),
    FileKind(magic=b"7z\xbc\xaf\x27\x1c", name="a 7-Zip archive", mend="7z x {path}"),
    FileKind(
        magic=b"\x89HDF\r\n\x1a\n", name="an HDF5 file", mend="write the table as CSV or Parquet"
    ),
    FileKind(magic=b"ORC", name="an ORC file", mend="write the table as CSV or Parquet"),
    FileKind(magic=b"Obj\x01", name="an Avro file", mend="write the table as CSV or Parquet"),
    FileKind(magic=b"%PDF-", name="a PDF document", mend="write the table as CSV"),
    FileKind(magic=b"\x89PNG", name="an image", mend="write the table as CSV"),
    FileKind(magic=b"\x7fELF", name="a program", mend="name a table"),
)
ZIPPED = (
    ("xl/workbook", "an Excel workbook", "save the sheet as CSV UTF-8"),
    ("content.xml", "an OpenDocument sheet", "save the sheet as CSV, in UTF-8"),
    (".npy", "an archive of NumPy arrays", "write the table as CSV or Parquet"),
    ("word/document", "a Word document", "write the table as CSV"),
)
"""Archives by a name in them."""


def find_kind(source: Path) -> Readable | None:
    """Return what kind of table a file is by its content; None: text, or another kind.

    Raises:
        InputError: The file cannot be read.
    """
    head = _head(source)
    found = next((kind for magic, kind in MAGIC if head.startswith(magic)), None)
    return "arrow-stream" if found is None and starts_as_stream(head) else found


def starts_as_stream(head: bytes) -> bool:
    """Tell whether first bytes are those of an Arrow stream: a mark, and the length of a schema."""
    size = int.from_bytes(head[4:8], "little")
    return head.startswith(b"\xff\xff\xff\xff") and 0 < size < MOST_SCHEMA_BYTES


def other_kind(source: Path, needed: str) -> InputError | None:
    """Return the error of a file that is known to be of a kind which is not read; None: it may be read.

    Args:
        source: The file.
        needed: What must stand there, with its article.

    Raises:
        InputError: The file cannot be read.
    """
    head = _head(source)
    if head.startswith(b"PK\x03\x04"):
        return _zipped(source, needed)
    kind = next((kind for kind in OTHERS if head.startswith(kind.magic)), None)
    if kind is None:
        return None
    path = str(source) if "{path}'" in kind.mend else shlex.quote(str(source))
    hint = kind.mend.format(path=path, stem=source.stem)
    return InputError(f"{source} is {kind.name}, {needed} is needed", hint=hint)


def packed_kind(source: Path, head: bytes) -> InputError | None:
    """Return the error of a gzip file that holds no text, by the first bytes of what is in it."""
    path = shlex.quote(str(source))
    if head[257:262] == b"ustar":
        return InputError(f"{source} is a tar archive, compressed", hint=f"tar -xzf {path}")
    magics = [magic for magic, _ in MAGIC] + [kind.magic for kind in OTHERS] + [b"PK\x03\x04"]
    if any(map(head.startswith, magics)) or starts_as_stream(head):
        return InputError(
            f"{source} is compressed with gzip and holds no text", hint=f"gunzip --keep {path}"
        )
    return None


WORKBOOKS = frozenset({".xlsx", ".xlsm", ".ods"})
"""Endings of spreadsheets, which are zip archives."""


def _zipped(source: Path, needed: str) -> InputError:
    try:
        with zipfile.ZipFile(source) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        names = []
    for part, name, mend in ZIPPED:
        if any(part in entry for entry in names):
            return InputError(f"{source} is {name}, {needed} is needed", hint=mend)
    mend = f"unzip {shlex.quote(str(source))}"
    if source.suffix.lower() in WORKBOOKS:
        mend = "save it as CSV"
    return InputError(f"{source} is a zip archive, {needed} is needed", hint=mend)


def _head(source: Path) -> bytes:
    try:
        with source.open("rb") as content:
            return content.read(512)
    except PermissionError as error:
        raise InputError(f"{source} cannot be read: permission denied") from error
    except OSError as error:
        raise InputError(f"{source} cannot be read: {error.strerror}") from error
