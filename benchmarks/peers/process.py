"""Talk to a measured process of any runtime; it answers as loopedge's own measured process does."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loopedge.profiler.processes.conversation import Conversation

__all__ = ["PeerError", "PeerProcess"]


class PeerError(Exception):
    """A measured process could not do what it was asked; the message is one line."""


class PeerProcess(Conversation):
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
        asked = json.dumps({**request, "parent": os.getpid()})
        super().__init__([str(python), "-P", "-m", "benchmarks.peers.child", asked], environment)
        try:
            self.loaded = self.hear()
        except BaseException:
            self.kill()
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
        """Run all samples, at another loop count if it is given, and write the outputs as ``.npy``."""
        return Path(
            self.ask({"save": str(path)} | ({} if loops is None else {"loops": loops}))["saved"]
        )

    def _death(self, cause: str) -> PeerError:
        return PeerError(f"the measured process {cause}")

    def _refusal(self, answer: Mapping[str, Any]) -> PeerError:
        return PeerError(answer["error"])
