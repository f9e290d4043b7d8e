"""What no option takes, whatever the command: an empty path, and words that are not Unicode."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

__all__ = ["CheckedCommand"]


class CheckedCommand(TyperCommand):
    """A command that refuses such words before it begins.

    Python makes ``.``, the current folder, of an empty path; and bytes that are not text of the locale become
    surrogates, which neither ONNX Runtime nor a file in UTF-8 can hold.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words and check them.

        Raises:
            typer.BadParameter: As said.
        """
        words = list(args)
        for word in words:
            if any("\ud800" <= letter <= "\udfff" for letter in word):
                raise typer.BadParameter(
                    f"{word!a} is not text in this locale's encoding (where it is UTF-8, set "
                    "PYTHONUTF8=1).",
                    ctx=ctx,
                )
        rest = super().parse_args(ctx, args)
        if any(not word or (word.startswith("--") and word.endswith("=")) for word in words):
            for parameter in self.params:
                if Path() in _paths(ctx.params.get(parameter.name)):
                    raise typer.BadParameter(
                        "it is empty, a path is needed.", ctx=ctx, param_hint=_name(parameter)
                    )
        return rest


def _paths(value: Any) -> Iterator[Path]:
    if isinstance(value, Path):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _paths(part)


def _name(parameter: Any) -> str:
    is_option = parameter.param_type_name == "option"
    return f"'{parameter.opts[0] if is_option else parameter.metavar or parameter.name}'"
