"""Options of the verbs: as one object or as keywords, and how an error names one to whoever called."""

import numbers
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import TYPE_CHECKING, TypeVar

from loopedge.errors import InputError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["by_face", "check_whole", "naming_flags", "option", "option_name", "with_keywords"]

Options = TypeVar("Options", bound="DataclassInstance")

FLAGS = {
    "path": "--output",
    "granularity": "--ranges",
    "ranges": "--ranges-file",
    "covariates": "--covariate",
    "time_column": "--time",
    "provider_options": "--provider-option",
}
"""Options that the command line calls otherwise than Python does."""

_names_flags = False


def with_keywords(
    verb: str, kind: type[Options], options: Options | None, keywords: Mapping[str, object]
) -> Options:
    """Return the options of a call: the keywords, over the object where there is one.

    Args:
        verb: What was called, for the error.
        kind: The class of the options.
        options: The object; None: the defaults.
        keywords: Fields by name; they win over the object's.

    Raises:
        TypeError: A keyword is not a field, or the object is of another class.
        InputError: A value is refused, as the class says.
    """
    known = {field.name for field in fields(kind)}
    for name in keywords:
        if name not in known:
            raise TypeError(f"{verb}() got an unexpected keyword argument {name!r}")
    if options is not None and not isinstance(options, kind):
        raise TypeError(f"{verb}() takes options of {kind.__name__}, not {type(options).__name__}")
    return kind(**keywords) if options is None else replace(options, **keywords)


@contextmanager
def naming_flags() -> Iterator[None]:
    """Let errors and notes name options as the command line does, while a command runs.

    It holds for the whole process, its threads too.
    """
    global _names_flags
    before, _names_flags = _names_flags, True
    try:
        yield
    finally:
        _names_flags = before


def by_face(command_line: str, python: str) -> str:
    """Return the text for whoever called: somebody on the command line, or in Python."""
    return command_line if _names_flags else python


def option_name(name: str) -> str:
    """Return what an option is called: ``--last-rows``, in Python ``last_rows``."""
    return by_face(FLAGS.get(name) or f"--{name.replace('_', '-')}", name)


def option(name: str, value: object = True, *, command: str = "") -> str:
    """Return an option as it is written: ``--form loop`` and ``--force``, in Python ``form="loop"``.

    Args:
        name: Its name in Python.
        value: True and False stand for a flag with and without ``no-``; a tuple for a list; a text in
            capitals is a placeholder for what the caller puts there.
        command: On the command line ``loopedge COMMAND`` stands before it.
    """
    flag = FLAGS.get(name) or f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        words, python = flag if value else f"--no-{flag[2:]}", f"{name}={value}"
    elif isinstance(value, tuple):
        words, python = f"{flag} {','.join(map(str, value))}", f"{name}={value}"
    else:
        quoted = isinstance(value, str) and not (value.isupper() or _is_number(value))
        words = f"{flag} {shlex.quote(str(value))}"
        python = f'{name}="{value}"' if quoted else f"{name}={value}"
    return by_face(f"loopedge {command} {words}" if command else words, python)


def check_whole(**values: object) -> None:
    """Refuse options that are no whole numbers; None is an option that was left out.

    Raises:
        InputError: One is not.
    """
    for name, value in values.items():
        whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        if value is not None and not whole:
            raise InputError(f"{option_name(name)} is {value!r}, a whole number is needed")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
