"""How a table is written down: what a CSV does not say of itself."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from loopedge.data.tables.timeline.formats import check_time_format
from loopedge.data.tables.timeline.zones import Zone
from loopedge.files.csv.form import CsvForm

__all__ = ["TableFormat"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFormat(CsvForm):
    """How a table is written down; a model file remembers it, so that later files are read alike.

    The fields of `CsvForm` are of CSV files; ``na_values`` holds for Parquet and Arrow too.

    Args:
        time_format: How times are written, in the directives of ``datetime.strptime``; default: numbers or ISO 8601.
        timezone: IANA name of the zone of times that say none, such as ``Europe/Berlin``.

    Raises:
        InputError: A value cannot be meant.
    """

    time_format: str | None = None
    timezone: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        CsvForm.__post_init__(self)  # super() knows the class as it was before its slots
        if self.time_format is not None:
            check_time_format(self.time_format)
        if self.timezone is not None:
            Zone(self.timezone)

    def to_json(self) -> dict[str, Any]:
        """Return what differs from the defaults, in plain values."""
        default = TableFormat()
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if value != getattr(default, name)
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "TableFormat":
        """Return what `to_json` returned; what is not known here is left out."""
        known = {field.name for field in fields(cls)}
        values = {name: value for name, value in stored.items() if name in known}
        if "na_values" in values:
            values["na_values"] = tuple(values["na_values"])
        return cls(**values)
