"""What README and docs name: files that their commands write, and files of the repository."""

from __future__ import annotations

import ast
import re
import shlex
from collections import defaultdict
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from tests.docs.pages import PAGES, ROOT, Block, blocks_of, commands_of, name_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TARGET_OPTIONS = {"-o", "--output", "--html", ">"}
SECOND_ARGUMENT = {"export", "quantize", "save", "prepare", "convert", "pilot", "unroll"}
"""Functions whose second argument is the target."""


def targets_of_shell(block: Block) -> Iterator[str]:
    """Yield what the commands of a block write; those that replace with ``--force`` are left out."""
    for command in commands_of(block):
        words = shlex.split(command, comments=True)
        if "--force" in words or "benchmarks/" in command:
            continue
        yield from (target for option, target in pairwise(words) if option in TARGET_OPTIONS)


def targets_of_python(block: Block) -> Iterator[str]:
    """Yield the targets of the calls of a block that are written as a plain text."""
    for node in ast.walk(ast.parse(block.text)):
        if not isinstance(node, ast.Call) or any(
            word.arg == "force" and ast.unparse(word.value) == "True" for word in node.keywords
        ):
            continue
        called = ast.unparse(node.func)
        verb = called.rpartition(".")[2]
        if verb == "write_text" and isinstance(node.func, ast.Attribute):
            path = node.func.value
            found = path.args[:1] if isinstance(path, ast.Call) else []
        elif verb == "train":
            found = node.args[3:4]
        elif called == f"loopedge.{verb}" and verb in SECOND_ARGUMENT:
            found = node.args[1:2]
        else:
            found = []
        yield from (
            word.value
            for word in found
            if isinstance(word, ast.Constant) and isinstance(word.value, str)
        )


def targets_of(block: Block) -> Iterator[str]:
    if block.kind == "sh":
        yield from targets_of_shell(block)
    elif block.kind == "python" and block.reason is None:
        yield from targets_of_python(block)


def places_by_target() -> dict[str, list[str]]:
    places = defaultdict(list)
    for page in PAGES:
        for block in blocks_of(page):
            for target in targets_of(block):
                places[target].append(block.place)
    return places


def test_no_two_commands_write_one_target() -> None:
    twice = {target: places for target, places in places_by_target().items() if len(places) > 1}
    assert twice == {}


def test_the_targets_are_found() -> None:
    found = places_by_target()
    assert {"mine.onnx", "model.pt", "report.html", "forecast.csv", "before.json"} <= set(found)
    assert {"reference.pt", "from_file.onnx", "from_python.pt", "loop.txt"} <= set(found)


def test_git_ignores_what_the_commands_write() -> None:
    patterns = [
        line.strip("/")
        for line in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
        if not line.startswith("!")
    ]
    seen = [
        target
        for target in places_by_target()
        if not any(fnmatchcase(target, pattern) for pattern in patterns)
    ]
    assert seen == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_module_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"\b(?:loopedge|tests|examples|benchmarks)/[\w/]+\.py\b", text)
    assert [path for path in named if not (ROOT / path).is_file()] == []


def test_every_pass_of_the_table_exists() -> None:
    text = (ROOT / "docs/export.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `([\w/]+\.py)` \|", text, re.M)
    assert len(named) == 8
    assert [path for path in named if not (ROOT / "loopedge/graph" / path).is_file()] == []


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    text = page.read_text(encoding="utf-8")
    for block in blocks_of(page):
        text = text.replace(block.text, "")
    return {
        re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", text, re.M)
    }


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    lost = []
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            lost.append(link)
    assert lost == []
