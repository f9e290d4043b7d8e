"""A file of ranges that does not fit: documented codes, one line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.fuzz.seeds import make_seeds

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Cli


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranges")
    make_seeds(folder)
    return folder


def every(low: float, high: float) -> Callable[[dict[str, Any]], None]:
    def change(table: dict[str, Any]) -> None:
        for found in table["tensors"].values():
            found |= {"low": [low] * len(found["low"]), "high": [high] * len(found["high"])}

    return change


def shorten(table: dict[str, Any]) -> None:
    for found in table["tensors"].values():
        found |= {"low": found["low"][:1], "high": found["high"][:1]}


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (every(0.0, 0.0), 3, "SQNR"),
        (every(0.0, 5e-324), 3, "SQNR"),
        (every(float("nan"), 1.0), 2, "[nan, 1.0] is not a range of float32"),
        (every(-1e39, 1e39), 2, "is not a range of float32"),
        (every(2.0, 1.0), 2, "[2.0, 1.0] is not a range of float32"),
        (lambda table: table["tensors"].clear(), 2, "the ranges lack linear"),
        (shorten, 2, "have 1 rows"),
        (lambda table: table.update(loops=10**30), 2, "too many digits"),
        (lambda table: table.update(lengths={}), 2, "lengths: Input should be a valid list"),
        (lambda table: table.update(lengths=[-1]), 2, "lengths.0: Input should be greater than"),
    ],
    ids=range(10),
)
def test_ranges_that_do_not_fit(
    change: Callable[[dict[str, Any]], None],
    code: int,
    words: str,
    cli: Cli,
    seeds: Path,
    tmp_path: Path,
) -> None:
    table = json.loads((seeds / "ranges.json").read_text())
    change(table)
    (tmp_path / "r.json").write_text(json.dumps(table))
    words_of_it = ("quantize", seeds / "tiny.onnx", "-o", tmp_path / "q.onnx", "--threads", 1)
    outcome = cli(*words_of_it, "--ranges-file", tmp_path / "r.json")
    assert (outcome.code, words in outcome.err) == (code, True), outcome.err
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]
