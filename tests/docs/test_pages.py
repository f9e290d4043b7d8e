"""Every command and every Python block of README and docs is run as printed, or says why not."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.docs.pages import PAGES, REASONS, ROOT, START, Runner, blocks_of, name_of, write_program

if TYPE_CHECKING:
    from pathlib import Path

QUICK = {"docs/bring_your_own.md", "docs/model.md"}
"""Pages that make test runs; README's blocks and those of the others take minutes together, make test-slow runs them."""

NOT_RUN = {
    "signature": 5,
    "installs": 7,
    "minutes": 2,
    "device": 1,
    "hour": 1,
    "hours": 1,
    "download": 1,
    "compiler": 2,
    "gpu": 1,
    "processes": 1,
}
"""How many blocks are not run, by reason: a new one is a decision, not an accident."""


def run_page(page: Path, folder: Path, programs: Path) -> None:
    runner = Runner(folder, programs)
    for block in blocks_of(page):
        if block.kind in {"sh", "python"} and block.reason is None:
            runner.run(block)


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a ``loopedge`` that is this repository's."""
    folder = tmp_path_factory.mktemp("programs")
    write_program(folder)
    return folder


@pytest.fixture(scope="session")
def readme_files(tmp_path_factory: pytest.TempPathFactory, programs: Path) -> Path:
    """The folder in which the README's blocks were run; it is only read."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "examples").symlink_to(ROOT / "examples")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_page(ROOT / "README.md", folder, programs)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(
            page, id=name_of(page), marks=[] if name_of(page) in QUICK else [pytest.mark.long]
        )
        for page in PAGES
    ],
)
def test_a_page_runs_as_printed(
    page: Path, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not any(block.kind in {"sh", "python"} and not block.reason for block in blocks_of(page)):
        return
    if page.name == "README.md":
        request.getfixturevalue("readme_files")
        return
    folder = tmp_path / "page"
    if START in " ".join(page.read_text(encoding="utf-8").split()):
        shutil.copytree(request.getfixturevalue("readme_files"), folder, symlinks=True)
    else:
        folder.mkdir()
        (folder / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(folder)
    run_page(page, folder, request.getfixturevalue("programs"))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_is_not_run_says_why(page: Path) -> None:
    for block in blocks_of(page):
        if block.reason is not None:
            assert block.kind in {"sh", "python"}, block.place
            first = block.text.splitlines()[0]
            assert first == f"# {REASONS[block.reason]}", block.place


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_command_hides_from_the_tests(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for block in blocks_of(page):
        if block.kind not in {"sh", "python"}:
            assert not re.search(r"^\s*(loopedge|pip|make|python) ", block.text, re.M), block.place
        text = text.replace(block.text, "")
    assert re.findall(r"^(?: {4}|\t)(?! *[-*|] )\S.*", text, re.M) == [], "an indented block"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_is_written_in_plain_words(page: Path) -> None:
    text = " ".join(page.read_text(encoding="utf-8").split())
    assert re.findall(r"\btold\b|\b[Nn]obody\b|[Cc]omputed is in|time x peak", text) == []


def test_the_number_of_blocks_that_are_not_run_is_known() -> None:
    found = Counter(
        block.reason for page in PAGES for block in blocks_of(page) if block.reason is not None
    )
    assert found == NOT_RUN
