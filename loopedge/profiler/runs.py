"""What was found of each model, as the runs of a profile and as notes on them."""

from collections.abc import Sequence
from dataclasses import dataclass

from loopedge.errors import LoopedgeError
from loopedge.options import option
from loopedge.profiler.caches import cache_levels, smallest_that_holds
from loopedge.profiler.dissection.pipeline import Dissection
from loopedge.profiler.figures import MS_PER_SECOND, stopped_early
from loopedge.profiler.options import ProfileOptions
from loopedge.profiler.processes.soak import MIN_TURNS, judge_soak
from loopedge.profiler.processes.turns import Measurement
from loopedge.profiler.provider_check import CheckedModel
from loopedge.profiler.result import Decoding, Failure, GpuMemory, MachineLimits, Run
from loopedge.profiler.subjects.profiled_model import ProfiledModel

__all__ = ["Findings", "failure_of", "make_run", "named_as_people_do", "run_notes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """A model that was measured to the end, and all that was found of it."""

    checked: CheckedModel
    measurement: Measurement
    gpu: GpuMemory | None
    parts: Dissection
    output_error: float | None

    @property
    def model(self) -> ProfiledModel:
        """What was measured."""
        return self.checked.model


def make_run(found: Findings, limits: Sequence[MachineLimits], options: ProfileOptions) -> Run:
    """Return the run of a model.

    Args:
        found: What was found of it.
        limits: Of the machine, by number of threads.
        options: Of the profile.
    """
    model, measured, parts = found.model, found.measurement, found.parts
    setup, loaded = model.setup, measured.loaded_memory
    memory_sources, running_sources = parts.peak_sources(measured.rss_peak_bytes) or (None, None)
    seconds = options.timed_seconds
    return Run(
        name=model.name,
        path=str(model.source),
        runtime=setup.runtime,
        form=model.form,
        twin=model.twin,
        quantization=model.quantization,
        loops=model.loops,
        provider=measured.provider,
        memory=setup.memory,
        threads=setup.threads,
        batch=model.batch,
        sequence=model.sequence,
        processes=measured.processes,
        file_bytes=setup.file_bytes,
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
        nodes=parts.nodes,
        ops=parts.ops,
        iterations=parts.iterations,
        memory_sources=memory_sources,
        running_sources=running_sources,
        roofline=parts.roofline(limits, measured, setup.threads),
        soak=judge_soak(measured.points, seconds) if options.is_soak else None,
        gpu=found.gpu,
        compute=model.compute,
        cuda_graph=setup.cuda_graphs,
        output_error=found.output_error,
        decoding=_decoding(model, measured),
        fidelity=model.fidelity,
        assigned=found.checked.assigned,
        against_cpu=found.checked.against_cpu,
    )


def _decoding(model: ProfiledModel, measured: Measurement) -> Decoding | None:
    """Return what a model that decodes reads for a token."""
    reads, cache = model.weight_reads, model.setup.cache
    if reads is None or cache is None:
        return None
    prompt_ms, positions = measured.prompt_ms, model.sequence or 0
    return Decoding(
        prompt_tokens_per_second=MS_PER_SECOND * model.batch * positions / prompt_ms
        if prompt_ms
        else None,
        tokens_per_second=MS_PER_SECOND * model.batch / measured.latency_ms.p50,
        weight_bytes=reads.total,
        distinct_bytes=reads.distinct,
        block_bytes=reads.block,
        cache_bytes=cache.nbytes,
        fits=smallest_that_holds(reads.block, cache_levels()),
    )


def run_notes(found: Findings, run: Run, options: ProfileOptions) -> list[str]:
    """Return what is to be known of a run's figures."""
    notes = []
    if options.is_soak and run.soak is None:
        notes.append(_too_short(run, found.measurement, options.timed_seconds))
    if stopped_early(run):
        notes.append(
            f"{run.name} stopped after {len(run.iterations)} of {run.loops} iterations on these "
            "inputs: its time is that of so many"
        )
    return notes


def failure_of(model: ProfiledModel, error: LoopedgeError) -> Failure:
    """Return a model that could not be measured to the end, and why."""
    reason = named_as_people_do(error.message, model)
    return Failure(name=model.name, path=str(model.source), twin=model.twin, reason=reason)


def named_as_people_do(text: str, model: ProfiledModel) -> str:
    """Name a twin or a variant as people know it: its file is gone when they read this."""
    if model.setup.model == model.source.resolve():
        return text
    return text.replace(str(model.setup.model), model.name)


def _too_short(run: Run, measured: Measurement, seconds: float) -> str:
    turns = len(measured.points) / measured.processes
    needed = -(-seconds * MIN_TURNS // turns)
    return (
        f"{run.name}: {turns:.0f} turns of a process tell no leak, {MIN_TURNS} are needed: "
        f"{option('seconds', format(needed, '.0f'))}"
    )
