"""Run a model on the arrays of a file: what ``loopedge run`` does."""

import time
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loopedge.artifact.artifact import Artifact
from loopedge.errors import InputError, UntrainedWarning
from loopedge.files.arrays import check_arrays_target, write_arrays
from loopedge.files.paths import check_paths
from loopedge.graph.inputs import input_specs
from loopedge.graph.metadata import ITERATIONS_OUTPUT, LOOPS_INPUT
from loopedge.options import option, option_name
from loopedge.runtime.inputs import ModelInputs
from loopedge.runtime.session import Session

__all__ = ["InferenceResult", "OutputSummary", "run_arrays", "run_file", "summarize"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSummary:
    """One output at a glance; ``min``, ``mean`` and ``max`` are of its finite values."""

    name: str
    dtype: str
    shape: list[int]
    min: float | None
    mean: float | None
    max: float | None
    not_finite: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceResult:
    """What a run gave."""

    model: str
    path: str | None
    loops: int | None
    provider: str
    memory: str
    run_ms: float
    labels: list[str] | None
    notes: list[str]
    outputs: list[OutputSummary]

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the keys of docs/cli.md."""
        return asdict(self)


def run_file(
    model: str | Path,
    input: str | Path,
    path: str | Path | None = None,
    *,
    loops: int | None = None,
    tolerance: float | None = None,
    seed: int | None = None,
    threads: int | None = None,
    device: str = "cpu",
    memory: str | None = None,
    force: bool = False,
) -> InferenceResult:
    """Run a model once on the arrays of a file.

    Args:
        model: The ``.onnx`` file.
        input: As `loopedge.runtime.inputs.ModelInputs.read`; a missing ``attention_mask`` is filled in.
        path: Where the outputs go, ``.npz`` or ``.npy``; default: nowhere.
        loops: Iterations, for a model with a selectable count.
        tolerance: As `Session.run`.
        seed: Of the noise that the model takes, where the file holds none; default 0.
        threads: Threads inside an operator; default: ONNX Runtime's own choice.
        device: ``cpu`` or ``cuda``.
        memory: As `loopedge.runtime.session.Session`.
        force: Replace an existing ``path``.

    Returns:
        A summary of each output.

    Raises:
        InputError: The model, the inputs, an option or the target cannot be used.
        ProviderError: The device's execution provider is not available.
    """
    # What ONNX Runtime would run without end, or read from elsewhere, is refused.
    artifact = Artifact.open(model)
    specs = input_specs(artifact.graph)
    session = Session(model, threads=threads, device=device, memory=memory)
    expected = ModelInputs.of(model, specs, session.metadata)
    if path is not None:
        # What does not stand there yet is not a file of the model.
        files = artifact.needed_files() if Path(path).exists() else artifact.path
        check_paths(
            inputs={"MODEL": files, option_name("input"): input},
            outputs={option_name("path"): path},
        )
        check_arrays_target(Path(path), len(session.output_names), force=force)
    if seed is not None and not session.metadata.random_inputs:
        raise InputError(
            f"{model} takes no noise: a seed has no use", hint=f"leave out {option_name('seed')}"
        )
    feeds = expected.read(input, seed=seed or 0)
    count = next((spec for spec in specs if spec.chooses_loops), None)
    if count is not None and not session.takes_loops:  # the graph says so, its name does not
        if loops is not None:
            feeds.arrays[count.name] = count.loop_count(loops)
        elif count.name not in feeds.arrays:
            raise InputError(
                f"{model} takes a loop count, its input {count.name}", hint=option("loops", "N")
            )
        loops = None
    outputs, summary = run_arrays(session, feeds.arrays, loops=loops, tolerance=tolerance)
    if path is not None:
        write_arrays(path, outputs, force=force)
    written = None if path is None else str(path)
    return replace(summary, path=written, notes=[*feeds.notes, *summary.notes])


def run_arrays(
    session: Session,
    arrays: dict[str, npt.NDArray[Any]],
    *,
    loops: int | None = None,
    tolerance: float | None = None,
    seed: int = 0,
) -> tuple[dict[str, npt.NDArray[Any]], InferenceResult]:
    """Run a session once; return its outputs by name, and a summary of them.

    Args:
        session: The model.
        arrays: Its inputs by name.
        loops: As `Session.run`, like the rest.
        tolerance: Of an early exit.
        seed: Of the noise that the model takes.

    Raises:
        InputError: As `Session.run`.
    """
    started = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UntrainedWarning)
        outputs = session.run(arrays, loops=loops, tolerance=tolerance, seed=seed)
    run_ms = (time.perf_counter() - started) * 1e3
    return outputs, InferenceResult(
        model=str(session.path),
        path=None,
        loops=_loops_run(session, arrays, loops, outputs),
        provider=session.provider,
        memory=session.memory,
        run_ms=run_ms,
        labels=_labels(session, outputs),
        notes=[*session.notes, *(str(warning.message) for warning in caught)],
        outputs=[summarize(name, array) for name, array in outputs.items()],
    )


def _labels(session: Session, outputs: dict[str, npt.NDArray[Any]]) -> list[str] | None:
    """Return the class of each row by its name, where the task that was learned names classes."""
    classes = session.metadata.task.get("classes")
    logits = outputs[session.output_names[0]]
    if not isinstance(classes, list) or logits.ndim != 2 or logits.shape[1] != len(classes):
        return None
    return [str(classes[place]) for place in logits.argmax(axis=1)]


def _loops_run(
    session: Session,
    arrays: dict[str, npt.NDArray[Any]],
    loops: int | None,
    outputs: dict[str, npt.NDArray[Any]],
) -> int | None:
    """Return the iterations that ran: as asked or stored, clamped to the table, ended early."""
    metadata = session.metadata
    if metadata.exit is not None:
        return int(outputs[ITERATIONS_OUTPUT].max()) if ITERATIONS_OUTPUT in outputs else None
    given = arrays.get(LOOPS_INPUT) if session.takes_loops else None
    asked = int(given.item()) if loops is None and given is not None and given.size == 1 else loops
    count = metadata.loops if asked is None else asked
    if metadata.foreign or count is None:
        return asked
    return min(max(count, 1), metadata.max_loops or count)


def summarize(name: str, array: npt.NDArray[Any]) -> OutputSummary:
    """Return an output at a glance."""
    finite = array[np.isfinite(array)] if np.issubdtype(array.dtype, np.number) else array[:0]
    low, mean, high = (
        (float(finite.min()), float(finite.mean(dtype=np.float64)), float(finite.max()))
        if finite.size
        else (None, None, None)
    )
    return OutputSummary(
        name=name,
        dtype=str(array.dtype),
        shape=list(array.shape),
        min=low,
        mean=mean,
        max=high,
        not_finite=int(array.size - finite.size),
    )
