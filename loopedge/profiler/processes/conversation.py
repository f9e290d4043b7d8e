"""A process that answers lines of JSON on its standard input with lines of JSON."""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

__all__ = ["QUIET", "Conversation"]

CLOSING_SECONDS = 20
QUIET = {"ORT_DISABLE_TELEMETRY": "1"}
"""ONNX Runtime 1.29 and later report to Microsoft from a thread of their own, some nine seconds after the
import: 0.7 MiB that no model takes, and a request to the network."""


class Conversation(ABC):
    """A fresh process, and how it is asked and ended; a subclass says what its errors become.

    Args:
        words: The command.
        environment: Variables on top of this process's.

    Raises:
        OSError: The process cannot be started.
    """

    def __init__(self, words: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the process)
        try:
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                text=True,
                env={**os.environ, **QUIET, **(environment or {})},
            )
        except OSError:
            self._stderr.close()
            raise

    @abstractmethod
    def _death(self, cause: str) -> Exception:
        """Return the error of a process that ended: it ``was killed by SIGKILL``."""

    @abstractmethod
    def _refusal(self, answer: Mapping[str, Any]) -> Exception:
        """Return the error that an answer with the key ``error`` holds."""

    def ask(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """Send a command and return the answer."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died; the missing answer says how
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        return self.hear()

    def hear(self) -> dict[str, Any]:
        """Return the next answer."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.endswith("\n"):  # it died before its answer, or within
            raise self._death(self._cause_of_death())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise self._refusal(answer)
        return answer

    def close(self) -> None:
        """End the process when it has done what it was asked for."""
        self._close_pipes()
        try:
            self._process.wait(timeout=CLOSING_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stderr.close()

    def kill(self) -> None:
        """End the process at once, whatever it does."""
        self._process.kill()
        self._process.wait()
        self._close_pipes()
        self._stderr.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.kill()

    def _close_pipes(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def _cause_of_death(self) -> str:
        code = self._process.wait()
        if code < 0:
            known = {one.value: one.name for one in signal.Signals}
            name = known.get(-code, f"signal {-code}")
            memory = ", most likely for want of memory" if name == "SIGKILL" else ""
            return f"was killed by {name}{memory}"
        self._stderr.seek(0)
        tail = self._stderr.read().decode(errors="replace").strip().splitlines()
        said = f": {tail[-1]}" if tail else ""
        return f"ended with code {code}{said}"
