"""What may be asked of a quantization, checked before any work."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from loopedge.errors import InputError
from loopedge.options import option, option_name
from loopedge.quantizer.activations.ranges import RangeTable
from loopedge.quantizer.recipe import SCHEMES, Recipe
from loopedge.quantizer.schemes.operators import OPERATORS
from loopedge.quantizer.schemes.weight_only import BlockWeights
from loopedge.runtime.memory_profiles import check_profile

__all__ = ["QuantizeKeywords", "QuantizeOptions"]


class QuantizeKeywords(TypedDict, total=False):
    """The fields of `QuantizeOptions` as keywords of `loopedge.quantize`."""

    scheme: str | None
    ops: str
    keep: Sequence[str]
    weight_only: Sequence[str]
    as_core: Sequence[str]
    block_size: int | None
    reduce_range: bool
    min_coverage: float
    min_sqnr_db: float | None
    memory: str | None
    threads: int | None
    force: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeOptions:
    """How a model is quantized and verified; `loopedge.quantize` says what each field means.

    Raises:
        InputError: A value is unknown or outside its bounds.
    """

    scheme: str | None = None
    ops: str = "microsoft"
    keep: Sequence[str] = ()
    weight_only: Sequence[str] = ()
    as_core: Sequence[str] = ()
    block_size: int | None = None
    reduce_range: bool = False
    min_coverage: float = 1.0
    min_sqnr_db: float | None = None
    memory: str | None = None
    threads: int | None = None
    force: bool = False

    def __post_init__(self) -> None:
        if self.scheme is not None and self.scheme not in SCHEMES:
            raise InputError(
                f"scheme {self.scheme!r} is not known, known are {', '.join(SCHEMES)}",
                hint=option("scheme", "dynamic"),
            )
        if self.ops not in OPERATORS:
            raise InputError(f"ops {self.ops!r} is not known, known are {', '.join(OPERATORS)}")
        named = {"keep": self.keep, "weight_only": self.weight_only, "as_core": self.as_core}
        for name, names in named.items():
            if isinstance(names, str):
                raise InputError(f"{name} is the text {names!r}, a list of names is needed")
        if self.block_size is not None:
            BlockWeights(8, self.block_size)  # refuses an unknown size
        if not 0 <= self.min_coverage <= 1:
            raise InputError(
                f"{option_name('min_coverage')} is {self.min_coverage}, allowed is 0 to 1"
            )
        if self.min_sqnr_db is not None and math.isnan(self.min_sqnr_db):
            raise InputError(
                f"{option_name('min_sqnr_db')} is not a number", hint=option("min_sqnr_db", 15)
            )
        if self.memory is not None:
            check_profile(self.memory)

    def recipe(self, table: RangeTable | None, *, lifting: bool = False) -> Recipe:
        """Return the recipe that these options and a table of ranges make.

        Args:
            table: Calibrated ranges; without a scheme they make it static.
            lifting: Linears may still become weight-only: a block size is for those.

        Raises:
            InputError: The options do not go together, or not with the ranges.
        """
        recipe = Recipe(
            scheme=self.scheme or ("static" if table else "dynamic"),
            table=table,
            ops=self.ops,
            keep=tuple(self.keep),
            weight_only=tuple(self.weight_only),
            as_core=tuple(self.as_core),
            block_size=self.block_size,
            reduce_range=self.reduce_range,
            memory=self.memory,
        )
        recipe.check_options(lifting=lifting)
        return recipe
