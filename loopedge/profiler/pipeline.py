"""Profile exported models: each in a fresh process, latencies measured in turns."""

import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx_ir as ir
import onnxruntime as ort

from loopedge.arrays import read_arrays, write_arrays
from loopedge.errors import InputError, ProviderError
from loopedge.graph.artifact import artifact_files, open_artifact, write_artifact
from loopedge.graph.inputs import generate_inputs
from loopedge.graph.metadata import LOOPS_INPUT, read_metadata
from loopedge.graph.untied import untie
from loopedge.graph.weights import weight_bytes
from loopedge.latency import Latency
from loopedge.memory import ChosenProfile, choose_profile, refuse_prepared
from loopedge.profiler.machine import describe_machine
from loopedge.profiler.measurement import Measured, Plan, Subject, measure
from loopedge.profiler.trace import OperatorTime
from loopedge.runtime import PROVIDERS

__all__ = ["SCHEMA_VERSION", "Latency", "ProfileResult", "Run", "profile"]

SCHEMA_VERSION = 1
SECONDS_PER_MODEL = 1.0

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One profiled model; docs/profiling.md says how each figure is measured.

    Memory is the growth over the same process with onnxruntime imported and nothing loaded.
    ``time_ratio`` is the time of an inference against the first run of the profile, ``nodes`` are
    those of the graph that ran, by execution provider.
    """

    name: str
    path: str
    form: str | None
    twin: str | None
    quantization: str | None
    loops: int | None
    device: str
    provider: str
    memory: str
    threads: int
    batch: int
    sequence: int | None
    file_bytes: int
    weight_bytes: int
    load_seconds: float
    rss_load_bytes: int
    anon_bytes: int
    mapped_bytes: int
    rss_peak_bytes: int
    latency_ms: Latency
    time_ratio: float
    nodes: dict[str, int]
    ops: list[OperatorTime]

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the keys of docs/cli.md."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileResult:
    """All runs of one profile, in the order of its arguments, their twins after them."""

    schema_version: int
    machine: dict[str, Any]
    runs: list[Run]
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the keys of docs/cli.md."""
        return asdict(self)


def profile(
    models: Sequence[str | Path],
    *,
    untied: bool | Collection[str | Path] = False,
    device: str = "cpu",
    memory: str | None = None,
    threads: int = 1,
    batch: int = 1,
    sequence: int | None = None,
    loops: int | None = None,
    input: str | Path | None = None,
    runs: int | None = None,
    seconds: float | None = None,
    seed: int = 0,
) -> ProfileResult:
    """Measure exported models: bytes, load time, memory, latency and operators.

    Each model is loaded in a fresh process with nothing but numpy and onnxruntime; the latencies
    of all models are measured in turns, several rounds, so that a slow moment of the machine hits
    them alike.

    Args:
        models: ``.onnx`` files.
        untied: Also profile each model's untied twin, whose iterations have own weights; or those of
            the models that are named.
        device: ``cpu`` or ``cuda``.
        memory: ``balanced``, ``low`` or ``mapped``; default: as each file says.
        threads: Threads inside an operator; each process is pinned to as many cores.
        batch: Size of the batch axis of generated inputs.
        sequence: Size of the sequence axis; default: as trained.
        loops: Iterations, for models with a selectable count.
        input: ``.npz`` with one array per input, instead of generated inputs.
        runs: Timed runs per model; default: what fits into ``seconds``, at least 20.
        seconds: Time for the timed runs of each model; default 1.
        seed: Of the generated inputs.

    Returns:
        One run per model and twin.

    Raises:
        InputError: A file or an option cannot be used.
        ProviderError: The device's execution provider does not run the model.
    """
    if not models:
        raise InputError("no model was named", hint="loopedge profile model.onnx")
    _check_positive(threads=threads, batch=batch, sequence=sequence, loops=loops, runs=runs)
    if seconds is not None and not seconds > 0:
        raise InputError(f"seconds is {seconds}, more than 0 is needed")
    provider = _provider(device)
    with tempfile.TemporaryDirectory(prefix="loopedge.") as scratch:
        subjects, twins = [], []
        for index, model in enumerate(models):
            folder = Path(scratch) / str(index)
            folder.mkdir()
            graph = open_artifact(model)
            metadata = read_metadata(graph.metadata_props)
            chosen = choose_profile(memory, metadata, model, device=device)
            twin = untied if isinstance(untied, bool) else model in untied
            if twin:
                refuse_prepared(metadata, model, "profile --untied")
            feeds = _feeds(
                graph, input, batch=batch, sequence=sequence, loops=loops, seed=seed, path=model
            )
            subjects.append(_Subject.of(Path(model), graph, feeds, folder, chosen))
            if twin:
                twins.append(_untied_subject(Path(model), graph, feeds, folder, chosen, loops))
        subjects += twins
        plan = Plan(
            threads=threads,
            provider=provider,
            runs=runs,
            seconds=SECONDS_PER_MODEL if seconds is None else seconds,
        )
        measured = measure([subject.measured for subject in subjects], plan)
    return ProfileResult(
        schema_version=SCHEMA_VERSION,
        machine=describe_machine(),
        runs=[
            _run(subject, result, device=device, threads=threads, loops=loops)
            for subject, result in zip(subjects, measured, strict=True)
        ],
        notes=[
            f"{subject.source.name}: {subject.memory.note}"
            for subject in subjects
            if subject.memory.note and not subject.twin
        ],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subject:
    """A file to measure, and what is known of it."""

    path: Path
    source: Path
    graph: ir.Model
    feeds: Mapping[str, Array]
    inputs: Path
    memory: ChosenProfile
    twin: str | None
    file_bytes: int

    @classmethod
    def of(
        cls,
        path: Path,
        graph: ir.Model,
        feeds: Mapping[str, Array],
        folder: Path,
        memory: ChosenProfile,
        *,
        source: Path | None = None,
        twin: str | None = None,
    ) -> "_Subject":
        inputs = folder / f"{twin or 'inputs'}.npz"
        write_arrays(inputs, feeds)
        return cls(
            path=path.resolve(),
            source=source or path,
            graph=graph,
            feeds=feeds,
            inputs=inputs,
            memory=memory,
            twin=twin,
            file_bytes=sum(file.stat().st_size for file in artifact_files(path)),
        )

    @property
    def measured(self) -> Subject:
        """What the measured process is told."""
        return Subject(model=self.path, inputs=self.inputs, memory=self.memory.profile)


def _untied_subject(
    model: Path,
    graph: ir.Model,
    feeds: Mapping[str, Array],
    folder: Path,
    memory: ChosenProfile,
    loops: int | None,
) -> _Subject:
    twin = untie(graph, loops)
    path = folder / "untied.onnx"
    write_artifact(twin, path)
    rest = {name: array for name, array in feeds.items() if name != LOOPS_INPUT}
    return _Subject.of(path, twin, rest, folder, memory, source=model, twin="untied")


def _feeds(
    graph: ir.Model,
    input: str | Path | None,
    *,
    batch: int,
    sequence: int | None,
    loops: int | None,
    seed: int,
    path: str | Path,
) -> dict[str, Array]:
    names = [value.name or "" for value in graph.graph.inputs]
    if loops is not None and LOOPS_INPUT not in names:
        metadata = read_metadata(graph.metadata_props)
        fixed = metadata.loops if metadata else None
        if loops != fixed:
            raise InputError(
                f"{path} runs {fixed or 'a fixed number of'} loops, {loops} were asked for",
                hint="loopedge export model.pt --dynamic-loops",
            )
    feeds = generate_inputs(graph, batch=batch, sequence=sequence, loops=loops, seed=seed)
    if input is not None:
        ranks = {name: array.ndim for name, array in feeds.items() if name != LOOPS_INPUT}
        given = read_arrays(input, ranks)
        missing = [name for name in ranks if name not in given]
        if missing:
            raise InputError(f"{input} holds no array {missing[0]}, which {path} takes")
        feeds.update({name: given[name].astype(feeds[name].dtype) for name in ranks})
    return feeds


def _check_positive(**options: int | None) -> None:
    for name, value in options.items():
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}, at least 1 is needed", hint=f"--{name} 1")


def _run(
    subject: _Subject, measured: Measured, *, device: str, threads: int, loops: int | None
) -> Run:
    metadata = read_metadata(subject.graph.metadata_props)
    first = next(iter(subject.feeds.values()))
    profile = subject.memory.profile
    told = [
        *([subject.twin] if subject.twin else []),
        *([profile] if profile != "balanced" else []),
    ]
    name = subject.source.name + (f" ({', '.join(told)})" if told else "")
    scheme = (metadata.quantization or {}).get("scheme") if metadata else None
    return Run(
        name=name,
        path=str(subject.source),
        form=metadata.form if metadata else None,
        twin=subject.twin,
        quantization=scheme,
        loops=loops or (metadata.loops if metadata else None),
        device=device,
        provider=measured.provider,
        memory=profile,
        threads=threads,
        batch=first.shape[0] if first.ndim else 1,
        sequence=first.shape[1] if first.ndim > 1 else None,
        file_bytes=subject.file_bytes,
        weight_bytes=weight_bytes(subject.graph),
        load_seconds=measured.load_seconds,
        rss_load_bytes=measured.loaded_memory["rss_bytes"],
        anon_bytes=measured.loaded_memory["anon_bytes"],
        mapped_bytes=measured.loaded_memory["mapped_bytes"],
        rss_peak_bytes=measured.memory["peak_bytes"],
        latency_ms=measured.latency_ms,
        time_ratio=measured.time_ratio,
        nodes=measured.nodes,
        ops=measured.ops,
    )


def _provider(device: str) -> str:
    if device not in PROVIDERS:
        raise InputError(f"device {device!r} is not known", hint="--device cpu or --device cuda")
    if PROVIDERS[device] not in ort.get_available_providers():
        raise ProviderError(
            f"{PROVIDERS[device]} is not available in this onnxruntime",
            hint="pip install 'loopedge[gpu]'",
        )
    return PROVIDERS[device]
