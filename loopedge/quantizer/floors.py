"""How far a quantized model may be from its source: floors of SQNR and of coverage."""

from dataclasses import dataclass
from pathlib import Path

from loopedge.errors import BudgetError, InputError, VerificationError
from loopedge.options import by_face, option, option_name
from loopedge.quantizer.coverage import Coverage
from loopedge.quantizer.held_out.measurement import HeldOutResult
from loopedge.quantizer.noise import QuantizationNoise
from loopedge.quantizer.options import QuantizeOptions
from loopedge.quantizer.recipe import Recipe
from loopedge.quantizer.schemes.weight_only import WEIGHT_BITS
from loopedge.runtime.processor import FAST_INT8, this_processor

__all__ = ["MIN_SQNR_DB", "Floors", "check_coverage", "floors_of", "may_overflow"]

MIN_SQNR_DB = 15.0
"""Default floor of the outputs' SQNR; a wrong scale or a wrong weight lies below 10 dB."""

MIN_INT4_SQNR_DB = 10.0
"""The same for four-bit weights: right ones may give 13 dB where a model is deep and untrained."""

MIN_INT2_SQNR_DB = 3.0
"""The same for two bits: half as much noise as signal. Right ones give 6 to 34 dB, small random models the least."""

RANDOM_ROWS_INT4_DB = 5.0
"""Most that is asked with random timestep rows of four-bit weights; a wrong one shows in its linear."""

RANDOM_ROWS_INT2_DB = 0.0
"""The same for two bits, of which those that data rounds suit the model's own rows: 6.5 dB, where rounding to nearest gives 9."""

MIN_LINEAR_DB = 10.0
"""Floor of what each linear of the core gives in the first iteration: right ones of four bits give 15
and more, a wrong one 0 or less."""

MIN_INT2_LINEAR_DB = 3.0
"""The same for two bits: right ones give 5.7 dB and more."""

MIN_WORST_LINEAR_DB = 3.0
"""Floor of what each gives in any iteration, accumulated errors included: a wrong row of a range table
shows here even where gates of zero hide it from the outputs."""

MIN_CHOSEN_LINEAR_DB, MIN_CHOSEN_WORST_DB = 4.0, 0.0
"""The same where weights were rounded for the outputs' sake, on data: single linears may be further from float for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Floors:
    """Least SQNR, in dB.

    Args:
        outputs_db: Of the outputs.
        random_rows_db: Of the outputs with random timestep rows.
        linears_db: Of what each linear of the core gives in the first iteration.
        worst_linears_db: Of the same in any iteration.
        hint: What is likely to mend a missed one; None: what to allow or to keep.
    """

    outputs_db: float
    random_rows_db: float
    linears_db: float = MIN_LINEAR_DB
    worst_linears_db: float = MIN_WORST_LINEAR_DB
    hint: str | None

    def check(self, noise: QuantizationNoise, measured: HeldOutResult) -> None:
        """Hold the floors.

        Args:
            noise: What was found.
            measured: Says on which samples.

        Raises:
            VerificationError: One is missed.
        """
        for name, value, floor in (
            (f"outputs on {measured.where}", noise.sqnr_db, self.outputs_db),
            ("outputs with random timestep rows", noise.random_rows_db, self.random_rows_db),
        ):
            if value is not None and not value >= floor:
                raise _missed(f"the {name}", value, floor, self.hint or _allow_less(measured))
        for where, found, floor in (
            ("in the first iteration", noise.linears_db, self.linears_db),
            ("in its worst iteration", noise.worst_linears_db, self.worst_linears_db),
        ):
            for name, value in found.items():
                if not value >= floor:
                    keep = by_face(f"loopedge quantize --keep {name}", f'keep=["{name}"]')
                    hint = self.hint or f"{keep}, or calibrate on more data"
                    raise _missed(f"{name} {where}", value, floor, hint)


def _missed(what: str, value: float, floor: float, hint: str) -> VerificationError:
    return VerificationError(
        f"the SQNR of {what} is {value:.1f} dB, at least {floor:.1f} dB is asked",
        measured=value,
        allowed=floor,
        hint=hint,
    )


def _allow_less(measured: HeldOutResult) -> str:
    less = by_face("loopedge quantize --min-sqnr-db to allow less", "min_sqnr_db= to allow less")
    if measured.source == "generated":
        return f"{less}, or {option('data', 'samples.npz')}: generated inputs may be unlike yours"
    return less


def floors_of(recipe: Recipe, min_sqnr_db: float | None) -> Floors:
    """Return what a recipe must reach: the floor that was asked for, or its scheme's."""
    bits = WEIGHT_BITS.get(recipe.scheme, 8)
    outputs_db = min_sqnr_db
    if outputs_db is None:
        outputs_db = {4: MIN_INT4_SQNR_DB, 2: MIN_INT2_SQNR_DB}.get(bits, MIN_SQNR_DB)
    linears_db, worst_linears_db = MIN_LINEAR_DB, MIN_WORST_LINEAR_DB
    if recipe.rounded:
        linears_db, worst_linears_db = MIN_CHOSEN_LINEAR_DB, MIN_CHOSEN_WORST_DB
    if bits == 2:
        linears_db, worst_linears_db = MIN_INT2_LINEAR_DB, MIN_CHOSEN_WORST_DB
    random_rows_db = {4: RANDOM_ROWS_INT4_DB, 2: RANDOM_ROWS_INT2_DB}.get(bits, outputs_db)
    return Floors(
        outputs_db=outputs_db,
        random_rows_db=min(outputs_db, random_rows_db),
        linears_db=linears_db,
        worst_linears_db=worst_linears_db,
        hint=f"{option('reduce_range', command='quantize')}: products of eight bits may overflow here"
        if may_overflow(recipe)
        else None,
    )


def may_overflow(recipe: Recipe) -> bool:
    """Tell whether products of eight bits may overflow on this processor, as far as it is known."""
    features = this_processor().features
    slow = bool(features) and FAST_INT8.isdisjoint(features)
    return slow and not recipe.reduce_range and recipe.scheme not in WEIGHT_BITS


def check_coverage(
    coverage: Coverage, kept: set[str], options: QuantizeOptions, source: Path
) -> None:
    """Hold the share of the core's linears that must become int8.

    Args:
        coverage: What became int8.
        kept: Linears that stay in float on request.
        options: They say the share.
        source: What the error calls the model.

    Raises:
        InputError: Nothing became int8.
        BudgetError: Fewer became int8.
    """
    core = coverage.core()
    by_choice = {*kept, *coverage.not_worth}
    missed = [item for item in core.skipped if item.name not in by_choice]
    if not coverage.quantized:
        raise _nothing(coverage, kept, options, source)
    if len(missed) <= (1 - options.min_coverage) * core.total:
        return
    first = missed[0] if missed else None
    raise BudgetError(
        f"{len(core.quantized)} of {core.total} linears of the core of {source} became int8 "
        f"({core.share:.0%}, asked for {options.min_coverage:.0%})"
        + (f"; first skipped: {first.name}: {first.reason}" if first else ""),
        measured=core.share,
        allowed=options.min_coverage,
        hint=option("min_coverage", 0, command="quantize"),
    )


def _nothing(
    coverage: Coverage, kept: set[str], options: QuantizeOptions, source: Path
) -> InputError:
    """Say that nothing became int8, and what would where something can."""
    forced = [item for item in coverage.skipped if item.name not in kept]
    first = (forced or coverage.skipped)[0] if coverage.skipped else None
    hint = f"leave out {option_name('keep')}" if len(forced) < coverage.total else None
    if forced and options.scheme in WEIGHT_BITS:
        hint = option("scheme", "dynamic", command="quantize")
    return InputError(
        f"none of the {coverage.total} linears of {source} became int8"
        + (f"; first skipped: {first.name}: {first.reason}" if first else ""),
        hint=hint,
    )
