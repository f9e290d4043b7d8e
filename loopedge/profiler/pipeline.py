"""Profile exported models: each in fresh processes, latencies measured in turns."""

import math
import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loopedge.errors import InputError, LoopedgeError, ProviderError
from loopedge.profiler.dissection.dissection import Dissection, dissect
from loopedge.profiler.dissection.limits import CPU, measure_limits
from loopedge.profiler.machine import check_machine, describe_machine
from loopedge.profiler.processes.gpu import measure_gpu
from loopedge.profiler.processes.measurement import Measured, Plan, measure
from loopedge.profiler.processes.soak import MIN_TURNS, judge_soak
from loopedge.profiler.result import (
    SCHEMA_VERSION,
    Failure,
    GpuMemory,
    MachineLimits,
    ProfileResult,
    Run,
)
from loopedge.profiler.subjects.outputs import output_errors
from loopedge.profiler.subjects.subjects import ProfiledModel, Request, build_models, configurations
from loopedge.profiler.subjects.variants import CAPTURE_NOTE, add_variants, looped_models
from loopedge.runtime.cuda import check_built_in
from loopedge.runtime.latency import Latency
from loopedge.runtime.session import PROVIDERS

__all__ = ["SCHEMA_VERSION", "Latency", "ProfileResult", "Run", "profile"]

SECONDS_PER_MODEL = 1.0
PROCESSES = 3
SOAK_SECONDS = 10.0
"""From so many on, leaks and drift are told."""


def profile(
    models: Sequence[str | Path],
    *,
    untied: bool | Collection[str | Path] = False,
    unrolled: bool | Collection[str | Path] = False,
    device: str = "cpu",
    float16: bool = False,
    cuda_graphs: bool = False,
    memory: str | None = None,
    threads: int | Sequence[int] = 1,
    batch: int | Sequence[int] = 1,
    sequence: int | Sequence[int] | None = None,
    loops: int | Sequence[int] | None = None,
    input: str | Path | None = None,
    runs: int | None = None,
    seconds: float | None = None,
    processes: int = PROCESSES,
    details: bool = True,
    seed: int = 0,
    told: Callable[[str], None] = lambda text: None,
) -> ProfileResult:
    """Measure models: bytes, load time, memory, latency and operators.

    Each model is loaded in fresh processes with nothing but numpy and its runtime; the latencies of
    all models are measured in turns, several rounds, so that a slow moment of the machine hits them
    alike. A model whose process dies is told among the failures, the others are measured to the end.

    Args:
        models: ``.onnx`` and ``.ort`` files; a ``model.pt`` beside them is run by PyTorch, eagerly.
        untied: Also profile each model's untied twin, whose iterations have own weights; or those of
            the models that are named.
        unrolled: As ``untied``, the twin that is unrolled and shares its weights.
        device: ``cpu`` or ``cuda``.
        float16: Also profile each model and twin computed in float16.
        cuda_graphs: Also profile each unrolled graph replayed as a CUDA graph; models with a Loop get
            their unrolled twin for it. Needs ``device="cuda"``.
        memory: ``balanced``, ``low`` or ``mapped``; default: as each file says.
        threads: Threads inside an operator; each process is pinned to as many cores. This and the next
            three may be several: every combination is profiled.
        batch: Size of the batch axis of generated inputs.
        sequence: Size of the sequence axis; default: as trained.
        loops: Iterations, for models with a selectable count.
        input: ``.npz`` with one array per input, instead of generated inputs.
        runs: Timed runs per model, over all its processes; default: what fits into ``seconds``, at
            least 20.
        seconds: Time for the timed runs of each model; default 1. From 10 on memory and latency over
            that time are told (`Soak`).
        processes: Fresh processes per model; figures are their medians.
        details: Whether operators, iterations, sources of memory and the roofline are measured too.
        seed: Of the generated inputs.
        told: Is called with what is measured next.

    Returns:
        One run per model and twin.

    Raises:
        InputError: A file or an option cannot be used, or a model cannot be loaded.
        ProviderError: The device's execution provider does not run the model.
        LoopedgeError: No model could be measured to the end.
    """
    points = _check_options(
        models,
        configurations(batch, sequence, loops, threads),
        input=input,
        runs=runs,
        processes=processes,
        seconds=seconds,
    )
    if cuda_graphs and device != "cuda":
        raise InputError("a CUDA graph needs a CUDA device", hint="--device cuda --cuda-graphs")
    request = Request(
        device=device, provider=_provider(device), memory=memory, input=input, seed=seed
    )
    plan = Plan(
        processes=processes,
        runs=runs,
        seconds=SECONDS_PER_MODEL if seconds is None else seconds,
    )
    with tempfile.TemporaryDirectory(prefix="loopedge.") as scratch:
        looped = looped_models(models) if cuda_graphs else []
        if looped and unrolled is not True:
            named = [unrolled] if isinstance(unrolled, str) else unrolled or []
            unrolled = [*named, *looped]
        twins = {"untied": untied, "unrolled": unrolled}
        built, failures = build_models(models, points, request, twins, Path(scratch))
        built, lacking = add_variants(
            built, Path(scratch), float16=float16, cuda_graphs=cuda_graphs
        )
        failures += lacking
        gpus, notes = _gpus(built, told, ask=device == "cuda" and details)
        subjects = [model.subject for model in built]
        measured = measure(subjects, replace(plan, outputs=Path(scratch)), told)
        if not any(isinstance(one, Measured) for one in measured):
            raise next(one for one in measured if isinstance(one, LoopedgeError))
        errors = output_errors(
            built, [one.outputs if isinstance(one, Measured) else None for one in measured]
        )
        limits, left_out = _measure_limits(built) if details else ([], [])
        found = []
        for model, one, gpu, error in zip(built, measured, gpus, errors, strict=True):
            if isinstance(one, LoopedgeError):
                failures.append(_failure(model, one))
                continue
            told(f"operators of {model.name}")
            parts = _take_apart(model) if details else Dissection()
            left_out += [f"{model.name}: {_in_words(note, model)}" for note in parts.notes]
            run = _run(model, one, parts, limits, device=device, seconds=plan.seconds, gpu=gpu)
            run = replace(run, output_error=error)
            if plan.seconds >= SOAK_SECONDS and run.soak is None:
                left_out.append(_too_short(run, one, plan.seconds))
            if run.form == "loop" and 0 < len(run.iterations) < (run.loops or 0):
                left_out.append(_stopped_early(run))
            found.append(run)
    return ProfileResult(
        schema_version=SCHEMA_VERSION,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=describe_machine(),
        limits=limits,
        runs=found,
        failures=failures,
        notes=[*_notes(built, measured), *([CAPTURE_NOTE] if looped else []), *notes, *left_out],
    )


def _check_options(
    models: Sequence[str | Path],
    points: list[Any],
    *,
    input: str | Path | None,
    runs: int | None,
    processes: int,
    seconds: float | None,
) -> list[Any]:
    if not models:
        raise InputError("no model was named", hint="loopedge profile model.onnx")
    for name, value in (("runs", runs), ("processes", processes)):
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}, at least 1 is needed", hint=f"--{name} 1")
    if seconds is not None and not 0 < seconds < math.inf:
        raise InputError(
            f"seconds is {seconds}, a number above 0 is needed",
            hint=f"--seconds {SECONDS_PER_MODEL:g}",
        )
    check_machine(max(point.threads for point in points))
    sizes = {(point.batch, point.sequence) for point in points}
    if input is not None and len(sizes) > 1:
        raise InputError(f"{input} has one batch and one sequence: they cannot be varied")
    return points


def _gpus(
    built: Sequence[ProfiledModel], told: Callable[[str], None], *, ask: bool
) -> tuple[list[GpuMemory | None], list[str]]:
    """Return what each model takes of the GPU, before others of ours are loaded there, and notes.

    A model that fails here fails again when it is measured, and is told then.

    Raises:
        ProviderError: CUDA does not run a model.
    """
    found: list[GpuMemory | None] = [None] * len(built)
    notes: dict[str, None] = {}
    for index, model in enumerate(built if ask else ()):
        told(f"GPU memory of {model.name}")
        try:
            found[index], said = measure_gpu(model.subject, model.weight_bytes)
        except ProviderError:
            raise
        except LoopedgeError:
            continue
        notes.update(dict.fromkeys(said))
    return found, list(notes)


def _failure(model: ProfiledModel, error: LoopedgeError) -> Failure:
    reason = _in_words(error.message, model)
    return Failure(name=model.name, path=str(model.source), twin=model.twin, reason=reason)


def _in_words(text: str, model: ProfiledModel) -> str:
    """Name a twin or a variant as people know it: its file is gone when they read this."""
    if model.subject.model == model.source.resolve():
        return text
    return text.replace(str(model.subject.model), model.name)


def _notes(
    built: Sequence[ProfiledModel], measured: Sequence[Measured | LoopedgeError]
) -> list[str]:
    notes = list(dict.fromkeys(model.note for model in built if model.note))
    apart = [
        model.name
        for model, one in zip(built, measured, strict=True)
        if isinstance(one, Measured) and not one.together
    ]
    if apart:
        notes.append(
            "not measured in turns with the first run, for want of memory or because its process died: "
            f"{', '.join(apart)}; their times are compared by medians"
        )
    return notes


def _too_short(run: Run, measured: Measured, seconds: float) -> str:
    turns = len(measured.points) / measured.processes
    needed = -(-seconds * MIN_TURNS // turns)
    return (
        f"{run.name}: {turns:.0f} turns of a process tell no leak, {MIN_TURNS} are needed: "
        f"--seconds {needed:.0f}"
    )


def _stopped_early(run: Run) -> str:
    """Say that an early exit ended the loop: the figures are not those of all iterations."""
    return (
        f"{run.name} stopped after {len(run.iterations)} of {run.loops} iterations on these inputs: "
        "its time is that of so many"
    )


def _take_apart(model: ProfiledModel) -> Dissection:
    """Take a model apart; where the process that is traced dies, its figures stand without."""
    try:
        return dissect(model.subject)
    except LoopedgeError as error:
        return Dissection(notes=[f"no operators: {error.message}"])


def _measure_limits(found: Sequence[ProfiledModel]) -> tuple[list[MachineLimits], list[str]]:
    """Measure the machine once for each number of threads that ONNX Runtime ran with on the CPU.

    Returns:
        The limits, and notes on those that could not be had: the models' figures stand without.
    """
    limits, notes = [], []
    for threads in sorted({one.subject.threads for one in found if one.subject.provider == CPU}):
        try:
            limits.append(measure_limits(threads))
        except (LoopedgeError, OSError) as error:  # the latter: no room for its graphs
            reason = error.message if isinstance(error, LoopedgeError) else error.strerror
            notes.append(f"no roofline with {threads} threads: {reason}")
    return limits, notes


def _run(
    model: ProfiledModel,
    measured: Measured,
    found: Dissection,
    limits: Sequence[MachineLimits],
    *,
    device: str,
    seconds: float,
    gpu: GpuMemory | None,
) -> Run:
    subject, loaded = model.subject, measured.loaded_memory
    memory_sources, running_sources = found.peak_sources(measured.rss_peak_bytes) or (None, None)
    return Run(
        name=model.name,
        path=str(model.source),
        runtime=subject.runtime,
        form=model.form,
        twin=model.twin,
        quantization=model.quantization,
        loops=model.loops,
        device=device,
        provider=measured.provider,
        memory=subject.memory,
        threads=subject.threads,
        batch=model.batch,
        sequence=model.sequence,
        processes=measured.processes,
        file_bytes=subject.file_bytes,
        weight_bytes=model.weight_bytes,
        load_seconds=measured.load_seconds,
        baseline_bytes=measured.baseline_bytes,
        rss_load_bytes=loaded["rss_bytes"],
        anon_bytes=loaded["anon_bytes"],
        mapped_bytes=loaded["mapped_bytes"],
        uss_bytes=loaded["uss_bytes"],
        rss_peak_bytes=measured.rss_peak_bytes,
        latency_ms=measured.latency_ms,
        time_ratio=measured.time_ratio,
        spread=measured.spread,
        nodes=found.nodes,
        ops=found.ops,
        iterations=found.iterations,
        memory_sources=memory_sources,
        running_sources=running_sources,
        roofline=found.roofline(limits, measured, subject.threads),
        soak=judge_soak(measured.points, seconds) if seconds >= SOAK_SECONDS else None,
        gpu=gpu,
        compute=model.compute,
        cuda_graph=subject.cuda_graphs,
    )


def _provider(device: str) -> str:
    if device not in PROVIDERS:
        raise InputError(f"device {device!r} is not known", hint="--device cpu or --device cuda")
    if device == "cuda":
        check_built_in()
    return PROVIDERS[device]
