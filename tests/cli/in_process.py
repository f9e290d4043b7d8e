"""The command line in this process; its tree of commands is built once, which takes longer than most commands."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from typer.main import get_command
from typer.testing import CliRunner

from loopedge_cli.app import app

__all__ = ["Said", "run_words"]


@dataclass(frozen=True)
class Said:
    """What a command printed and how it left."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Parse stdout."""
        return json.loads(self.out)


@cache
def _command() -> Any:
    return get_command(app)


def run_words(words: Sequence[object]) -> Said:
    """Run ``loopedge`` with the given words; what it does not turn into an exit code is raised."""
    code: Any = 0
    with CliRunner().isolation() as (out, err, _):
        try:
            _command().main(args=[str(word) for word in words], prog_name="loopedge")
        except SystemExit as left:
            code = left.code or 0
        sys.stdout.flush()
        sys.stderr.flush()
        streams = [stream.getvalue().decode().replace("\r\n", "\n") for stream in (out, err)]
    return Said(code, *streams)
