"""What no option takes, whatever the command: an empty path, words that are not Unicode, and names of before."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

__all__ = ["CheckedCommand"]

USAGE_ERROR: Any = typer.BadParameter.__bases__[0]  # typer exports its subclass alone

RENAMED = {"--device": "--provider"}
"""Flags that were called otherwise in earlier versions, where a command has the new one and not the old."""


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
        self._refuse_renamed(ctx, words)
        rest = super().parse_args(ctx, args)
        if any(not word or (word.startswith("--") and word.endswith("=")) for word in words):
            for parameter in self.params:
                if Path() in _paths(ctx.params.get(parameter.name)):
                    raise typer.BadParameter(
                        "it is empty, a path is needed.", ctx=ctx, param_hint=_name(parameter)
                    )
        return rest

    def _refuse_renamed(self, ctx: Any, words: list[str]) -> None:
        """Name the flag that took another's place.

        Raises:
            typer.BadParameter: One of the old ones is used.
        """
        flags = {flag for parameter in self.params for flag in parameter.opts}
        for place, word in enumerate(words):
            old, equals, value = word.partition("=")
            new = RENAMED.get(old)
            if new is not None and new in flags and old not in flags:
                error = USAGE_ERROR(f"{old} is now {new}", ctx=ctx)
                error.hint = f"{new} {value if equals else (words[place + 1 :] or ['NAME'])[0]}"
                raise error


def _paths(value: Any) -> Iterator[Path]:
    if isinstance(value, Path):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _paths(part)


def _name(parameter: Any) -> str:
    is_option = parameter.param_type_name == "option"
    return f"'{parameter.opts[0] if is_option else parameter.metavar or parameter.name}'"
