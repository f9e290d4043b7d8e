"""What is not done with a file that decodes with a cache, and what is done instead."""

import shlex
from pathlib import Path

from loopedge.errors import InputError
from loopedge.graph.metadata import Metadata

__all__ = ["refuse_cache"]

SUFFIX = ".generate"

AGAIN = {
    "quantize": "loopedge quantize {source} && loopedge to-generate {stem}.int8.onnx",
    "reroll": "loopedge reroll {source} && loopedge to-generate {stem}.loop.onnx",
    "unroll": "loopedge to-generate {source} --form unrolled",
}
"""What gives a file with a cache that was quantized, and so on."""


def refuse_cache(metadata: Metadata, path: str | Path, purpose: str) -> None:
    """Refuse a file with a cache where the model without one is needed.

    Args:
        metadata: What the file says of itself.
        path: The file.
        purpose: The command, for the message.

    Raises:
        InputError: The file decodes with a cache.
    """
    if metadata.generate is None:
        return
    source = Path(path)
    stem = source.stem.removesuffix(SUFFIX)
    known = source.stem.endswith(SUFFIX)
    names = {
        "source": shlex.quote(str(source.with_name(f"{stem}.onnx"))) if known else "MODEL.onnx",
        "stem": shlex.quote(str(source.with_name(stem))) if known else "MODEL",
    }
    command = purpose.split()[0]
    raise InputError(
        f"{path} decodes with a cache; {purpose} needs the model that it was made from",
        hint=AGAIN.get(command, f"loopedge {purpose} {{source}}").format(**names),
    )
