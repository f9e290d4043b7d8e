"""A file is read by what it holds, whatever it is called; what is not read says what it is."""

import gzip
import io
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loopedge.data.tables.format import TableFormat
from loopedge.data.tables.header import read_header
from loopedge.data.tables.reading import Selection, read_table
from loopedge.data.text_files import check_utf8
from loopedge.errors import InputError, MissingExtraError

pa = pytest.importorskip("pyarrow", reason="Parquet and Arrow need the extra 'parquet'")
pq = pytest.importorskip("pyarrow.parquet")
feather = pytest.importorskip("pyarrow.feather")

ROWS = 100_000
BOTH = Selection(numbers=("y", "x"), label="kind")


def table_of(rows: int = ROWS) -> Any:
    return pa.table(
        {
            "unread": [["a"]] * rows,
            "y": pa.array(np.arange(rows, dtype=np.int32)),
            "kind": pa.array(["a", None] * (rows // 2)).dictionary_encode(),
            "x": pa.array(np.arange(rows) / 4, mask=np.arange(rows) % 3 == 0),
        }
    )


def write_ipc(open_writer: Any) -> Callable[[Any, Path], None]:
    def write(table: Any, path: Path) -> None:
        with pa.OSFile(str(path), "wb") as target, open_writer(target, table.schema) as writer:
            writer.write_table(table, max_chunksize=70_001)

    return write


WRITE: dict[str, Callable[[Any, Path], None]] = {
    "Parquet": lambda table, path: pq.write_table(table, path, row_group_size=30_000),
    "Feather": lambda table, path: feather.write_feather(table, str(path)),
    "Feather with zstd": lambda table, path: feather.write_feather(
        table, str(path), compression="zstd"
    ),
    "an Arrow file": write_ipc(pa.ipc.new_file),
    "an Arrow stream": write_ipc(pa.ipc.new_stream),
}


@pytest.mark.parametrize("name", ["data.csv", "data", "data.feather", "data.pq", "data.parquet"])
@pytest.mark.parametrize("kind", WRITE)
def test_content_says_the_kind(tmp_path: Path, kind: str, name: str) -> None:
    path = tmp_path / name
    WRITE[kind](table_of(1000), path)
    table = read_table(path, BOTH)
    expected = np.arange(1000) / 4
    expected[::3] = np.nan
    np.testing.assert_array_equal(table.values, np.stack([np.arange(1000), expected], axis=1))
    assert table.labels is not None
    assert table.labels.names == ("a",)
    np.testing.assert_array_equal(table.labels.codes, [0, -1] * 500)
    assert table.first_missing == f"{name}: row 1, column 'x'"
    assert read_header(path, ()) == ("unread", "y", "kind", "x")


@pytest.mark.parametrize("kind", WRITE)
def test_rows_are_counted_over_batches(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "data.bin"
    WRITE[kind](table_of(), path)
    np.testing.assert_array_equal(
        read_table(path, Selection(numbers=("y",))).values[:, 0], np.arange(ROWS)
    )
    values = np.zeros(ROWS)
    values[80_000] = np.inf
    WRITE[kind](pa.table({"y": values}), path)
    with pytest.raises(InputError, match=r"row 80001, column 'y': 'inf' is too large"):
        read_table(path, Selection(numbers=("y",)))


@pytest.mark.parametrize("kind", WRITE)
def test_the_checks_of_types_and_names_are_those_of_parquet(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "data.bin"
    WRITE[kind](table_of(10), path)
    with pytest.raises(InputError, match="column 'kind' is of type string, a number is needed"):
        read_table(path, Selection(numbers=("kind",)))
    with pytest.raises(InputError, match=r"column 'unread' is of type list.*, a value is needed"):
        read_table(path, Selection(numbers=("y",), group="unread"))
    with pytest.raises(InputError, match="no column 'z'; the columns are unread, y, kind, x"):
        read_table(path, Selection(numbers=("z",)))
    form = TableFormat(na_values=("3", "a"))
    table = read_table(path, BOTH, form)
    assert np.isnan(table.values[3, 0])
    assert table.labels is not None
    assert table.labels.names == ()


@pytest.mark.parametrize("kind", WRITE)
def test_a_torn_file_is_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "data.bin"
    WRITE[kind](table_of(1000), path)
    whole = path.read_bytes()
    for size in (len(whole) // 2, len(whole) - 20, 100):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match="file or is damaged") as caught:
            read_table(path, BOTH)
        assert "\n" not in caught.value.message


def test_arrow_without_its_package_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "data.feather"
    WRITE["Feather"](table_of(10), path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match="reading Arrow needs the extra 'parquet'"):
        read_table(path, BOTH)


CSV = b"y,x\n" + b"".join(b"%d,%d\n" % (r, r * r) for r in range(50_000))


@pytest.mark.parametrize("name", ["data.csv.gz", "data.csv", "data.gz"])
def test_gzip_is_unpacked_on_the_way(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(CSV[:1000]) + gzip.compress(CSV[1000:]))
    values = read_table(path, Selection(numbers=("y", "x"))).values
    np.testing.assert_array_equal(values[:, 1], np.arange(50_000.0) ** 2)
    path.write_bytes(gzip.compress("y,x\n1,2\n".encode("utf-16")))
    table = read_table(path, Selection(numbers=("y",)))
    assert [finding.kind for finding in table.findings] == ["encoding"]


def tar() -> bytes:
    import tarfile

    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as archive:
        member = tarfile.TarInfo("data.csv")
        member.size = len(CSV)
        archive.addfile(member, io.BytesIO(CSV))
    return held.getvalue()


PACKED = gzip.compress(CSV)
DAMAGED = {
    "cut": (PACKED[:-100], "is a gzip file that ends too early"),
    "cut in its header": (PACKED[:8], "is a gzip file that ends too early"),
    "cut in its trailer": (PACKED[:-3], "is a gzip file that ends too early"),
    "a changed byte": (PACKED[:5000] + b"\0\0" + PACKED[5002:], "is a damaged gzip file"),
    "a wrong checksum": (PACKED[:-8] + b"\0\0\0\0" + PACKED[-4:], "is a damaged gzip file"),
    "more behind it": (PACKED + b"more", "is a damaged gzip file"),
    "an archive": (tar(), "is a tar archive, compressed"),
    "twice": (gzip.compress(PACKED), "is compressed with gzip and holds no text"),
    "another kind": (gzip.compress(b"PAR1" * 100), "is compressed with gzip and holds no text"),
    "nothing": (gzip.compress(b""), "is empty"),
    "another encoding": (
        gzip.compress("y,ort\n1,Köln\n".encode("cp1252")),
        r"byte 9 \(line 2\), it seems",
    ),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_gzip_file_that_cannot_be_used_is_one_line(tmp_path: Path, kind: str) -> None:
    content, words = DAMAGED[kind]
    path = tmp_path / "data.csv.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        read_table(path, Selection(numbers=("y",)))
    assert caught.value.hint
    assert "\n" not in caught.value.message


def zipped(*names: str) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return held.getvalue()


def npy() -> bytes:
    held = io.BytesIO()
    np.save(held, np.zeros((2, 2)))
    return held.getvalue()


OTHERS = {
    "xlsx": (zipped("[Content_Types].xml", "xl/workbook.xml"), "is an Excel workbook", "CSV UTF-8"),
    "ods": (zipped("mimetype", "content.xml"), "is an OpenDocument sheet", "CSV"),
    "npz": (zipped("x.npy"), "is an archive of NumPy arrays", "CSV or Parquet"),
    "zip": (zipped("data.csv"), "is a zip archive", "unzip "),
    "a torn zip": (zipped("data.csv")[:30], "is a zip archive", "unzip "),
    "xls": (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),
        r"is an Excel workbook \(.xls\)",
        "CSV",
    ),
    "npy": (npy(), "is a NumPy array", "numpy.savetxt"),
    "Feather 1": (b"FEA1" + bytes(8), "is a file of Feather version 1", "write_feather"),
    "bzip2": (b"BZh91AY&SY", "is compressed with bzip2", "bunzip2"),
    "xz": (b"\xfd7zXZ\0", "is compressed with xz", "unxz"),
    "zstd": (b"\x28\xb5\x2f\xfd", "is compressed with zstd", "unzstd"),
    "pdf": (b"%PDF-1.7", "is a PDF document", "CSV"),
    "nothing": (b"", "is empty", "write a table"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_kinds_say_what_they_are(tmp_path: Path, kind: str) -> None:
    content, words, hint = OTHERS[kind]
    path = tmp_path / "data.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        read_table(path, Selection(numbers=("y",)))
    assert hint in str(caught.value.hint)
    if kind != "nothing":
        with pytest.raises(InputError, match=words):
            check_utf8(path)


def test_the_command_for_an_array_writes_a_table(tmp_path: Path) -> None:
    path = tmp_path / "values.npy"
    np.save(path, np.array([[1.0, 2.5], [3.0, 4.0]]))
    with pytest.raises(InputError) as caught:
        read_table(path, Selection(numbers=("b",)))
    command = str(caught.value.hint).replace("python -c", f"{sys.executable} -c")
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    table = read_table(tmp_path / "values.csv", Selection(numbers=("b",)))
    np.testing.assert_array_equal(table.values[:, 0], [2.5, 4])


def test_a_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.db"
    with sqlite3.connect(path) as database:
        database.execute("create table readings (y)")
    database.close()
    with pytest.raises(InputError, match="is an SQLite database") as caught:
        read_table(path, Selection(numbers=("y",)))
    assert str(caught.value.hint).startswith("sqlite3 -header -csv")


@pytest.mark.parametrize("name", ["data.pq", "data.parquet", "data.feather", "data.arrow"])
def test_text_under_the_name_of_a_binary_table_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("y\n1\n")
    kind = "a Parquet" if name.endswith(("pq", "parquet")) else "an Arrow"
    with pytest.raises(InputError, match=f"is not {kind} file or is damaged"):
        read_table(path, Selection(numbers=("y",)))


MEASURE = """
import sys
from pathlib import Path
from loopedge.data.tables.reading import Selection, read_table

def peak():  # ru_maxrss would begin with what the process that starts this one held
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

read_table(sys.argv[1], Selection(numbers=("y",)))
before = peak()
table = read_table(sys.argv[2], Selection(numbers=("y",)))
print(table.values.nbytes, peak() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gzip", "an Arrow file", "an Arrow stream", "wide"])
def test_every_kind_is_streamed(tmp_path: Path, kind: str) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    if kind == "gzip":
        row = "%d," + "filling," * 20 + "\n"
        for path, rows in ((small, 10), (large, 500_000)):
            with gzip.open(path, "wt", compresslevel=1) as file:
                file.write("y," + ",".join(map(str, range(21))) + "\n")
                file.writelines(row % r for r in range(rows))
    elif kind == "wide":
        header = "y," + ",".join(f"c{c}" for c in range(20_000)) + "\n"
        for path, rows in ((small, 10), (large, 800)):
            path.write_text(header + ("1," + "2.5," * 19_999 + "3\n") * rows)
    else:
        for path, rows in ((small, 10), (large, 2_000_000)):
            filling = pa.array(np.zeros(rows))
            filled = {
                "y": np.arange(rows, dtype=np.float64),
                **{f"c{c}": filling for c in range(8)},
            }
            WRITE[kind](pa.table(filled), path)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(small), str(large)],
        capture_output=True,
        text=True,
        check=True,
    )
    columns, grown = map(int, done.stdout.split())
    assert grown < 3 * columns + 30e6


@pytest.mark.parametrize("offset", [-7, 2**30, 1])
@pytest.mark.parametrize("stream", [False, True])
def test_an_arrow_file_whose_texts_point_elsewhere_is_damaged(
    tmp_path: Path, offset: int, stream: bool
) -> None:
    table = pa.table({"y": [1.5, 2.5, 3.5, 4.5], "label": ["up", "down", "up", "down"]})
    path = tmp_path / "t.arrow"
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(str(path), table.schema) as writer:
        writer.write_table(table)
    content, offsets = path.read_bytes(), np.array([0, 2, 6, 8, 12], np.int32)
    assert content.count(offsets.tobytes()) == 1
    torn = offsets.copy()
    torn[2] = offset
    path.write_bytes(content.replace(offsets.tobytes(), torn.tobytes()))
    with pytest.raises(InputError, match="is damaged"):
        read_table(path, Selection(numbers=("y",), label="label"))
    assert len(read_table(path, Selection(numbers=("y",))).values) == 4


def test_a_spreadsheet_that_is_hardly_one_is_saved_as_csv(tmp_path: Path) -> None:
    for name, mend in (("t.xlsx", "save it as CSV"), ("t.zip", "unzip ")):
        path = tmp_path / name
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.txt", "a")
        with pytest.raises(InputError, match="is a zip archive") as caught:
            read_table(path, Selection(numbers=("y",)))
        assert caught.value.hint is not None
        assert caught.value.hint.startswith(mend)


def test_a_table_separated_by_blanks_names_the_option(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("x y\n1 2\n")
    with pytest.raises(InputError, match="no column 'y'") as caught:
        read_table(path, Selection(numbers=("y",)))
    assert caught.value.hint == "form=TableFormat(delimiter=' ')"
    found = read_table(path, Selection(numbers=("y",)), TableFormat(delimiter=" "))
    np.testing.assert_array_equal(found.values, [[2.0]])


def test_a_column_that_is_named_twice_is_said_as_what() -> None:
    with pytest.raises(InputError, match="'y' is named twice, as target or covariate and as time"):
        Selection(numbers=("y",), time="y")
    with pytest.raises(InputError, match=r"'y' is named twice, as target or covariate$"):
        Selection(numbers=("y", "y"))
