"""The caches of this processor, as Linux lists them."""

from pathlib import Path

__all__ = ["cache_levels", "smallest_that_holds"]

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
UNITS = {"K": 10, "M": 20, "G": 30}


def cache_levels(folder: Path = CACHES) -> dict[str, int]:
    """Return the bytes of each cache for data of the first core: ``L1``, ``L2``, ``L3``; none where the system does not say."""
    found = {}
    for index in sorted(folder.glob("index*")):
        try:
            level, kind, size = (
                (index / name).read_text(encoding="ascii").strip()
                for name in ("level", "type", "size")
            )
            if kind != "Instruction":
                found[f"L{int(level)}"] = int(size[:-1]) << UNITS[size[-1]]
        except (OSError, ValueError, KeyError, IndexError):
            continue
    return found


def smallest_that_holds(size: int, levels: dict[str, int]) -> str | None:
    """Return the smallest cache that holds so many bytes; None: none does."""
    holding = [name for name in levels if levels[name] >= size]
    return min(holding, key=lambda name: levels[name], default=None)
