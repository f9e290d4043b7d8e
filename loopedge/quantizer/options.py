"""What may be asked of a quantization, checked before any work."""

import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, get_args

import numpy.typing as npt

from loopedge.errors import InputError
from loopedge.graph.integer_weights.block_weights import BlockWeights
from loopedge.options import by_face, option, option_name
from loopedge.quantizer.activations.ranges import Granularity, RangeTable
from loopedge.quantizer.recipe import SCHEMES, Recipe
from loopedge.quantizer.schemes.operators import OPERATORS, PAIRS
from loopedge.quantizer.schemes.pairs import check_pairs
from loopedge.quantizer.schemes.targets import target_of
from loopedge.quantizer.schemes.weight_only import WEIGHT_BITS
from loopedge.runtime.memory_profiles import check_profile
from loopedge.units import read_seconds, read_size

if TYPE_CHECKING:
    from torch.nn import Module

__all__ = [
    "AUTO",
    "DEFAULT_SAMPLES",
    "METHODS",
    "METRICS",
    "ROUNDINGS",
    "Data",
    "QuantizeKeywords",
    "QuantizeOptions",
    "check_loops",
    "check_ranges",
    "check_samples",
]

Feeds = Mapping[str, npt.NDArray[Any]]
Data = str | Path | Feeds | Iterable[Feeds]
"""A file or folder, arrays by input, or batches of those; the first axis counts samples."""

AUTO = "auto"
"""The scheme that is chosen among candidates, by what they do to the data."""
DEFAULT_SAMPLES = 128
DEFAULT_GRANULARITY: Granularity = "per-iteration"
DEFAULT_METHOD = "mse"
METHODS = ("minmax", "mse", "percentile", "entropy")
"""How a range can be found from samples."""
ROUNDINGS = ("data", "nearest")
"""How weights alone can be rounded."""
RECORDED = (
    "scheme",
    "ops",
    "target",
    "granularity",
    "method",
    "smoothing",
    "keep",
    "weight_only",
    "as_core",
    "block_size",
    "reduce_range",
    "rounding",
    "max_drop",
)
"""Options that a recipe repeats, so that they cannot stand beside one."""
METRICS = ("task", "relative-error")
"""What a budget can be measured in."""


class QuantizeKeywords(TypedDict, total=False):
    """The fields of `QuantizeOptions` as keywords of `loopedge.quantize`."""

    data: Data | None
    scheme: str | None
    granularity: Granularity | None
    method: str | None
    smoothing: bool | None
    samples: int
    loops: int | None
    ranges: RangeTable | str | Path | None
    save_ranges: str | Path | None
    ops: str
    target: str | None
    keep: Sequence[str]
    weight_only: Sequence[str]
    as_core: Sequence[str]
    block_size: int | None
    rounding: str | None
    reduce_range: bool
    min_coverage: float
    min_sqnr_db: float | None
    max_drop: float | None
    metric: str | None
    refine: int | None
    module: "str | Path | Module | None"
    max_bytes: int | str | None
    min_speed_up: float | None
    budget: float | str | None
    recipe: str | Path | None
    memory: str | None
    threads: int | None
    force: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeOptions:
    """How a model is quantized and verified; `loopedge.quantize` says what each field means.

    Raises:
        InputError: A value is unknown or outside its bounds.
    """

    data: Data | None = None
    scheme: str | None = None
    granularity: Granularity | None = None
    method: str | None = None
    smoothing: bool | None = None
    samples: int = DEFAULT_SAMPLES
    loops: int | None = None
    ranges: RangeTable | str | Path | None = None
    save_ranges: str | Path | None = None
    ops: str = "microsoft"
    target: str | None = None
    keep: Sequence[str] = ()
    weight_only: Sequence[str] = ()
    as_core: Sequence[str] = ()
    block_size: int | None = None
    rounding: str | None = None
    reduce_range: bool = False
    min_coverage: float = 1.0
    min_sqnr_db: float | None = None
    max_drop: float | None = None
    metric: str | None = None
    refine: int | None = None
    module: "str | Path | Module | None" = None
    max_bytes: int | str | None = None
    min_speed_up: float | None = None
    budget: float | str | None = None
    recipe: str | Path | None = None
    memory: str | None = None
    threads: int | None = None
    force: bool = False

    def __post_init__(self) -> None:
        if self.scheme is not None and self.scheme not in (AUTO, *SCHEMES):
            raise InputError(
                f"scheme {self.scheme!r} is not known, known are {', '.join((AUTO, *SCHEMES))}",
                hint=option("scheme", "dynamic"),
            )
        if self.ops not in OPERATORS:
            raise InputError(f"ops {self.ops!r} is not known, known are {', '.join(OPERATORS)}")
        self._check_pairs()
        named = {"keep": self.keep, "weight_only": self.weight_only, "as_core": self.as_core}
        for name, names in named.items():
            if isinstance(names, str):
                raise InputError(f"{name} is the text {names!r}, a list of names is needed")
        if self.block_size is not None:  # refuses an unknown size
            BlockWeights(WEIGHT_BITS.get(self.chosen_scheme, 8), self.block_size)
        self._check_rounding()
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
        check_ranges(self.chosen_granularity, self.chosen_method)
        check_samples(self.samples)
        check_loops(self.loops)
        self._check_budget()
        self._check_refining()
        self._check_files()
        self._check_calibration()
        self._check_choosing()

    @property
    def chosen_scheme(self) -> str:
        """The scheme; where none is named, static with ranges, auto with data, else dynamic."""
        if self.scheme is not None:
            return self.scheme
        if self.ops == PAIRS:  # pairs have one scheme
            return "static"
        if self.ranges is not None:
            return "static"
        return "dynamic" if self.data is None else AUTO

    @property
    def chosen_granularity(self) -> Granularity:
        """How many ranges a tensor has, where one scheme is quantized with."""
        return self.granularity or DEFAULT_GRANULARITY

    @property
    def chosen_method(self) -> str:
        """How a range is found, where one scheme is quantized with."""
        return self.method or DEFAULT_METHOD

    @property
    def calibrates(self) -> bool:
        """Whether ranges are found on data."""
        return self.chosen_scheme in {"static", AUTO} and self.ranges is None

    @property
    def rounds_by_data(self) -> bool:
        """Whether data says how weights are rounded."""
        return self.rounds(self.chosen_scheme)

    def rounds(self, scheme: str) -> bool:
        """Tell whether data says how the weights of a scheme are rounded."""
        asked = self.data is not None or self.refine is not None  # refining begins with that
        known = self.rounding == "data" or (self.rounding is None and asked)
        return known and scheme in WEIGHT_BITS

    @property
    def chooses(self) -> bool:
        """Whether samples of their own choose: a scheme, how weights are rounded, where training ends, what is lifted."""
        trained = self.refine is not None
        return (
            self.chosen_scheme == AUTO
            or self.rounds_by_data
            or trained
            or self.max_drop is not None
        )

    @property
    def most_bytes(self) -> int | None:
        """Most bytes of the files that are written; None: any."""
        return None if self.max_bytes is None else read_size(self.max_bytes)

    @property
    def budget_seconds(self) -> float | None:
        """Seconds that choosing may take; None: what it takes."""
        return None if self.budget is None else read_seconds(self.budget)

    def make_recipe(self, table: RangeTable | None, *, lifting: bool = False) -> Recipe:
        """Return the recipe that these options and a table of ranges make.

        Args:
            table: Calibrated ranges.
            lifting: Linears may still become weight-only: a block size is for those.

        Raises:
            InputError: The options do not go together, or not with the ranges.
        """
        recipe = Recipe(
            scheme=self.chosen_scheme,
            table=table,
            ops=self.ops,
            target=self.target,
            keep=tuple(self.keep),
            weight_only=tuple(self.weight_only),
            as_core=tuple(self.as_core),
            block_size=self.block_size,
            reduce_range=self.reduce_range,
            memory=self.memory,
        )
        recipe.check_options(lifting=lifting)
        return recipe

    def _check_pairs(self) -> None:
        """Refuse a target without pairs, and what pairs cannot hold."""
        if self.ops != PAIRS:
            if self.target is not None:
                raise InputError(
                    f"{option_name('target')} is for pairs of QuantizeLinear and DequantizeLinear",
                    hint=option("ops", PAIRS),
                )
            return
        target_of(self.target)
        check_pairs(self.chosen_scheme)
        if self.refine is not None:
            raise InputError(
                f"{option_name('refine')} trains weights for the rounding of {option('ops', 'microsoft')}, pairs "
                "round otherwise",
                hint=f"leave out {option_name('refine')} and {option_name('module')}",
            )
        if self.block_size is not None:
            raise InputError(
                f"{option_name('block_size')} is for weights in blocks, which pairs have not",
                hint=f"leave out {option_name('block_size')}",
            )

    def _check_rounding(self) -> None:
        if self.rounding is None:
            return
        if self.rounding not in ROUNDINGS:
            raise InputError(
                f"rounding {self.rounding!r} is not known, known are {', '.join(ROUNDINGS)}",
                hint=option("rounding", "nearest"),
            )
        if self.rounding == "data" and self.chosen_scheme not in {AUTO, *WEIGHT_BITS}:
            raise InputError(
                f"{self.chosen_scheme} rounds weights to nearest, by data are rounded those of {', '.join(WEIGHT_BITS)}",
                hint=f"{option('scheme', 'weight-int4')}, or leave out {option_name('rounding')}",
            )

    def _check_refining(self) -> None:
        if self.refine is None:
            if self.module is not None:
                raise InputError(
                    f"{option_name('module')} is for refining", hint=option("refine", 100)
                )
            return
        if not isinstance(self.refine, numbers.Integral) or isinstance(self.refine, bool):
            raise InputError(
                f"{option_name('refine')} is {self.refine!r}, a whole number of steps is needed",
                hint=option("refine", 100),
            )
        if self.refine < 1:
            raise InputError(
                f"{option_name('refine')} is {self.refine}, at least 1 step is needed",
                hint=option("refine", 100),
            )
        if self.module is None:
            raise InputError(
                f"{option_name('refine')} needs the PyTorch module that was exported",
                hint=option("module", "model.pt"),
            )

    def _check_files(self) -> None:
        """Refuse files of ranges beside a scheme that has none."""
        takes = self.chosen_scheme == "static" or (self.chosen_scheme == AUTO and not self.ranges)
        if takes or (self.ranges is None and self.save_ranges is None):
            return
        files = by_face("--ranges-file and --save-ranges", "ranges and save_ranges")
        if self.chosen_scheme == AUTO:
            files, verb = option_name("ranges"), "finds the ranges of its candidates itself"
        else:
            verb = "takes and gives no ranges"
        raise InputError(
            f"{self.chosen_scheme} {verb}",
            hint=f"leave out {files}, or {option('scheme', 'static')}",
        )

    def _check_calibration(self) -> None:
        """Refuse options of ranges that are found, where none are."""
        named = [
            name
            for name in ("granularity", "method", "smoothing")
            if getattr(self, name) is not None
        ]
        finds = self.chosen_scheme in {"static", AUTO}
        if named and finds and self.ranges is not None:
            raise InputError(
                f"{option_name(named[0])} is what the ranges of {option_name('ranges')} say, too",
                hint=f"leave out {option_name(named[0])}, or calibrate anew: {option('data', 'samples.npz')}",
            )
        named += ["as_core"] if self.as_core else []
        if named and not finds:
            raise InputError(
                f"{option_name(named[0])} is for ranges, which {self.chosen_scheme} has not",
                hint=f"leave out {option_name(named[0])}, or {option('scheme', 'static')}",
            )

    def _check_choosing(self) -> None:
        """Refuse limits of a choice where nothing is chosen, and a recipe beside what it says."""
        if self.max_bytes is not None and self.most_bytes is None:
            raise InputError(
                f"{option_name('max_bytes')} is {self.max_bytes}, a size of at least one byte is needed",
                hint=option("max_bytes", "2MiB"),
            )
        if self.budget is not None and self.budget_seconds is None:
            raise InputError(
                f"{option_name('budget')} is {self.budget}, a time above 0 is needed",
                hint=option("budget", "60s"),
            )
        limits = {
            "max_bytes": self.max_bytes,
            "min_speed_up": self.min_speed_up,
            "budget": self.budget,
        }
        named = [name for name, value in limits.items() if value is not None]
        if named and (self.chosen_scheme != AUTO or self.recipe is not None):
            raise InputError(
                f"{option_name(named[0])} is for {option('scheme', AUTO)}, which chooses among candidates",
                hint=f"leave out {option_name(named[0])}, or {option('data', 'samples.npz')} and {option('scheme', AUTO)}",
            )
        if self.min_speed_up is not None and not 0 < self.min_speed_up < math.inf:
            raise InputError(
                f"{option_name('min_speed_up')} is {self.min_speed_up}, more than 0 is needed",
                hint=option("min_speed_up", 1.5),
            )
        if self.recipe is None:
            return
        defaults = {field.name: field.default for field in fields(self)}
        repeated = [name for name in RECORDED if getattr(self, name) not in (defaults[name], [])]
        if repeated:
            raise InputError(
                f"{option_name(repeated[0])} is what {option_name('recipe')} says, too",
                hint=f"leave out {option_name(repeated[0])} or {option_name('recipe')}",
            )

    def _check_budget(self) -> None:
        if self.metric is not None and self.max_drop is None:
            raise InputError("a metric needs a budget", hint=option("max_drop", 0.01))
        if self.metric is not None and self.metric not in METRICS:
            raise InputError(
                f"metric {self.metric!r} is not known, known are {', '.join(METRICS)}",
                hint=option("metric", "task"),
            )
        if self.max_drop is not None and (not math.isfinite(self.max_drop) or self.max_drop < 0):
            raise InputError(
                f"{option_name('max_drop')} is {self.max_drop}, allowed is 0 or more",
                hint=option("max_drop", 0.01),
            )


def check_ranges(granularity: str, method: str) -> None:
    """Refuse an unknown granularity or method.

    Raises:
        InputError: One is unknown.
    """
    if granularity not in get_args(Granularity):
        raise InputError(
            f"granularity {granularity!r} is not known, known are {', '.join(get_args(Granularity))}",
            hint=option("granularity", "per-iteration"),
        )
    if method not in METHODS:
        raise InputError(
            f"method {method!r} is not known, known are {', '.join(METHODS)}",
            hint=option("method", "mse"),
        )


def check_loops(loops: int | None) -> None:
    """Refuse fewer iterations than one.

    Raises:
        InputError: There are fewer.
    """
    if loops is not None and loops < 1:
        raise InputError(f"loops is {loops}, at least 1 is needed", hint=option("loops", 1))


def check_samples(samples: int) -> None:
    """Refuse fewer samples than one.

    Raises:
        InputError: There are fewer.
    """
    if samples < 1:
        raise InputError(f"samples is {samples}, at least 1 is needed", hint=option("samples", 64))
