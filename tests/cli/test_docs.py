"""docs/cli.md says what the program does, no more and no less."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer.main

from loopedge_cli.app import app
from loopedge_cli.exits import ExitCode

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
SECTIONS = {
    match[1]: match[2]
    for match in re.finditer(r"^### `loopedge ([\w-]+).*?`\n(.*?)(?=^### |\Z)", PAGE, re.M | re.S)
}
EVERYWHERE = {"--json", "--quiet", "--debug", "--force", "--help"}
COMMANDS: dict[str, Any] = dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"train", "pilot"}))
def test_every_flag_is_documented(name: str) -> None:
    flags = {
        flag
        for parameter in COMMANDS[name].params
        for flag in [*parameter.opts, *parameter.secondary_opts]
        if flag.startswith("--")
    }
    documented = set(re.findall(r"--[a-z0-9-]+", SECTIONS[name]))
    assert flags - EVERYWHERE <= documented
    assert set(re.findall(r"`(--[a-z0-9-]+)", SECTIONS[name])) <= flags


def test_every_exit_code_is_documented() -> None:
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.M)}
    assert documented == {int(code) for code in ExitCode}


def test_every_json_key_of_inspect_is_documented(cli: Cli, tiny: Path) -> None:
    found = cli("inspect", tiny, "--json").json()
    missing = [key for key in found if not re.search(rf"\b{key}\b", SECTIONS["inspect"])]
    assert missing == []


def test_every_json_key_of_quantize_is_documented(cli: Cli, tiny: Path) -> None:
    found = cli("quantize", tiny, "--json").json()
    missing = [key for key in found if not re.search(rf"\b{key}\b", SECTIONS["quantize"])]
    assert missing == []


def test_every_json_key_of_run_is_documented(cli: Cli, tiny: Path, ids: Path) -> None:
    found = cli("run", tiny, "--input", ids, "--json").json()
    keys = [*found, *found["outputs"][0]]
    assert [key for key in keys if not re.search(rf"\b{key}\b", SECTIONS["run"])] == []
