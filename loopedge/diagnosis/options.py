"""How much of the data is looked at, and how far back."""

from dataclasses import dataclass, fields

from loopedge.errors import InputError
from loopedge.options import check_whole, option_name

__all__ = ["DiagnoseOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DiagnoseOptions:
    """Bounds of a diagnosis; with the defaults it takes up to a minute.

    Args:
        samples: Most test samples, as of an evaluation of `train`.
        windows: Most training windows that regressions are fitted on; half as many judge them.
        look_back: Most table rows that are searched; default: twice the context and the season, at most 512.
        seed: Of what is drawn.

    Raises:
        InputError: A number is not whole, or too small.
    """

    samples: int = 1024
    windows: int = 3000
    look_back: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        check_whole(**values)
        for name, least in (("samples", 1), ("windows", 100), ("look_back", 1), ("seed", 0)):
            if values[name] is not None and values[name] < least:
                raise InputError(
                    f"{option_name(name)} is {values[name]}, at least {least} is needed"
                )
