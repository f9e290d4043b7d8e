"""Read data, find ranges, quantize and measure: what `loopedge.quantize` does once it has found this package."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from loopedge.artifact.artifact import Artifact
from loopedge.artifact.companions import companions_to_copy
from loopedge.errors import InputError, VerificationError
from loopedge.files.paths import ArtifactTarget, Files, check_paths
from loopedge.files.targets import check_artifact_target, check_target
from loopedge.options import option_name
from loopedge.quantizer.activations.ranges import RangeTable, read_ranges
from loopedge.quantizer.choice.recorded import repeated, unrefined_notes
from loopedge.quantizer.held_out.measurement import HeldOutResult
from loopedge.quantizer.held_out.samples import HeldOut
from loopedge.quantizer.options import AUTO, QuantizeOptions
from loopedge.quantizer.pipeline import quantize_source
from loopedge.quantizer.recipe import Recipe
from loopedge.quantizer.result import QuantizeResult
from loopedge.quantizer.schemes.operators import PAIRS
from loopedge.quantizer.source import FloatSource
from loopedge_calibration.budget import meet_budget
from loopedge_calibration.choosing.search import choose_recipe
from loopedge_calibration.clipping import measure_clipping
from loopedge_calibration.collector import collect_ranges
from loopedge_calibration.loop_counts import LoopCounts
from loopedge_calibration.losses import choose_loss
from loopedge_calibration.options import CollectOptions
from loopedge_calibration.readers import data_files
from loopedge_calibration.refining.refining import check_module, refine_weights
from loopedge_calibration.rounding.station import round_weights
from loopedge_calibration.samples import Samples

__all__ = ["drop_notes", "quantize_artifact"]


def quantize_artifact(
    artifact: Artifact,
    target: Path,
    options: QuantizeOptions,
    report_progress: Callable[[str], None] = lambda text: None,
) -> QuantizeResult:
    """Send a float model that was opened through the stations.

    Args:
        artifact: The model.
        target: Path of the file.
        options: As `loopedge.quantize` says.
        report_progress: Is called with what is done next.

    Raises:
        InputError: As `loopedge.quantize`, like the rest.
        BudgetError: As said.
        VerificationError: As said.
    """
    source = _check_files(artifact, target, options)
    unrefined = unrefined_notes(options)
    options, lifted = repeated(options, source.graph, source.path)
    if options.ops != PAIRS:
        return _quantize(source, target, options, lifted, unrefined, report_progress)
    with source.unrolled(options.loops, target.parent) as unrolled:
        return _quantize(unrolled, target, options, lifted, unrefined, report_progress)


def _quantize(
    source: FloatSource,
    target: Path,
    options: QuantizeOptions,
    lifted: tuple[str, ...],
    unrefined: list[str],
    report_progress: Callable[[str], None],
) -> QuantizeResult:
    """Quantize as `quantize_artifact` with options in which a recipe is written out, and which linears it lifted.

    Args:
        source: The float model.
        target: Path of the file.
        options: As `loopedge.quantize` says.
        lifted: Linears that a budget or a choice lifted, as a recipe says.
        unrefined: Notes on what a recipe does not repeat.
        report_progress: Is called with what is done next.
    """
    samples = _samples(source, options)
    calibrates = options.calibrates or options.rounds_by_data or options.refine is not None
    if options.refine is not None:
        check_module(source, samples, options)
    held_out = None if samples is None else samples.held_out(calibrates=calibrates)
    if options.chosen_scheme == AUTO:
        assert samples is not None  # they are missing nowhere where ranges are found
        assert held_out is not None
        return _quantize_chosen(source, target, options, samples, held_out, report_progress)
    table = _ranges(source, samples, options)
    recipe = options.make_recipe(table, lifting=options.max_drop is not None)
    recipe = replace(recipe, lifted=lifted)
    recipe, notes = _rounded(source, recipe, samples, options, report_progress)
    budget = None
    if options.max_drop is not None:
        recipe.check_model(source.graph, source.path)
        chooser = None if samples is None else samples.chooser()
        notes += [] if chooser is None else [each for each in chooser.notes if each not in notes]
        loss = choose_loss(source, options.metric, chooser, threads=options.threads)
        recipe, budget = meet_budget(
            source, recipe, loss, options.max_drop, threads=options.threads
        )
    if held_out is not None and table is not None:
        recipe.check_model(source.graph, source.path)  # ranges of another model clip everything
        held_out = _with_clipping(source, table, held_out, options)
    result = quantize_source(source, target, recipe, options=options, held_out=held_out)
    if budget is not None:
        _note_metric(result, budget.metric, source, options)
        if samples is not None:
            result.notes.extend(drop_notes(result.held_out, budget.metric, budget.max_drop))
    result.notes.extend([*notes, *unrefined])
    if options.save_ranges is not None and table is not None:
        table.save(options.save_ranges, force=options.force)
    return replace(result, budget=budget)


def _quantize_chosen(
    source: FloatSource,
    target: Path,
    options: QuantizeOptions,
    samples: Samples,
    held_out: HeldOut,
    report_progress: Callable[[str], None],
) -> QuantizeResult:
    """Choose a recipe and quantize by it; where the check of the file refuses it, by the next."""
    chosen = choose_recipe(source, samples, options, report_progress=report_progress)
    while True:
        report_progress(f"writing and checking {chosen.result.chosen}")
        recipe, notes = _rounded(source, chosen.recipe, samples, options, report_progress)
        table, judged = recipe.table, held_out
        if table is not None:
            judged = _with_clipping(source, table, held_out, options)
        try:
            result = quantize_source(source, target, recipe, options=options, held_out=judged)
            break
        except VerificationError as error:
            other = chosen.without_it(error.message)
            if other is None:
                raise
            chosen = other
    result.notes.extend(note for note in (*notes, *chosen.result.notes) if note not in result.notes)
    if options.max_drop is not None:
        _note_metric(result, chosen.limits.metric, source, options)
        result.notes.extend(drop_notes(result.held_out, chosen.limits.metric, options.max_drop))
    if options.save_ranges is not None and table is not None:
        table.save(options.save_ranges, force=options.force)
    return replace(result, budget=chosen.budget, choice=chosen.result)


def _rounded(
    source: FloatSource,
    recipe: Recipe,
    samples: Samples | None,
    options: QuantizeOptions,
    report_progress: Callable[[str], None],
) -> tuple[Recipe, list[str]]:
    """Let data say how the weights are rounded, and train that, where it is asked for."""
    notes: list[str] = []
    if options.rounds(recipe.scheme) and samples is not None:
        recipe.check_model(source.graph, source.path)
        rounded = round_weights(source, recipe, samples, options)
        recipe, notes = rounded.recipe, rounded.notes
    if options.refine is not None and samples is not None:
        recipe.check_model(source.graph, source.path)
        recipe = refine_weights(source, recipe, samples, options, report_progress)
        notes += [note for note in samples.chooser().notes if note not in notes]
        notes += [] if recipe.refined is None else recipe.refined.notes()
    return recipe, notes


def _note_metric(
    result: QuantizeResult,
    metric: str,
    source: FloatSource,
    options: QuantizeOptions,
) -> None:
    """Say that a budget holds the relative error, where the user did not ask for that."""
    if metric != "relative-error" or options.metric is not None:
        return
    result.notes.append(
        f"{option_name('max_drop')} holds the relative error of the outputs: the data has no targets that the "
        "task's own metric needs"
        if source.metadata.task
        else f"{option_name('max_drop')} holds the relative error of the outputs: the model names no task"
    )


def drop_notes(judged: HeldOutResult, metric: str, max_drop: float) -> list[str]:
    """Say that a limit that held on the samples that chose does not on those that judge.

    Args:
        judged: What the file does on the samples that judge.
        metric: What the limit is measured in; of another than the task's the relative error of the outputs counts.
        max_drop: The limit.
    """
    lost = judged.loss if judged.metric == metric else None
    if lost is None:
        lost = 10 ** (-judged.sqnr_db / 20)
    if lost <= max_drop:
        return []
    return [
        f"{option_name('max_drop')} {max_drop:.3g} held on the samples that chose; on {judged.where} the file loses "
        f"{lost:.3g} of {metric}"
    ]


def _check_files(artifact: Artifact, target: Path, options: QuantizeOptions) -> FloatSource:
    """Refuse files that are read and written, and targets that exist; return what is quantized."""
    read: dict[str, Files] = {
        "MODEL": artifact.needed_files(),
        option_name("data"): data_files(options.data),
        option_name("ranges"): options.ranges if isinstance(options.ranges, str | Path) else None,
        option_name("recipe"): options.recipe,
        option_name("module"): options.module if isinstance(options.module, str | Path) else None,
    }
    output, ranges = option_name("path"), option_name("save_ranges")
    check_paths(inputs=read, outputs={output: ArtifactTarget(target), ranges: options.save_ranges})
    check_artifact_target(target, artifact.files, force=options.force)
    if options.save_ranges is not None:
        check_target(Path(options.save_ranges), force=options.force)
    source = FloatSource.of(artifact)
    beside = companions_to_copy(source.path, source.metadata, target)
    check_paths(
        inputs=read,
        outputs={f"what stands beside {output}": [target.parent / name for name in beside]},
    )
    return source


def _samples(source: FloatSource, options: QuantizeOptions) -> Samples | None:
    """Return the samples that calibrate and judge; None where there is no data and no task that draws some."""
    LoopCounts.of(source.graph, options.loops)  # refused without data too
    try:
        return Samples(
            options.data,
            source.graph,
            samples=options.samples,
            artifact=source.path,
            loops=options.loops,
            metric=options.metric,
            scores=source.metadata.logits != "last",
            chooses=options.chooses,
        )
    except InputError:
        asked = options.calibrates or options.rounds_by_data or options.refine is not None
        if options.data is not None or asked:
            raise
        return None


def _ranges(
    source: FloatSource, samples: Samples | None, options: QuantizeOptions
) -> RangeTable | None:
    """Return the ranges of a static scheme: handed in, from a file, or found on data."""
    if options.calibrates and samples is not None:
        return collect_ranges(source, samples.calibrating, CollectOptions.of(options))
    if isinstance(options.ranges, str | Path):
        return read_ranges(options.ranges)
    return options.ranges


def _with_clipping(
    source: FloatSource, table: RangeTable, held_out: HeldOut, options: QuantizeOptions
) -> HeldOut:
    clipped = measure_clipping(source, table, held_out, CollectOptions.of(options))
    return replace(held_out, clipped=clipped)
