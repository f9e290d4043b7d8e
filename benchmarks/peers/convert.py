"""Make one artifact in the environment of its toolchain; the last line printed is the outcome, as JSON.

Run as ``python -P -m benchmarks.peers.convert CONVERTER JOB``; the job is JSON, `Job`'s fields.
"""

import importlib
import json
import re
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Job", "Made", "reason_of"]

COLOUR = re.compile("\\x1b\\[[0-9;]*m")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to make: a variant that the converter knows, of a subject, into an empty folder."""

    variant: str
    subject: Path
    target: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """The artifact: what is loaded, what has to be shipped, and how many products are eight-bit.

    ``quantized`` of ``products`` matrix products with a stored weight are computed in eight bits,
    counted in the artifact, a loop's body once; None where the artifact shows none of them. ``options``
    are what the file says of how it is opened.
    """

    path: Path
    files: tuple[Path, ...]
    quantized: int | None = None
    products: int | None = None
    note: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "path": self.path.name,
            "file_bytes": sum(file.stat().st_size for file in self.files),
            "quantized": self.quantized,
            "products": self.products,
            "note": self.note,
            "options": dict(self.options),
        }


def reason_of(error: BaseException) -> str:
    """Return one line on what an error comes from: its first cause, without colours."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in COLOUR.sub("", str(error)).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"


def main() -> int:
    """Convert, and say what came of it."""
    given = json.loads(sys.argv[2])
    job = Job(
        variant=given["variant"], subject=Path(given["subject"]), target=Path(given["target"])
    )
    started = time.perf_counter()
    try:
        converter = importlib.import_module(f"benchmarks.peers.converters.{sys.argv[1]}_converter")
        outcome = converter.convert(job).to_json()
    except Exception as error:  # a toolchain that cannot is a result
        traceback.print_exc()
        outcome = {"failed": reason_of(error)}
    outcome["seconds"] = time.perf_counter() - started
    print("\n" + json.dumps(outcome))
    return 0


if __name__ == "__main__":
    sys.exit(main())
