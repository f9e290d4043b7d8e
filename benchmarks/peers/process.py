"""Talk to a measured process of any runtime; it answers as loopedge's own measured process does."""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["PeerError", "PeerProcess"]

CLOSING_S = 20


class PeerError(Exception):
    """A measured process could not do what it was asked; the message is one line."""


class PeerProcess:
    """A fresh process that has loaded one artifact and runs it on command.

    Args:
        python: Interpreter of the runtime's environment.
        request: ``runtime``, ``model``, ``inputs`` and ``options`` (`benchmarks.peers.child`).
        environment: Variables on top of this process's.

    Raises:
        PeerError: It could not load the artifact, or died.
    """

    def __init__(
        self, python: Path, request: Mapping[str, Any], environment: Mapping[str, str]
    ) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the process)
        self._process = subprocess.Popen(
            [str(python), "-P", "-m", "benchmarks.peers.child", json.dumps(request)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            env={**os.environ, **environment},
        )
        try:
            self.loaded = self._answer()
        except BaseException:
            self.close()
            raise

    def run(self, runs: int) -> list[float]:
        """Run the model on the first sample and return the latency of each run, in ms."""
        latencies: list[float] = self.ask({"runs": runs})["latencies_ms"]
        return latencies

    def memory(self) -> dict[str, int]:
        """Return the growth of the process's memory until now, in bytes."""
        growth: dict[str, int] = self.ask({"memory": True})["memory"]
        return growth

    def save_outputs(self, path: Path, loops: int | None = None) -> Path:
        """Run all samples, at another loop count if told so, and write the outputs as ``.npy``."""
        return Path(
            self.ask({"save": str(path)} | ({} if loops is None else {"loops": loops}))["saved"]
        )

    def ask(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """Send a command and return the answer."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died; the missing answer says how
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        try:
            self._process.wait(timeout=CLOSING_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stderr.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise PeerError(self._cause_of_death())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer

    def _cause_of_death(self) -> str:
        code = self._process.wait()
        if code < 0:
            return f"the measured process was killed by {signal.Signals(-code).name}"
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return f"the measured process ended with code {code}: {lines[-1] if lines else ''}"
