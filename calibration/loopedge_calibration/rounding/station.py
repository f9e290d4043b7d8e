"""Round the weights of a model by what its linears read: candidates, a contest, the best one."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from loopedge.quantizer.options import QuantizeOptions
from loopedge.quantizer.recipe import Recipe
from loopedge.quantizer.source import FloatSource
from loopedge.quantizer.weights.rounding_result import NEAREST, RoundingCandidate, RoundingResult
from loopedge_calibration.options import CollectOptions
from loopedge_calibration.readers import Feeds, SampleBatch
from loopedge_calibration.rounding.candidates import (
    CANDIDATES,
    Candidate,
    round_candidates,
    subjects_of,
)
from loopedge_calibration.rounding.contest import Contest, Entry
from loopedge_calibration.rounding.few_samples import Thinned, evenly, positions_of
from loopedge_calibration.rounding.weightings import IterationErrors
from loopedge_calibration.samples import Samples, fixed_batch, survey_of

__all__ = ["Rounded", "round_weights"]

HESSIAN_POSITIONS = 8192
"""Of all samples together, per iteration: about so many are counted."""
ERROR_POSITIONS = 512
"""The error of one iteration's rounding is measured on so many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounded:
    """A recipe with its rounded weights and what was tried, and what a person should know of the samples."""

    recipe: Recipe
    notes: list[str]


def round_weights(
    source: FloatSource,
    recipe: Recipe,
    samples: Samples,
    options: QuantizeOptions,
    *,
    candidates: Sequence[Candidate] = CANDIDATES,
) -> Rounded:
    """Round the weights that a recipe stores in blocks.

    Args:
        source: The float model.
        recipe: How it is quantized; its scheme is one of weights alone.
        samples: Those that calibrate are what the linears read, those that choose decide between the candidates.
        options: Threads and loops.
        candidates: Tried beside rounding to nearest.

    Returns:
        The recipe with `Recipe.rounded`, empty where nothing does better than nearest, and `Recipe.rounding`.

    Raises:
        InputError: The data cannot be used.
    """
    started = time.perf_counter()
    batches, seen, notes = _surveyed(source, samples)
    quantized = source.graph.clone()
    recipe.apply(quantized)
    subjects, unseen = subjects_of(source.graph, quantized)
    del quantized
    first = _few(batches, ERROR_POSITIONS)
    errors = IterationErrors.measure(source.graph, recipe, first, threads=options.threads)
    rounded, _ = round_candidates(
        source.graph,
        subjects,
        lambda: batches,
        CollectOptions.of(options),
        errors=errors,
        candidates=candidates if subjects else (),
    )
    contest = Contest(source, samples.chooser(), threads=options.threads)
    recipes = {NEAREST: recipe}
    known = {candidate.name: candidate for candidate in rounded}
    recipes |= {item.name: replace(recipe, rounded=found) for item, found in rounded.items()}
    entries = [contest.measure(name, each) for name, each in recipes.items()]
    best = contest.best(entries)
    if unseen:
        notes.append(
            f"{', '.join(unseen)}: rounded to nearest, for what reads {'it' if len(unseen) == 1 else 'them'} stands in "
            "a branch or a Scan, where it cannot be seen"
        )
    found = RoundingResult(
        method=NEAREST if best.name == NEAREST else "gptq",
        chosen=best.name,
        candidates=[_candidate(entry, known.get(entry.name)) for entry in entries],
        metric=contest.metric,
        float_score=contest.float_score,
        samples=seen,
        positions=sum(positions_of(batch.feeds) for batch in batches),
        choosing=contest.samples,
        weights=len(subjects),
        nearest=unseen,
        seconds=time.perf_counter() - started,
    )
    return Rounded(recipe=replace(recipes[best.name], rounding=found), notes=notes)


def _candidate(entry: Entry, by: Candidate | None) -> RoundingCandidate:
    return RoundingCandidate(
        name=entry.name,
        weighting=None if by is None else by.weighting,
        act_order=None if by is None else by.act_order,
        damping=None if by is None else by.damping,
        sqnr_db=entry.sqnr_db,
        score=entry.score,
    )


def _surveyed(source: FloatSource, samples: Samples) -> tuple[Thinned, int, list[str]]:
    """Look at all samples that calibrate; return some of them, how many there are, and what a person should know."""
    survey, sizes = survey_of(source.graph), []
    for batch in samples.calibrating:
        survey.note(batch)
        sizes.append(positions_of(batch.feeds))
    notes = survey.check()
    cut = fixed_batch(source.graph) is None
    thinned = Thinned(part=samples.calibrating, sizes=sizes, most=HESSIAN_POSITIONS, cut=cut)
    return thinned, survey.samples, notes


def _few(batches: Thinned, positions: int) -> list[Feeds]:
    """Return a few of the samples, as many from each of the first batches."""
    found: list[Feeds] = []
    for batch in islice(batches, 4):
        samples = len(batch.numbers)
        each = max(1, positions_of(batch.feeds) // samples)
        fewer = max(1, positions // (4 * each))
        found.append(_first(batch, fewer).feeds if batches.cut and fewer < samples else batch.feeds)
    return found


def _first(batch: SampleBatch, samples: int) -> SampleBatch:
    rows = np.zeros(len(batch.numbers), np.bool_)
    rows[evenly(len(batch.numbers), samples)] = True
    return batch.rows(rows)
