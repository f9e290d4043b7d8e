"""Options that say which execution provider runs a model; `run`, `profile` and `package` share them."""

from collections.abc import Sequence
from typing import Annotated

import typer

from loopedge.errors import InputError

__all__ = ["Provider", "ProviderOptions", "read_provider_options"]

Provider = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Execution provider: cpu, cuda, openvino, webgpu, or another that the installed onnxruntime has.",
    ),
]
ProviderOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--provider-option", metavar="KEY=VALUE", help="An option of the provider; may be repeated."
    ),
]


def read_provider_options(words: Sequence[str] | None) -> dict[str, str]:
    """Return options of a provider by their names.

    Raises:
        InputError: One is not written as ``KEY=VALUE``, or is named twice.
    """
    found: dict[str, str] = {}
    for word in words or ():
        key, equals, value = word.partition("=")
        if not (key and equals):
            raise InputError(
                f"--provider-option is {word!r}, KEY=VALUE is needed",
                hint="--provider-option device_type=gpu",
            )
        if key in found:
            raise InputError(f"--provider-option {key} is named twice", hint="leave one out")
        found[key] = value
    return found
