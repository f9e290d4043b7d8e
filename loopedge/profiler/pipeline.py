"""Profile exported models: each in fresh processes, latencies measured in turns."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Unpack

from loopedge.errors import InputError, LoopedgeError, ProviderError
from loopedge.options import with_keywords
from loopedge.profiler.dissection.gpu import measure_gpu
from loopedge.profiler.dissection.limits import measure_limits
from loopedge.profiler.dissection.pipeline import Dissection, dissect
from loopedge.profiler.machine import check_machine, describe_machine
from loopedge.profiler.options import ProfileKeywords, ProfileOptions
from loopedge.profiler.processes.turns import Measurement, Schedule, measure
from loopedge.profiler.provider_check import CheckedModel, check_providers
from loopedge.profiler.result import (
    SCHEMA_VERSION,
    Failure,
    GpuMemory,
    MachineLimits,
    ProfileResult,
    Run,
)
from loopedge.profiler.runs import Findings, failure_of, make_run, named_as_people_do, run_notes
from loopedge.profiler.subjects.outputs import output_errors
from loopedge.profiler.subjects.pipeline import Subjects, gather_subjects
from loopedge.profiler.subjects.profiled_model import ProfiledModel
from loopedge.runtime.latency import Latency
from loopedge.runtime.providers import CPU_PROVIDER, CUDA_PROVIDER, find_provider

__all__ = ["SCHEMA_VERSION", "Latency", "ProfileOptions", "ProfileResult", "Run", "profile"]

Report = Callable[[str], None]
Outcomes = list[Measurement | LoopedgeError]


def profile(
    models: Sequence[str | Path],
    *,
    options: ProfileOptions | None = None,
    report_progress: Report | None = None,
    **keywords: Unpack[ProfileKeywords],
) -> ProfileResult:
    """Measure models: bytes, load time, memory, latency and operators.

    Each model is loaded in fresh processes with nothing but numpy and its runtime; the latencies of
    all models are measured in turns, several rounds, so that a slow moment of the machine hits them
    alike. A model whose process dies is one of the failures, the others are measured to the end.

    Args:
        models: ``.onnx`` and ``.ort`` files; a ``model.pt`` beside them is run by PyTorch, eagerly.
        options: How they are profiled; default: as `loopedge.ProfileOptions` says.
        report_progress: Is called with what is measured next.
        keywords: Fields of `loopedge.ProfileOptions`, such as ``untied=True``, ``threads=[1, 2]`` or
            ``seconds=10``; they win over those of ``options``.

    Returns:
        One run per model and twin.

    Raises:
        InputError: A file or an option cannot be used, or a model cannot be loaded.
        ProviderError: The execution provider is not available, or does not run the models.
        VerificationError: The execution provider computes them wrongly.
        LoopedgeError: No model could be measured to the end.
    """
    chosen = with_keywords("profile", ProfileOptions, options, keywords)
    models = [models] if isinstance(models, str | Path) else models
    _check(models, chosen)
    report_progress = report_progress or _report_nothing
    with tempfile.TemporaryDirectory(prefix="loopedge.") as folder:
        scratch = Path(folder)
        gathered = gather_subjects(models, chosen, scratch)
        subjects, checked = _check_outputs(gathered, chosen, scratch, report_progress)
        gpus = _measure_gpus(subjects.models, chosen, report_progress)
        measured = _measure_in_turns(subjects.models, chosen, scratch, report_progress)
        limits = _measure_limits(subjects.models) if chosen.details else _Limits()
        parts = _dissect_each(subjects.models, measured, chosen, report_progress)
        errors = _output_errors(subjects.models, measured)
    found = [
        Findings(checked=one_checked, measurement=one, gpu=gpu, parts=part, output_error=error)
        for one_checked, one, gpu, part, error in zip(
            checked, measured, gpus.memory, parts, errors, strict=True
        )
        if isinstance(one, Measurement)
    ]
    return _result(subjects, measured, found, limits, gpus.notes, chosen)


def _report_nothing(text: str) -> None:
    """Drop a line of progress: the caller asked for none."""


def _check(models: Sequence[str | Path], options: ProfileOptions) -> None:
    """Refuse a profile of nothing, and one that this machine cannot measure."""
    if not models:
        raise InputError("no model was named", hint="loopedge profile model.onnx")
    check_machine(max(point.threads for point in options.points))
    find_provider(options.provider, options.provider_options)


def _check_outputs(
    subjects: Subjects, options: ProfileOptions, scratch: Path, report_progress: Report
) -> tuple[Subjects, list[CheckedModel]]:
    """Leave out the models that the provider does not run, or computes wrongly: their times would mean nothing.

    Raises:
        ProviderError: The provider runs none of them.
        VerificationError: It computes the first one wrongly, and no other passes.
    """
    found = check_providers(subjects.models, options, scratch, report_progress)
    checked = [one for one in found if isinstance(one, CheckedModel)]
    if not checked:
        raise next(one for one in found if isinstance(one, LoopedgeError))
    failures = [
        failure_of(model, one)
        for model, one in zip(subjects.models, found, strict=True)
        if isinstance(one, LoopedgeError)
    ]
    left = replace(
        subjects,
        models=[one.model for one in checked],
        failures=[*subjects.failures, *failures],
        notes=[*subjects.notes, *(note for one in checked for note in one.notes)],
    )
    return left, checked


@dataclass(frozen=True, slots=True, kw_only=True)
class _Gpus:
    """What each model takes of the GPU, None where that is not known, and notes."""

    memory: list[GpuMemory | None]
    notes: list[str] = field(default_factory=list)


def _measure_gpus(
    models: Sequence[ProfiledModel], options: ProfileOptions, report_progress: Report
) -> _Gpus:
    """Return what each model takes of the GPU, before others of ours are loaded there.

    A model that fails here fails again when it is measured, and is one of the failures then.

    Raises:
        ProviderError: CUDA does not run a model.
    """
    if options.provider_name != CUDA_PROVIDER or not options.details:
        return _Gpus(memory=[None for _ in models])
    found: list[GpuMemory | None] = []
    notes: dict[str, None] = {}
    for model in models:
        report_progress(f"GPU memory of {model.name}")
        try:
            memory, of_model = measure_gpu(model.setup, model.weight_bytes)
        except ProviderError:
            raise
        except LoopedgeError:
            found.append(None)
            continue
        found.append(memory)
        notes.update(dict.fromkeys(of_model))
    return _Gpus(memory=found, notes=list(notes))


def _measure_in_turns(
    models: Sequence[ProfiledModel],
    options: ProfileOptions,
    scratch: Path,
    report_progress: Report,
) -> Outcomes:
    """Measure memory and time of all models.

    Raises:
        LoopedgeError: None of them could be measured to the end; it is the first one's error.
    """
    schedule = Schedule(
        processes=options.processes,
        runs=options.runs,
        seconds=options.timed_seconds,
        outputs=scratch,
    )
    measured = measure([model.setup for model in models], schedule, report_progress)
    if not any(isinstance(one, Measurement) for one in measured):
        raise next(one for one in measured if isinstance(one, LoopedgeError))
    return measured


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limits:
    """What the machine reaches, and notes on limits that could not be had."""

    limits: list[MachineLimits] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def _measure_limits(models: Sequence[ProfiledModel]) -> _Limits:
    """Measure the machine once for each number of threads that ONNX Runtime ran with on the CPU.

    The models' figures stand without limits that could not be had.
    """
    limits, notes = [], []
    for threads in sorted(
        {one.setup.threads for one in models if one.setup.provider == CPU_PROVIDER}
    ):
        try:
            limits.append(measure_limits(threads))
        except (LoopedgeError, OSError) as error:  # the latter: no room for its graphs
            reason = error.message if isinstance(error, LoopedgeError) else error.strerror
            notes.append(f"no roofline with {threads} threads: {reason}")
    return _Limits(limits=limits, notes=notes)


def _dissect_each(
    models: Sequence[ProfiledModel],
    measured: Outcomes,
    options: ProfileOptions,
    report_progress: Report,
) -> list[Dissection]:
    """Take each model apart that was measured; nothing is known of the others."""
    parts = []
    for model, one in zip(models, measured, strict=True):
        if not options.details or isinstance(one, LoopedgeError):
            parts.append(Dissection())
            continue
        report_progress(f"operators of {model.name}")
        parts.append(_take_apart(model))
    return parts


def _take_apart(model: ProfiledModel) -> Dissection:
    """Take a model apart; where the process that is traced dies, its figures stand without."""
    try:
        return dissect(model.setup, model.artifact)
    except LoopedgeError as error:
        return Dissection(notes=[f"no operators: {error.message}"])


def _output_errors(models: Sequence[ProfiledModel], measured: Outcomes) -> list[float | None]:
    outputs = [one.outputs if isinstance(one, Measurement) else None for one in measured]
    return output_errors(models, outputs)


def _result(
    subjects: Subjects,
    measured: Outcomes,
    found: Sequence[Findings],
    limits: _Limits,
    gpu_notes: Sequence[str],
    options: ProfileOptions,
) -> ProfileResult:
    """Put everything together that was found."""
    runs = [make_run(one, limits.limits, options) for one in found]
    notes = [*subjects.notes, *_apart(found), *gpu_notes, *limits.notes]
    for one, run in zip(found, runs, strict=True):
        notes += [f"{run.name}: {named_as_people_do(note, one.model)}" for note in one.parts.notes]
        notes += run_notes(one, run, options)
    died: list[Failure] = [
        failure_of(model, one)
        for model, one in zip(subjects.models, measured, strict=True)
        if isinstance(one, LoopedgeError)
    ]
    return ProfileResult(
        schema_version=SCHEMA_VERSION,
        client=None,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=describe_machine(),
        limits=limits.limits,
        runs=runs,
        failures=[*subjects.failures, *died],
        notes=notes,
    )


def _apart(found: Sequence[Findings]) -> list[str]:
    """Name the models whose times were not taken in turns with the first one's."""
    apart = [one.model.name for one in found if not one.measurement.together]
    if not apart:
        return []
    return [
        "not measured in turns with the first run, for want of memory or because its process died: "
        f"{', '.join(apart)}; their times are compared by medians"
    ]
