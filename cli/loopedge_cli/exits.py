"""The one table of exit codes."""

from enum import IntEnum

from loopedge.errors import (
    BudgetError,
    InputError,
    InterruptedRunError,
    LoopedgeError,
    ProviderError,
    VerificationError,
)

__all__ = ["ExitCode", "exit_code"]


class ExitCode(IntEnum):
    """What the process returns to the shell."""

    DONE = 0
    UNEXPECTED = 1
    BAD_INPUT = 2
    VERIFICATION_FAILED = 3
    BUDGET_MISSED = 4
    PROVIDER_UNAVAILABLE = 5
    INTERRUPTED = 130


_CODES: dict[type[LoopedgeError], ExitCode] = {
    InputError: ExitCode.BAD_INPUT,
    VerificationError: ExitCode.VERIFICATION_FAILED,
    BudgetError: ExitCode.BUDGET_MISSED,
    ProviderError: ExitCode.PROVIDER_UNAVAILABLE,
    InterruptedRunError: ExitCode.INTERRUPTED,
}


def exit_code(error: BaseException) -> ExitCode:
    """Return the code of an error: its own kind's, or the nearest kind it derives from."""
    for kind in type(error).__mro__:
        if kind in _CODES:
            return _CODES[kind]
    return ExitCode.UNEXPECTED
