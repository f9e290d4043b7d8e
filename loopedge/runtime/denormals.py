"""Numbers below the smallest normal one are taken for zero while ONNX Runtime computes.

Its softmax gives a masked position e^-88 and not 0, which is such a number (a denormal). Products of them take a hundred
times as long on processors of Intel: causal attention of 128 positions 2.2 times (benchmarks/int8/denormals.py). An
output moves by less than 1e-37 by it. The switch is the thread's own, so it is set for a run and put back behind it; the threads
of a session's pool have it for good, by `POOL_ENTRIES`. Bundles for Python hold a copy of this file.
"""

from __future__ import annotations

import ctypes
import platform
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["POOL_ENTRIES", "DenormalsAreZero"]

CONTROL_WORD = 28
"""Where MXCSR stands in the x86-64 ABI's fenv_t, behind the state of the x87 unit."""
ENVIRONMENT_BYTES = 32
FLUSH_TO_ZERO, DENORMALS_ARE_ZERO = 1 << 15, 1 << 6


def _functions() -> tuple[Any, Any] | None:
    """Return the C library's fegetenv and fesetenv; None where the switch is not known."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return None
    try:
        library = ctypes.CDLL("libm.so.6")
        read, write = library.fegetenv, library.fesetenv
    except (OSError, AttributeError):
        return None
    read.argtypes = write.argtypes = [ctypes.c_void_p]
    return read, write


_FUNCTIONS = _functions()

POOL_ENTRIES: dict[str, str] = {} if _FUNCTIONS is None else {"session.set_denormal_as_zero": "1"}
"""Of a session: for the threads that it starts. It sets the thread that creates the first session of a process too, so it stands
here only where `DenormalsAreZero` can put that back."""


class _Environment(threading.local):
    """A thread's floating-point environment, and the word of it that holds the switch."""

    def __init__(self) -> None:
        self.buffer = ctypes.create_string_buffer(ENVIRONMENT_BYTES)
        self.address = ctypes.addressof(self.buffer)
        self.word = ctypes.c_uint32.from_buffer(self.buffer, CONTROL_WORD)


_ENVIRONMENT = _Environment()


class DenormalsAreZero:
    """A context in which this thread takes denormals for zero; elsewhere than on Linux on x86-64 it does nothing."""

    __slots__ = ("_before",)

    def __enter__(self) -> None:
        """Set the switch."""
        if _FUNCTIONS is not None:
            read, write = _FUNCTIONS
            own = _ENVIRONMENT
            read(own.address)
            self._before = own.word.value
            own.word.value = self._before | FLUSH_TO_ZERO | DENORMALS_ARE_ZERO
            write(own.address)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Put it back as it was."""
        if _FUNCTIONS is not None:
            own = _ENVIRONMENT
            own.word.value = self._before
            _FUNCTIONS[1](own.address)
