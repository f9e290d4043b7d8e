"""The pages of the documentation: their blocks of commands and Python, and how each is run."""

import linecache
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cli.in_process import run_words

__all__ = [
    "PAGES",
    "REASONS",
    "ROOT",
    "START",
    "Block",
    "Runner",
    "blocks_of",
    "commands_of",
    "name_of",
    "write_program",
]

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

START = "starts with the files that the [README](../README.md) makes"
"""What a page says whose blocks need the README's files."""

REASONS = {
    "installs": "not run by the tests: it installs packages",
    "processes": "not run by the tests: it needs several processes or machines",
    "compiler": "not run by the tests: it needs a C compiler and ONNX Runtime's library",
    "gpu": "not run by the tests: it needs a GPU",
    "minutes": "not run by the tests: it takes ten minutes on two cores",
    "hour": "not run by the tests: it takes an hour",
    "hours": "not run by the tests: it takes hours",
    "download": "not run by the tests: it needs data from elsewhere",
    "device": "not run by the tests: it runs on another machine",
    "signature": "not run by the tests: a signature, not a program",
}
"""Why a block is not run: the second word after the fence, and the first line of the block as a comment."""

FENCE = re.compile(r"^```(\w*)(?: (\w+))?\n(.*?)^```$", re.M | re.S)
MAY_MISS = "# exits with 4"
"""Stands at the end of a command that may miss its budget on a busy machine."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """A fenced block: ``kind`` is what follows the fence, ``reason`` the word after it."""

    page: Path
    line: int
    kind: str
    reason: str | None
    text: str

    @property
    def place(self) -> str:
        """Where it starts, for messages."""
        return f"{name_of(self.page)}:{self.line}"


def name_of(page: Path) -> str:
    """Return how a page is called from the root of the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            page=page,
            line=text.count("\n", 0, found.start()) + 1,
            kind=found[1],
            reason=found[2],
            text=found[3],
        )
        for found in FENCE.finditer(text)
    ]


def commands_of(block: Block) -> Iterator[str]:
    """Yield the commands of a block of shell, continued lines joined, comments left out."""
    for line in block.text.replace("\\\n", " ").splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield line


class Runner:
    """Run the blocks of one page in one folder, in order; Python blocks share their names.

    Args:
        folder: Where they run: the current folder of the test.
        programs: A folder whose ``loopedge`` is this repository's.
    """

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder, self.programs = folder, programs
        self.names: dict[str, Any] = {"__name__": "__main__"}

    def run(self, block: Block) -> None:
        """Run a block as it is printed; what fails is raised with its place."""
        if block.kind == "python":
            self._run_python(block)
            return
        for command in commands_of(block):
            code, said = self._run_command(command)
            allowed = {0, 4} if command.rstrip().endswith(MAY_MISS) else {0}
            assert code in allowed, f"{block.place}: {command.strip()}\nexit code {code}\n{said}"

    def _run_python(self, block: Block) -> None:
        name = f"<{block.place}>"
        linecache.cache[name] = (len(block.text), None, block.text.splitlines(keepends=True), name)
        exec(compile(block.text, name, "exec"), self.names)

    def _run_command(self, command: str) -> tuple[int, str]:
        words = shlex.split(command, comments=True)
        if words[0] == "loopedge" and not re.search(r"[|<>;&$`*]", command.partition(" #")[0]):
            said = run_words(words[1:])
            return said.code, said.out + said.err
        path = f"{self.programs}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=self.folder,
            env=os.environ | {"PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr


def write_program(folder: Path) -> None:
    """Write a ``loopedge`` and a ``python`` that are this environment's, for commands with a pipe."""
    for name, words in (("loopedge", "-m loopedge"), ("python", "")):
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n', encoding="utf-8")
        program.chmod(0o755)
