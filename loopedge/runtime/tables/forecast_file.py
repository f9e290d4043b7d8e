"""Write a forecast as a table, CSV or Parquet, whole or not at all."""

from pathlib import Path
from typing import Any

from loopedge.errors import MissingExtraError
from loopedge.files.csv.writing import write_csv
from loopedge.files.staging import staged_folder
from loopedge.files.targets import check_target
from loopedge.runtime.tables.forecast import Forecast

__all__ = ["check_forecast_target", "is_forecast_file", "write_forecast"]

PARQUET = (".parquet", ".pq")


def is_forecast_file(path: str | Path) -> bool:
    """Tell whether a target holds a table of forecasts, by its ending, and no arrays."""
    return Path(path).suffix.lower() in {".csv", *PARQUET}


def check_forecast_target(target: Path, *, force: bool) -> None:
    """Refuse a target that `write_forecast` could not write, before any work is done.

    Raises:
        InputError: It exists, or cannot be written.
        MissingExtraError: It is Parquet and pyarrow is not installed.
    """
    if target.suffix.lower() in PARQUET:
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise MissingExtraError("writing Parquet", extra="parquet") from error
    check_target(target, force=force)


def write_forecast(forecast: Forecast, path: str | Path, *, force: bool = False) -> None:
    """Write a row for each step of each series, or for each label.

    A number is written with as many digits as tell it apart from every other of its type.

    Args:
        forecast: What to write.
        path: ``.csv``, UTF-8 with commas and points; or ``.parquet``.
        force: Replace an existing file.

    Raises:
        InputError: As `check_forecast_target`, two columns would have one name, or the disk is full.
        MissingExtraError: As `check_forecast_target`.
    """
    target = Path(path)
    check_forecast_target(target, force=force)
    header = forecast.header
    if target.suffix.lower() not in PARQUET:
        rows = ([str(cell) for cell in row] for row in forecast.records())
        write_csv(target, header, rows, force=force)
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: list[tuple[Any, ...]] = list(zip(*forecast.records(), strict=True))
    table = pa.table({name: pa.array(column) for name, column in zip(header, columns, strict=True)})
    with staged_folder(target) as folder:
        pq.write_table(table, folder / target.name)
