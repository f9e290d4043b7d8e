"""A measured process, seen from its parent."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loopedge.profiler.processes.conversation import Conversation

__all__ = ["DecodingProcess", "ProcessError", "Taken"]

ROOT = Path(__file__).parents[3]
Taken = tuple[float, float]
"""Seconds of processor and of wall time."""


class ProcessError(Exception):
    """A measured process could not do what it was asked; the message is one line."""


class DecodingProcess(Conversation):
    """A fresh process that has loaded one product.

    Args:
        request: ``engine``, ``file``, ``context``, ``threads``, ``vocab_size``, and options of the engine.

    Raises:
        ProcessError: It could not load, or died.
    """

    def __init__(self, request: Mapping[str, Any]) -> None:
        words = [sys.executable, "-P", "-m", "benchmarks.decode.processes.child"]
        path = ":".join([str(ROOT), str(ROOT / "cli"), str(ROOT / "calibration")])
        environment = {"PYTHONPATH": path, "OMP_NUM_THREADS": str(request["threads"])}
        super().__init__([*words, json.dumps(request)], environment)
        try:
            self.load_seconds = float(self.hear()["load_seconds"])
        except BaseException:
            self.kill()
            raise

    def prefill(self, positions: int) -> Taken:
        """Append so many random ids at once."""
        return self._take("prefill", positions)

    def decode(self, tokens: int) -> Taken:
        """Append so many random ids, one after the other."""
        return self._take("decode", tokens)

    def reset(self) -> None:
        """Forget the text."""
        self.ask({"do": "reset"})

    def memory(self) -> dict[str, int]:
        """Return the growth over the process with its runtime imported, in bytes."""
        return {name: int(value) for name, value in self.ask({"do": "memory"}).items()}

    def save_logits(self, ids: Path, chunks: Sequence[tuple[int, int]], to: Path) -> Path:
        """Compute ids in chunks and write each chunk's last logits, float32 (chunks, vocabulary)."""
        self.ask({"do": "logits", "ids": str(ids), "chunks": list(chunks), "to": str(to)})
        return to

    def _take(self, what: str, positions: int) -> Taken:
        answer = self.ask({"do": what, "positions": positions})
        return float(answer["cpu"]), float(answer["wall"])

    def _death(self, cause: str) -> ProcessError:
        return ProcessError(f"the measured process {cause}")

    def _refusal(self, answer: Mapping[str, Any]) -> ProcessError:
        return ProcessError(str(answer["error"]).splitlines()[0])
