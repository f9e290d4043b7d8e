"""What a pilot remembers of itself from one call to the next, beside its runs."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loopedge.files.json_text import read_json
from loopedge.files.plain_json import dump_json
from loopedge.files.targets import write_text_atomic
from loopedge.options import option

__all__ = ["STATE_FILE", "PilotState", "open_state"]

STATE_FILE = "state.json"


@dataclass(slots=True, kw_only=True)
class PilotState:
    """Its time and its looks; `save` after each step, for a killed pilot says nothing.

    Args:
        path: Of its file.
        earlier: Seconds of the calls before this one.
        looks: After how many seeds it was looked, and what was found.
        clock: Seconds that pass.
    """

    path: Path
    earlier: float = 0.0
    looks: list[dict[str, Any]] = field(default_factory=list)
    clock: Callable[[], float] = time.perf_counter
    _started: float = 0.0

    def __post_init__(self) -> None:
        self._started = self.clock()

    @property
    def seconds(self) -> float:
        """Of all calls that worked on the folder, this one too."""
        return self.earlier + self.clock() - self._started

    def save(self) -> None:
        """Write it."""
        values = {
            "seconds": round(self.seconds, 1),
            "looks": self.looks,
        }
        write_text_atomic(self.path, dump_json(values) + "\n")


def open_state(folder: Path, *, resume: bool, clock: Callable[[], float]) -> PilotState:
    """Return the state of a new pilot, or what the one that is resumed had written.

    Raises:
        InputError: The file is damaged.
    """
    path = folder / STATE_FILE
    if not resume or not path.exists():
        return PilotState(path=path, clock=clock)
    hint = f"rm {path}, then again with {option('resume')}: its time alone is lost"
    known = read_json(path, needed="the state of a pilot", hint=hint)
    values = known if isinstance(known, dict) else {}
    return PilotState(
        path=path,
        earlier=float(values.get("seconds", 0.0)),
        looks=list(values.get("looks", [])),
        clock=clock,
    )
