"""The errors that loopedge raises on purpose: one line each, with a hint that can be run."""

__all__ = [
    "BudgetError",
    "DiskFullError",
    "DivergedError",
    "InputError",
    "InputLengthWarning",
    "InterruptedRunError",
    "LoopCountWarning",
    "LoopedgeError",
    "LostWorkerError",
    "MissingExtraError",
    "ProviderError",
    "UntrainedWarning",
    "VerificationError",
    "install_hint",
]


class LoopedgeError(Exception):
    """Root of every deliberate error.

    Args:
        message: One line: what, where, measured against allowed.
        hint: A command or an option that mends it.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InputError(LoopedgeError):
    """The user's files, options or model cannot be used as they are."""


class DiskFullError(InputError):
    """The disk has no room for what was to be written; nothing of it is left."""


def install_hint(extra: str) -> str:
    """Return how an extra is installed: loopedge is on no index yet."""
    return f"in a clone of loopedge: pip install -c constraints.txt -e '.[{extra}]'"


class MissingExtraError(InputError):
    """A command needs packages that the base install leaves out."""

    def __init__(self, needs: str, *, extra: str) -> None:
        super().__init__(f"{needs} needs the extra '{extra}'", hint=install_hint(extra))
        self.extra = extra


class VerificationError(LoopedgeError):
    """A written artifact does not compute what its source computes.

    Args:
        message: What was compared and where it failed.
        measured: The error that was found.
        allowed: The error that would have passed.
        hint: A command or an option that mends it.
    """

    def __init__(
        self,
        message: str,
        *,
        measured: float | None = None,
        allowed: float | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.measured = measured
        self.allowed = allowed


class BudgetError(LoopedgeError):
    """A stated budget (coverage, accuracy, regression) was missed."""

    def __init__(
        self,
        message: str,
        *,
        measured: float | None = None,
        allowed: float | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.measured = measured
        self.allowed = allowed


class ProviderError(LoopedgeError):
    """The execution provider that was asked for does not run the graph."""


class DivergedError(LoopedgeError):
    """A training run's loss is not finite any more."""


class InterruptedRunError(LoopedgeError):
    """A training run was asked to end before it was done."""


class LostWorkerError(LoopedgeError):
    """A training run over several processes has lost one of them."""


class UntrainedWarning(UserWarning):
    """A model runs in a way that it was not trained in."""


class LoopCountWarning(UntrainedWarning):
    """A model runs another number of loops than it was trained with."""


class InputLengthWarning(UntrainedWarning):
    """A model sees fewer positions than it was trained on."""
