"""The page of a bundle: what it names exists, and what it shows runs."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from loopedge.packager.bundle import read_bundle
from loopedge.packager.page import page_text
from tests.graph.generate_files import GenerateModel, write_generate_file
from tests.unit.bundles import package, short_model, tiny

if TYPE_CHECKING:
    from pathlib import Path

LATER = {"c/build/example", "c/build/bench", "device.json", "path/to/onnxruntime"}
"""What the page names and its commands make, or the reader has."""


def named_files(page: str) -> set[str]:
    """Return the paths that a page names, or the patterns of paths."""
    found = re.findall(r"(?<![\w/@:.-])((?:[\w.-]+/)+[\w.-]+\.?\w+\*?)", page)
    return {
        path.rstrip(".")
        for path in found
        if not path.startswith(("docs/", "text/", "application/"))
    }


@pytest.mark.slow
def test_every_file_that_the_page_names_is_there(tmp_path: Path) -> None:
    package(tiny(tmp_path, dynamic=True), "web", "node", "c", "python")
    folder = tmp_path / "bundle"
    page = (folder / "README.md").read_text(encoding="utf-8")
    named = named_files(page) - LATER
    assert {
        "node/verify.mjs",
        "python/bench.py",
        "models/tiny_dynamic.ort",
        "c/example.c",
    } <= named
    assert sorted(path for path in named if not any(folder.glob(path))) == []
    for heading in ("In a browser", "In Node", "In C", "In Python", "Sizes", "Without a network"):
        assert f"## {heading}" in page
    assert "14.2 MB, 3.7 MB" in page
    assert "One block runs again and again: 3 times" in page


@pytest.mark.slow
def test_the_program_that_the_page_shows_runs(tmp_path: Path) -> None:
    package(short_model(tmp_path))
    folder = tmp_path / "bundle"
    page = (folder / "README.md").read_text(encoding="utf-8")
    [program] = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    window = "import numpy\nwindow = numpy.ones((1, 4, 2))\n"
    words = [sys.executable, "-c", window + program + "print(outputs['outputs'].tolist())"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[[[1.0], [1.0]]]", done.stderr


def test_the_page_says_what_goes_in(tmp_path: Path) -> None:
    package(short_model(tmp_path, missing_values=True))
    page = page_text(read_bundle(tmp_path / "bundle"))
    assert "it forecasts the next 2 values of `y`" in page
    assert "holds the columns `y`, `x`, in this order. A window is 4 table rows" in page
    assert "One of 2 rows at least will do" in page
    assert "2 to 4 positions, NaN where a value is missing" in page
    assert "## In C" not in page


def test_the_page_of_a_text_model_hides_the_cache(tmp_path: Path) -> None:
    package(write_generate_file(GenerateModel(context=48), tmp_path / "lm.generate.onnx"))
    page = page_text(read_bundle(tmp_path / "bundle"))
    assert "it goes on with a text" in page
    assert "past." not in page
    assert "token ids, 0 to 255, 1 to 48 positions" in page
    assert 'bundle.generate("The ")' in page
