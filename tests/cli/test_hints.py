"""What the source tells people to type: every command is one, and has the options that stand behind it."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from loopedge.options import naming_flags, option
from loopedge_cli.app import app

ROOT = Path(__file__).parents[2]
SOURCES = [
    path
    for folder in ("loopedge", "calibration", "cli")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
COMMAND = re.compile(r"\bloopedge ((?:[a-z][a-z-]*)(?: [a-z][a-z-]*)?)((?: [^`'\"\n;()]*)?)")
FLAG = re.compile(r"(?<![\w-])(--[a-z][a-z0-9-]*)")
OTHERS = {"--help", "--version"}


@cache
def options_of() -> dict[str, set[str]]:
    """Return the flags of each command, by its words: ``train series``."""
    found: dict[str, set[str]] = {}
    waiting: list[tuple[str, Any]] = [("", get_command(app))]
    while waiting:
        name, command = waiting.pop()
        flags = {flag for each in command.params for flag in (*each.opts, *each.secondary_opts)}
        found[name] = flags | OTHERS
        for word, inner in getattr(command, "commands", {}).items():
            waiting.append((f"{name} {word}".strip(), inner))
    return found


def command_of(words: str) -> str | None:
    """Return the command that a text begins with, of two words where there is one; None: it is prose."""
    for name in (words, words.split()[0]):
        if name in options_of():
            return name
    return None


def flags_of(command: str) -> set[str]:
    """Return the flags of a command, of ``train`` those of every kind of task too."""
    known = options_of()
    return set().union(*(known[name] for name in known if f"{name} ".startswith(f"{command} ")))


def texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield every text of a module, X for what is filled in."""
    inside = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in inside
        ):
            yield node.lineno, node.value
        elif isinstance(node, ast.JoinedStr):
            parts = [
                str(each.value) if isinstance(each, ast.Constant) else "X" for each in node.values
            ]
            yield node.lineno, "".join(parts)


def calls_of_option(tree: ast.AST) -> Iterator[tuple[int, str, str]]:
    """Yield the line, the command, empty for none, and the words of each call of ``option``."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or getattr(node.func, "id", "") not in {
            "option",
            "option_name",
        }:
            continue
        if not node.args or not isinstance(node.args[0], ast.Constant):
            continue
        first = node.args[0]
        value: object = True if len(node.args) == 1 else "X"
        if len(node.args) > 1 and isinstance(node.args[1], ast.Constant):
            value = node.args[1].value
        named = {each.arg: each.value for each in node.keywords}
        command = (
            next((text for _, text in texts(named["command"])), "X") if "command" in named else ""
        )
        with naming_flags():
            yield node.lineno, command, option(str(first.value), value)


def wrong(path: Path) -> list[str]:
    """Return what a module tells people to type and no command takes."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    told = [
        (line, match[1], match[2]) for line, text in texts(tree) for match in COMMAND.finditer(text)
    ]
    found = []
    for line, words, rest in told:
        command = command_of(words)
        missing = set(FLAG.findall(rest)) - flags_of(command) if command else set()
        found += [f"{path.name}:{line}: loopedge {command} has no {flag}" for flag in missing]
    everything = set().union(*options_of().values())
    for line, words, flags in calls_of_option(tree):
        command = command_of(" ".join(words.split()[:2])) if words else None
        known = flags_of(command) if command else everything
        missing = {flag for flag in FLAG.findall(flags) if flag not in known}
        found += [f"{path.name}:{line}: {words or 'no command'} has {flag}" for flag in missing]
    return found


@pytest.mark.slow
def test_every_hint_names_options_that_its_command_has() -> None:
    assert [text for path in SOURCES for text in wrong(path)] == []


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ('hint = "loopedge convert --sequence 16"', 1),
        ('hint = f"loopedge quantize {path} --keep {name} --tolerance 3"', 1),
        ('hint = option("sequence", 16, command="convert")', 1),
        ('hint = option("nothing", 16)', 1),
        ('hint = option("last_rows", False, command="export model.pt")', 0),
        ('hint = option("ranges", "r.json", command="quantize")', 0),
        ('hint = "loopedge train series --target x"', 0),
        ('note = "loopedge quantizes: --nothing"', 0),
    ],
)
def test_the_test_finds_them(source: str, count: int, tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(source)
    assert len(wrong(path)) == count
