"""Which quantizations are tried: those that the options allow, what the user fixed being the same in all."""

from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from loopedge.options import option_name
from loopedge.quantizer.activations.ranges import Granularity, RangeTable
from loopedge.quantizer.options import QuantizeOptions
from loopedge.quantizer.recipe import Recipe

__all__ = ["Setting", "settings_of"]

FREE: dict[str, Any] = {
    "save_ranges": None,
    "max_bytes": None,
    "min_speed_up": None,
    "budget": None,
    "granularity": None,
    "method": None,
    "smoothing": None,
}
"""Options of the choice, none of a single scheme, and of ranges that were found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A scheme, and how its ranges are found where it has some."""

    scheme: str
    granularity: Granularity | None = None
    method: str | None = None
    smoothing: bool | None = None

    @property
    def name(self) -> str:
        """What people call it: ``static, per-iteration, mse, smoothed``."""
        parts = [self.scheme, self.granularity, self.method, "smoothed" if self.smoothing else None]
        return ", ".join(part for part in parts if part)

    def recipe(self, options: QuantizeOptions, table: RangeTable | None) -> Recipe:
        """Return the recipe of this setting, with what the user fixed.

        Raises:
            InputError: It contradicts what the user fixed.
        """
        as_core = options.as_core if self.scheme == "static" else ()
        own = replace(options, scheme=self.scheme, as_core=as_core, **FREE)
        return own.make_recipe(table, lifting=True)


def settings_of(options: QuantizeOptions, *, repeats: bool) -> tuple[list[Setting], list[str]]:
    """Return the settings that are tried, the usual one first, and why others are not.

    Args:
        options: What the user fixed.
        repeats: Something runs in more than one iteration; else ranges cannot be shared.
    """
    granularities: list[Granularity] = ["per-iteration", "shared"] if repeats else ["per-iteration"]
    if options.granularity is not None:
        granularities = [options.granularity]
    methods = ["mse", "minmax"] if options.method is None else [options.method]
    smoothings = [True, False] if options.smoothing is None else [options.smoothing]
    found = [
        Setting(scheme="static", granularity=granularity, method=method, smoothing=smoothing)
        for granularity, smoothing, method in product(granularities, smoothings, methods)
    ]
    left_out = []
    others = {"dynamic": None, "weight-int8": None}
    reasons = {
        "save_ranges": ("dynamic", "weight-int8") if options.save_ranges is not None else (),
        "ops": ("weight-int8",) if options.ops != "microsoft" else (),
        "reduce_range": ("weight-int8",) if options.reduce_range else (),
    }
    for name, schemes in reasons.items():
        for scheme in schemes:
            if scheme in others:
                del others[scheme]
                left_out.append(f"{scheme}: it has no form with {option_name(name)}")
    return [*found, *(Setting(scheme=scheme) for scheme in others)], left_out
