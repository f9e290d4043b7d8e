"""Token ids that stand in files: read window by window, so that memory does not grow with them."""

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from loopedge.data.split import Split
from loopedge.data.text_files import Span, changed
from loopedge.errors import DiskFullError
from loopedge.files.arrays import Array
from loopedge.files.full_disk import is_full_disk

__all__ = ["Ids", "Scratch", "store_ids"]


class Ids:
    """Ids of a fixed size in one or more files, as one long sequence.

    A file is opened for each window and not mapped: pages of a map count as memory of the process
    as soon as they are read, and a folder may hold more files than a process may have open.

    Args:
        spans: Where the ids stand, in items.
        dtype: Of an item, as it stands in the file.
        keep: What must live as long as the ids: the folder of a temporary file.
    """

    def __init__(
        self, spans: Sequence[Span], dtype: type[np.unsignedinteger[Any]], *, keep: object = None
    ) -> None:
        self._spans = [span for span in spans if len(span)]
        self._ends = np.cumsum([len(span) for span in self._spans], dtype=np.int64)
        self._dtype = np.dtype(dtype)
        self._keep = keep

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def read(self, start: int, count: int) -> Array:
        """Return ``count`` ids from ``start`` on, in their own type.

        Raises:
            InputError: A file has changed.
        """
        parts = []
        place = int(np.searchsorted(self._ends, start, side="right"))
        while count:
            span = self._spans[place]
            first = start - (int(self._ends[place]) - len(span))
            taken = min(count, len(span) - first)
            parts.append(self._read_span(span, first, taken))
            start, count, place = start + taken, count - taken, place + 1
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _read_span(self, span: Span, first: int, count: int) -> Array:
        size = self._dtype.itemsize
        try:
            with span.path.open("rb", buffering=0) as source:
                source.seek((span.start + first) * size)
                content = source.read(count * size)
        except OSError as error:
            raise changed(span.path) from error
        if len(content) != count * size:
            raise changed(span.path)
        return np.frombuffer(content, self._dtype)

    def windows(self, starts: Array, count: int) -> Array:
        """Return ``count`` ids from each start: int64 (starts, count)."""
        found = np.empty((len(starts), count), np.int64)
        for row, start in zip(found, starts, strict=True):
            row[:] = self.read(int(start), count)
        return found

    def sample(self, most: int, pieces: int = 64) -> list[Array]:
        """Return about ``most`` ids, as evenly spaced runs; all of them where there are no more."""
        if len(self) <= most:
            return [self.read(0, len(self))] if len(self) else []
        run = most // pieces
        starts = np.linspace(0, len(self) - run, pieces).astype(np.int64)
        return [self.read(int(start), run) for start in starts]


class Scratch:
    """A temporary folder that goes when nothing uses it any more, and with the process.

    Attributes:
        path: The folder.
        remove: Call it to remove the folder at once.
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="loopedge."))
        self.remove = weakref.finalize(self, _remove, self.path, os.getpid())


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # a forked process must not take its parent's folder along
        shutil.rmtree(folder, ignore_errors=True)


def store_ids(parts: Mapping[Split, Iterable[Array]], vocab_size: int) -> dict[Split, Ids]:
    """Write the ids of each split to one temporary file, and return them as they stand there.

    Args:
        parts: Arrays of ids, in order; taken one after the other.
        vocab_size: Decides the type: uint16 or uint32.

    Raises:
        InputError: The disk of temporary files is full.
    """
    dtype = np.uint16 if vocab_size <= 1 << 16 else np.uint32
    scratch = Scratch()
    path = scratch.path / "ids"
    ends = {}
    written = 0
    try:
        with path.open("wb") as target:
            for split, arrays in parts.items():
                for ids in arrays:
                    target.write(ids.astype(dtype).tobytes())
                    written += len(ids)
                ends[split] = written
    except BaseException as error:
        full = isinstance(error, OSError) and is_full_disk(error, scratch.path)
        scratch.remove()
        if not full:
            raise
        raise DiskFullError(
            f"no space left for the encoded text in {scratch.path.parent}",
            hint="set TMPDIR to a folder on a larger disk",
        ) from error
    starts = [0, *ends.values()]
    return {
        split: Ids([Span(path=path, start=start, end=end)], dtype, keep=scratch)
        for start, (split, end) in zip(starts, ends.items(), strict=False)
    }
