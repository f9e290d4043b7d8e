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
    LARGE_CANDIDATES,
    Candidate,
    Rounder,
    Subject,
    is_large,
    subjects_of,
)
from loopedge_calibration.rounding.contest import CHOOSING_POSITIONS, Contest, Entry
from loopedge_calibration.rounding.edges import lift_edges
from loopedge_calibration.rounding.few_samples import Thinned, evenly, positions_of
from loopedge_calibration.rounding.weightings import IterationErrors
from loopedge_calibration.samples import Samples, fixed_batch, survey_of

__all__ = ["Rounded", "round_weights"]

HESSIAN_POSITIONS, LARGE_HESSIAN_POSITIONS = 8192, 4096
"""About so many go into the Hessians, of all samples together, in each iteration."""
LARGE_CHOOSING_POSITIONS = 1024
"""On about so many each candidate of a large model is measured."""
ERROR_POSITIONS, LARGE_ERROR_POSITIONS = 512, 256
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
    candidates: Sequence[Candidate] | None = None,
) -> Rounded:
    """Round the weights that a recipe stores in blocks.

    Args:
        source: The float model.
        recipe: How it is quantized; its scheme is one of weights alone.
        samples: Those that calibrate are what the linears read, those that choose decide between the candidates.
        options: Threads and loops.
        candidates: Tried beside rounding to nearest; default: by the size of the model.

    Returns:
        The recipe with `Recipe.rounded`, empty where nothing does better than nearest, and `Recipe.rounding`.

    Raises:
        InputError: The data cannot be used.
    """
    started = time.perf_counter()
    choosing = samples.chooser()
    large = is_large(_subjects(source, recipe)[0])
    contest = Contest(
        source,
        choosing,
        positions=LARGE_CHOOSING_POSITIONS if large else CHOOSING_POSITIONS,
        threads=options.threads,
    )
    nearest = contest.measure(NEAREST, recipe)
    float_bytes = sum(path.stat().st_size for path in source.artifact.files)
    recipe, lifted_nearest, lifted = lift_edges(source.graph, recipe, contest, nearest, float_bytes)
    subjects, unseen = _subjects(source, recipe)
    most = LARGE_HESSIAN_POSITIONS if large else HESSIAN_POSITIONS
    batches, seen, notes = _surveyed(source, samples, most)
    notes += [*(each.note for each in lifted), *_unseen_notes(unseen), *choosing.notes]
    rounder = Rounder(
        source.graph,
        subjects,
        batches,
        CollectOptions.of(options),
        errors=IterationErrors.measure(
            source.graph,
            recipe,
            _few(batches, LARGE_ERROR_POSITIONS if large else ERROR_POSITIONS),
            threads=options.threads,
        ),
    )
    trials = _Trials(recipe, rounder, contest, lifted_nearest)
    if subjects:
        trials.run(candidates or (LARGE_CANDIDATES if large else CANDIDATES))
        if trials.best.name in trials.known:
            trials.run(trials.known[trials.best.name].variants(large=large))
    entries = [nearest, *trials.entries] if lifted else trials.entries
    result = RoundingResult(
        method="gptq" if trials.best.name in trials.known else NEAREST,
        chosen=trials.best.name,
        candidates=[_candidate(entry, trials.known.get(entry.name)) for entry in entries],
        metric=contest.metric,
        float_score=contest.float_score,
        samples=seen,
        positions=sum(positions_of(batch.feeds) for batch in batches),
        choosing=contest.samples,
        weights=len(subjects),
        nearest=unseen,
        lifted=[each.name for each in lifted],
        seconds=time.perf_counter() - started,
    )
    return Rounded(recipe=replace(trials.chosen, rounding=result), notes=notes)


def _subjects(source: FloatSource, recipe: Recipe) -> tuple[list[Subject], list[str]]:
    """Return the weights that a recipe stores in blocks, and those of them that no sample shows the inputs of."""
    quantized = source.graph.clone()
    recipe.apply(quantized)
    return subjects_of(source.graph, quantized)


def _unseen_notes(names: Sequence[str]) -> list[str]:
    if not names:
        return []
    return [
        f"{', '.join(names)}: rounded to nearest, for what reads {'it' if len(names) == 1 else 'them'} stands in "
        "a branch or a Scan, where it cannot be seen"
    ]


class _Trials:
    """Recipes with differently rounded weights, measured; the rounded weights of the best one alone are kept.

    Attributes:
        entries: What was measured, rounding to nearest first.
        known: The candidates among them by name.
        best: The entry that is best so far.
        chosen: Its recipe.
    """

    def __init__(self, recipe: Recipe, rounder: Rounder, contest: Contest, nearest: Entry) -> None:
        self._recipe, self._rounder, self._contest = recipe, rounder, contest
        self.entries = [nearest]
        self.known: dict[str, Candidate] = {}
        self.best, self.chosen = self.entries[0], recipe

    def run(self, candidates: Sequence[Candidate]) -> None:
        """Try those that were not tried yet."""
        recipes = {self.best.name: self.chosen}
        fresh = [candidate for candidate in candidates if candidate.name not in self.known]
        for candidate, rounded in self._rounder.round(fresh).items():
            name = candidate.name
            self.known[name], recipes[name] = candidate, replace(self._recipe, rounded=rounded)
            self.entries.append(self._contest.measure(name, recipes[name]))
        self.best = self._contest.best(self.entries)
        self.chosen = recipes.get(self.best.name, self.chosen)


def _candidate(entry: Entry, by: Candidate | None) -> RoundingCandidate:
    return RoundingCandidate(
        name=entry.name,
        weighting=None if by is None else by.weighting,
        act_order=None if by is None else by.act_order,
        damping=None if by is None else by.damping,
        sqnr_db=entry.sqnr_db,
        score=entry.score,
    )


def _surveyed(source: FloatSource, samples: Samples, most: int) -> tuple[Thinned, int, list[str]]:
    """Look at all samples that calibrate; return some of them, how many there are, and what a person should know."""
    survey, sizes = survey_of(source.graph), []
    for batch in samples.calibrating:
        survey.note(batch)
        sizes.append(positions_of(batch.feeds))
    notes = survey.check()
    cut = fixed_batch(source.graph) is None
    thinned = Thinned(part=samples.calibrating, sizes=sizes, most=most, cut=cut)
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
