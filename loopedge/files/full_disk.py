"""Whether a write failed because the disk is full: what wrote does not always say so."""

import errno
import shutil
from pathlib import Path

__all__ = ["is_full_disk"]

LEAST_FREE_BYTES = 64 * 1024
"""Where fewer are left after a failure that has no reason of its own, want of space is the reason."""


def is_full_disk(error: BaseException, folder: Path) -> bool:
    """Tell whether a write into a folder failed because its disk is full.

    numpy and ONNX Runtime do not say why they could not write. What they have written until then still stands
    there when this is asked, so the disk has no room left.

    Args:
        error: What was raised.
        folder: A folder on that disk.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in {errno.ENOSPC, errno.EDQUOT}
    return shutil.disk_usage(folder).free < LEAST_FREE_BYTES
