"""Which files are tables, by their names."""

from pathlib import Path

__all__ = ["is_table"]

ENDINGS = (".csv", ".csv.gz", ".parquet", ".pq", ".feather", ".arrow")


def is_table(path: str | Path) -> bool:
    """Tell whether a file is called as a table is, a CSV, Parquet or Arrow."""
    return Path(path).name.lower().endswith(ENDINGS)
