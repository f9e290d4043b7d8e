"""Arrays from files of others: what a header declares is measured against the file before it is taken."""

import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from loopedge.errors import InputError
from loopedge.files import npy_format
from loopedge.files.arrays import read_array_file
from loopedge_calibration.readers import read_samples

FINE = "{'descr': '<i8', 'fortran_order': False, 'shape': (2,), }"


def npy(header: str, *, values: bytes = bytes(16), version: int = 1) -> bytes:
    text = header.encode("latin-1") + b"\n"
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + values


def npz(path: Path, content: bytes, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("x.npy", content)
    return path


@pytest.mark.parametrize("version", [1, 2, 3])
def test_all_versions_of_the_format(version: int, tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(npy(FINE, version=version))
    assert read_array_file(tmp_path / "x.npy", {"x": 1}).arrays["x"].tolist() == [0, 0]


@pytest.mark.parametrize("order", ["C", "F"])
def test_both_orders_come_back(order: str, tmp_path: Path) -> None:
    array = np.arange(6).reshape(2, 3, order=order)  # type: ignore[call-overload]
    np.savez(tmp_path / "x.npz", x=array)
    np.testing.assert_array_equal(read_array_file(tmp_path / "x.npz", {"x": 2}).arrays["x"], array)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not an .npy file"),
        (b"\x93NUMPY\x09\x00", "is not an .npy file"),
        (npy(FINE)[:20], "ends within its header"),
        (npy(FINE.replace("'shape'", "'form'")), "descr, fortran_order and shape"),
        (npy(FINE.replace("(2,)", "(-2,)")), r"shape \(-2,\)"),
        (npy(FINE.replace("(2,)", "(True,)")), "damaged header"),
        (npy(FINE.replace("(2,)", "(10**9,)")), "damaged header"),
        (npy(FINE.replace("(2,)", f"({10**12},)")), "takes 8,000,000,000,000 bytes"),
        (npy(FINE.replace("(2,)", f"({10**4000},)")), "damaged header: shape"),
        (npy(FINE.replace("(2,)", "(1," * 40 + ")")), "damaged header"),
        (npy(FINE.replace("<i8", "|O")), "Python objects"),
        (npy(FINE.replace("'<i8'", "[('a', '<i8')]")), "plain arrays of numbers"),
        (npy(FINE.replace("False", "0")), "damaged header"),
        (npy("{" * 5000), "damaged header"),
        (npy("{[]: 1}"), "damaged header"),
        (npy("x" * 20_000), "at most 10000 are read"),
        (npy(FINE, values=bytes(9)), "is truncated"),
    ],
    ids=range(17),
)
def test_a_damaged_header(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(content)
    npz(tmp_path / "x.npz", content)
    with pytest.raises(InputError, match=words):
        read_array_file(tmp_path / "x.npy", {"x": 1})
    for read in (
        lambda path: read_array_file(path, {"x": 1}).arrays,
        lambda path: list(read_samples(path)),
    ):
        with pytest.raises(InputError, match=words):
            read(tmp_path / "x.npz")


@pytest.mark.slow
def test_a_member_that_inflates_past_the_limit(tmp_path: Path) -> None:
    size = (1 << 25) + 8
    header = FINE.replace("(2,)", f"({size},)")
    with (
        zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("x.npy", "w") as member,
    ):
        member.write(npy(header, values=b""))
        for _ in range(8 * size >> 22):
            member.write(bytes(1 << 22))
        member.write(bytes(8 * size % (1 << 22)))
    with pytest.raises(InputError, match=r"268,435,520 bytes, at most 268,435,456 are read"):
        read_array_file(tmp_path / "x.npz", {"x": 1})
    assert len(next(iter(read_samples(tmp_path / "x.npz")))["x"]) == 8  # in pieces


def test_what_a_member_declares_is_not_there(tmp_path: Path) -> None:
    path = npz(tmp_path / "x.npz", npy(FINE.replace("(2,)", f"(8, {1 << 30})")))
    with pytest.raises(InputError, match="is truncated: shape"):
        list(read_samples(path))


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_member_that_is_compressed_oddly(compression: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="compressed in a way that numpy does not write"):
        read_array_file(npz(tmp_path / "x.npz", npy(FINE), compression), {"x": 1})


def test_a_member_that_is_encrypted(tmp_path: Path) -> None:
    path = npz(tmp_path / "x.npz", npy(FINE))
    content = bytearray(path.read_bytes())
    for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(mark) + place] |= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="is encrypted"):
        read_array_file(path, {"x": 1})


def test_a_flipped_bit_of_the_values(tmp_path: Path) -> None:
    path = npz(tmp_path / "x.npz", npy(FINE))
    content = bytearray(path.read_bytes())
    content[content.index(b"(2,)") + 20] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="Bad CRC-32"):
        read_array_file(path, {"x": 1})


def test_a_defect_of_the_reader_itself_is_not_called_bad_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(text: str, where: str) -> None:
        raise ValueError("planted")

    monkeypatch.setattr(npy_format, "_parse", defect)
    with pytest.raises(ValueError, match="planted"):
        read_array_file(npz(tmp_path / "x.npz", npy(FINE)), {"x": 1})
