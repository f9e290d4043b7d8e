"""What the characters of a table are written in: marks are taken, all else is named with what reads it."""

import gzip
import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from loopedge.data.tables.format import TableFormat
from loopedge.data.tables.reading import Selection, read_table
from loopedge.data.text_files import check_utf8
from loopedge.errors import InputError
from loopedge.files import text_pieces
from loopedge.files.encodings import guess_encoding, iconv_command
from loopedge.options import naming_flags

WESTERN = {
    "a name": "zeit;wert;ort\n1;2;Köln\n2;3;Süd\n",
    "one letter": "x,y\nü,2\n",
    "a unit": "t,Temp °C,y\n1,2,3\n",
    "a micro sign": "x,y\n1,2\nµ,4\n",
    "a power": "Zähler m³,y\n1,2\n",
    "the euro": "preis;y\n5 €;3\n",
    "French": "journée,réseau\nété,l’été\ncœur,où\n",  # noqa: RUF001
    "Spanish": "año;mañana;¿qué?\n1;2;3\n",
    "Portuguese": "estação,ação,não\n1,2,3\n",
    "Swedish": "mätare;förbrukning;år\n1;2;3\n",
    "Icelandic": "gata,vörður,þórður,Ægir\n1,2,3,4\n",
}
OTHERS = {
    "cp1250": "miasto;wartość;żółw\nŁódź;1;2\nKraków;2;3\nGdańsk;1;1\nzłoty;3;3\n",
    "cp1251": "время;значение\nпривет;1\nмосква;2\n",  # noqa: RUF001
    "koi8-r": "время;значение\nпривет;1\nмосква;2\n",  # noqa: RUF001
    "cp1253": "ώρα;τιμή;θερμοκρασία\n1;2;3\n",
    "cp1254": "şehir;değer;ışık\nİstanbul;1;2\nİzmir;2;2\nEskişehir;3;3\n",  # noqa: RUF001
    "cp932": "時刻,値,場所\n1,2,東京\n2,3,大阪\n3,4,名古屋市\n",
    "gb18030": "时间,数值,地点\n1,2,北京市\n2,3,上海市\n",
    "big5": "時間,數值,地點\n1,2,臺北市\n2,3,高雄市\n",
    "cp949": "시간,값,장소\n1,2,서울특별시\n2,3,부산광역시\n",
    "cp850": "Köln,Süd,grün,été\n1,2,3,4\n",
    "mac-roman": "Köln,Süd,grün,é\n1,2,3,4\n",
    "utf-16-le": "a,b\n1,2\n",
    "utf-16-be": "时间,数值,地点\n1,2,北京市\n2,3,上海市\n",
    "utf-32-le": "a,b\n1,2\n",
    "utf-32-be": "ä,b\n1,2\n",
}


def write(folder: Path, content: bytes, name: str = "data.csv") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("kind", WESTERN)
def test_text_of_western_europe_is_windows_1252(kind: str) -> None:
    guess = guess_encoding(io.BytesIO(WESTERN[kind].encode("cp1252")))
    assert guess.encoding == "cp1252"


@pytest.mark.parametrize("encoding", OTHERS)
def test_other_encodings_are_named_by_one_that_reads_the_same(encoding: str) -> None:
    content = OTHERS[encoding].encode(encoding)
    found = guess_encoding(io.BytesIO(content)).encoding
    assert found is not None
    assert content.decode(found) == OTHERS[encoding]


@pytest.mark.parametrize(
    "encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]
)
def test_a_mark_says_the_encoding(tmp_path: Path, encoding: str) -> None:
    mark = "\ufeff" if encoding.endswith("e") else ""
    rows = "".join(f"{r},{r * r},Süd €\n" for r in range(9000))
    path = write(tmp_path, (mark + "t,y,ort\n" + rows).encode(encoding))
    table = read_table(path, Selection(numbers=("t", "y"), label="ort"))
    np.testing.assert_array_equal(table.values[:, 1], np.arange(9000.0) ** 2)
    assert table.labels is not None
    assert table.labels.names == ("Süd €",)
    kinds = [finding.kind for finding in table.findings]
    assert kinds == ([] if encoding == "utf-8-sig" else ["encoding"])


@pytest.mark.parametrize(
    "encoding", ["cp1252", "latin-1", "cp932", "gb18030", "utf_16", "mac_roman"]
)
@pytest.mark.parametrize("piece", [2, 7, 1 << 18])
def test_a_named_encoding_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, piece: int
) -> None:
    monkeypatch.setattr(text_pieces, "PIECE", piece)
    name = "東京" if encoding in {"cp932", "gb18030"} else "Süd"
    path = write(tmp_path, f"{name},y\n1,2\n3,4\n".encode(encoding))
    table = read_table(path, Selection(numbers=(name,)), TableFormat(encoding=encoding))
    np.testing.assert_array_equal(table.values, [[1], [3]])


def test_the_error_names_byte_line_encoding_and_commands_that_work(tmp_path: Path) -> None:
    content = ("x,ort\n" + "1,Bonn\n" * 5 + "2,Köln\n").encode("cp1252")
    path = write(tmp_path, content, "my data.csv")
    with naming_flags(), pytest.raises(InputError) as caught:
        read_table(path, Selection(numbers=("x",)))
    place = content.index("ö".encode("cp1252"))
    assert caught.value.message == (
        f"{path} is not UTF-8 text: byte {place} (line 7), it seems to be cp1252, which reads 'Köln'"
    )
    option, command = str(caught.value.hint).split(", or ")
    assert option == "--encoding cp1252"
    assert command == f"iconv -f cp1252 -t utf-8 '{path}' > utf8.csv"


@pytest.mark.skipif(shutil.which("iconv") is None, reason="needs iconv")
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("encoding", ["cp1252", *OTHERS])
def test_the_command_writes_utf8(tmp_path: Path, encoding: str, compressed: bool) -> None:
    text = OTHERS.get(encoding, "Köln,1\n")
    content = text.encode(encoding)
    found = guess_encoding(io.BytesIO(content)).encoding
    path = write(tmp_path, gzip.compress(content) if compressed else content)
    command = iconv_command(path, found, compressed=compressed)
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True)
    assert (tmp_path / "utf8.csv").read_text(encoding="utf-8") == text


WRONG = {
    "UTF-16 without a mark": (
        "x,y\n1,2\n".encode("utf-16-le"),
        None,
        "line 1 holds a NUL byte.*utf-16-le",
    ),
    "a mark and another name": (
        "x,y\n1,2\n".encode("utf-16"),
        "cp1252",
        "byte order mark of utf-16-le",
    ),
    "UTF-16 that is none": (
        b"x,y\n1,2\n",
        "utf-16",
        "is not utf-16 text: its first bytes are UTF-8",
    ),
    "ASCII that is none": (b"x,y\n1,\xe4\n", "ascii", r"is not ascii text: byte 6 \(line 2\)"),
    "a byte that cp1252 lacks": (
        b"x,y\n1,2\n3,\x81\n",
        "cp1252",
        r"not cp1252 text: byte 10 \(line 3\)",
    ),
    "half a character": (
        "x,東\n1,2\n".encode("cp932") + b"\x93",
        "cp932",
        r"cp932 text: byte 9 \(line 3\)",
    ),
    "one wrong line": (
        "x,ä\n1,ö\n".encode() + b"2,\xf6\n",
        None,
        r"byte 12 \(line 3\), though other lines are",
    ),
    "an odd byte of UTF-16": (
        "x,y\n1,2\n".encode("utf-16") + b"\n",
        None,
        "is not utf-16-le text: byte 18",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_the_encoding_does_not_have_is_one_line(tmp_path: Path, kind: str) -> None:
    content, encoding, words = WRONG[kind]
    path = write(tmp_path, content)
    with pytest.raises(InputError, match=words) as caught:
        read_table(path, Selection(numbers=("x",)), TableFormat(encoding=encoding))
    assert caught.value.hint
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("name", ["klingon", "hex", "idna", "", "base64", "undefined"])
def test_a_name_that_is_no_encoding_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="which names no encoding of text files"):
        TableFormat(encoding=name)


def test_utf8_that_is_read_as_something_else_is_said(tmp_path: Path) -> None:
    path = write(tmp_path, "Süd,y\n1,2\n".encode())
    table = read_table(path, Selection(numbers=("y",)), TableFormat(encoding="cp1252"))
    [finding] = table.findings
    assert finding.message == "data.csv is read as cp1252, but its characters are UTF-8 as well"
    assert read_table(path, Selection(numbers=("Süd",))).findings == ()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_wide_text_is_no_text_to_train_on(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path, ("a text of some lines\n" * 9).encode(encoding), "a.txt")
    with pytest.raises(
        InputError, match=r"is not UTF-8 text, it (seems to be|is marked as) utf-"
    ) as caught:
        check_utf8(path)
    assert str(caught.value.hint).startswith(f"iconv -f {encoding[:6]}")
