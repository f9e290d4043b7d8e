"""Run the methods of the user's module: what they raise becomes one line."""

from collections.abc import Callable
from typing import Any

import torch

from loopedge.errors import InputError, LoopedgeError
from loopedge.user_code import reason_of

__all__ = ["run_user_code"]


def run_user_code(name: str, method: Callable[..., Any], *arguments: Any) -> Any:
    """Call a method of the user's module on its example inputs, without gradients.

    Raises:
        InputError: It fails; the message names it and the line.
    """
    try:
        with torch.no_grad():
            return method(*arguments)
    except LoopedgeError:
        raise
    except Exception as error:  # user code may raise anything
        raise InputError(
            f"{name} fails on the example inputs: {reason_of(error)}",
            hint="axis 0 of an example is the batch and axis 1 the sequence; docs/bring_your_own.md",
        ) from error
