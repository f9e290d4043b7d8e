"""A standard output that is closed, full or narrow costs no file and ends with one line."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from loopedge_cli import interrupts
from loopedge_cli.main import main

if TYPE_CHECKING:
    from collections.abc import Iterator

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full on this system")


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Put the handlers back that `main` takes."""
    before = {number: signal.getsignal(number) for number in interrupts.ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Streams:
    """Standard output and error of a run of `main`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.err = io.TextIOWrapper(io.BytesIO(), "ascii")

    def run(self, out: object, *words: object, err: object = "kept") -> tuple[int, list[str]]:
        """Return the exit code and the lines on standard error."""
        self._monkeypatch.setattr(sys, "argv", ["loopedge", *map(str, words)])
        self._monkeypatch.setattr(sys, "stdout", out)
        self._monkeypatch.setattr(sys, "stderr", self.err if err == "kept" else err)
        with pytest.raises(SystemExit) as caught:
            main()
        self.err.seek(0)
        lines = self.err.read().splitlines()
        return int(caught.value.code or 0), [
            line for line in lines if not line.startswith("note: ")
        ]


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> Streams:
    return Streams(monkeypatch)


@pytest.fixture
def full() -> Iterator[io.TextIOWrapper]:
    with FULL.open("w", encoding="utf-8") as stream:
        yield stream


def narrow() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), "ascii", "strict")


HINT = "hint: send it into a file of another disk: > result.txt"


@needs_full
@pytest.mark.parametrize("mode", [(), ("--json",), ("--quiet",)])
def test_a_full_disk_behind_standard_output(
    streams: Streams, full: io.TextIOWrapper, tiny: Path, ids: Path, mode: tuple[str, ...]
) -> None:
    target = tiny.with_name("out.npz")
    ended = streams.run(full, "run", tiny, "-i", ids, "-o", target, *mode)
    said = "error: the result cannot be printed on standard output: No space left on device; "
    assert ended == (2, [f"{said}{target} is written", HINT])
    assert np.load(target)["logits"].shape == (2, 6, 48)


@needs_full
@pytest.mark.parametrize("words", [("inspect", "tiny.onnx"), ("--help",), ("--version",)])
def test_a_full_disk_where_nothing_is_written(
    streams: Streams,
    full: io.TextIOWrapper,
    tiny: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tiny.parent)
    said = "error: the result cannot be printed on standard output: No space left on device"
    assert streams.run(full, *words) == (2, [said, HINT])


@pytest.mark.parametrize("kind", ["absent", "closed"])
@pytest.mark.parametrize("mode", [(), ("--json",), ("--quiet",)])
def test_a_standard_output_that_is_closed(
    streams: Streams, tiny: Path, ids: Path, mode: tuple[str, ...], kind: str
) -> None:
    out = None if kind == "absent" else narrow()  # None: it was closed when Python started
    if out is not None:
        out.close()
    target = tiny.with_name("out.npz")
    ended = streams.run(out, "run", tiny, "-i", ids, "-o", target, *mode)
    said = "error: the result cannot be printed on standard output: it is closed; "
    assert ended == (2, [f"{said}{target} is written", HINT])
    assert target.exists()


@pytest.mark.slow
@needs_full
def test_a_standard_error_that_cannot_be_printed_on_changes_nothing(
    streams: Streams, tiny: Path, ids: Path
) -> None:
    closed = narrow()
    closed.close()
    target = tiny.with_name("out.npz")
    with FULL.open("w", encoding="utf-8", buffering=1) as full:
        for err in (None, closed, full):
            out = narrow()
            code, _ = streams.run(
                out, "run", tiny, "-i", ids, "-o", target, "--force", "--quiet", err=err
            )
            out.seek(0)
            assert (code, out.read()) == (0, f"{target}\n")
            code, _ = streams.run(narrow(), "inspect", tiny.with_name("absent.onnx"), err=err)
            assert code == 2
            code, _ = streams.run(narrow(), "inspect", tiny, "--debug", err=err)
            assert code == 0


def test_a_reader_that_stops_early_is_no_error(streams: Streams, tiny: Path) -> None:
    for words in (("inspect", tiny), ("inspect", tiny, "--json"), ("--help",)):
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "w", encoding="utf-8") as out:
            assert streams.run(out, *words) == (1, [])


def test_a_narrow_encoding_prints_what_it_lacks_by_number(streams: Streams, tiny: Path) -> None:
    model = tiny.rename(tiny.with_name("mod\N{LATIN SMALL LETTER E WITH GRAVE}le.onnx"))
    for mode, said in (((), r"mod\xe8le.onnx"), (("--json",), r"mod\u00e8le.onnx")):
        out = narrow()
        assert streams.run(out, "inspect", model, *mode) == (0, [])
        out.seek(0)
        text = out.read()
        assert said in text
        if mode:
            assert json.loads(text)["path"] == str(model)
    out = narrow()
    code, err = streams.run(out, "inspect", model.with_name("\N{EURO SIGN}.onnx"))
    assert code == 2
    assert r"\u20ac.onnx does not exist" in err[0]


@pytest.mark.skipif(os.name == "nt", reason="descriptors of POSIX")
def test_a_stream_that_was_closed_at_start_is_no_file_of_ours(tiny: Path) -> None:
    """Were descriptor 1 free, the next file to be opened would take it, and what libraries print."""
    program = (
        "import os, sys\nfrom loopedge_cli.streams import open_streams\nopen_streams()\n"
        "sys.exit(os.open(sys.argv[1], os.O_RDONLY))\n"
    )
    done = subprocess.run(
        ["sh", "-c", '"$0" "$@" <&- >&- 2>&-', sys.executable, "-c", program, str(tiny)],
        check=False,
    )
    assert done.returncode > 2
