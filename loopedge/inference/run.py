"""Run a model on the arrays of a file: what ``loopedge run`` does."""

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loopedge.artifact.artifact import Artifact
from loopedge.data.tables.format import TableFormat
from loopedge.errors import InputError, UntrainedWarning
from loopedge.files.arrays import check_arrays_target, write_arrays
from loopedge.files.paths import check_paths
from loopedge.graph.inputs import input_specs
from loopedge.graph.metadata import ITERATIONS_OUTPUT, LOOPS_INPUT
from loopedge.graph.signature import InputSpec
from loopedge.options import option, option_name
from loopedge.runtime.inputs import AcceptedInputs, ModelInputs
from loopedge.runtime.session import Session
from loopedge.runtime.tables.forecast import Forecast
from loopedge.runtime.tables.forecast_file import (
    check_forecast_target,
    is_forecast_file,
    write_forecast,
)
from loopedge.runtime.tables.forecasting import answers_task, in_parts, make_forecast, part_size

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
    forecast: Forecast | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the keys of docs/cli.md."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        forecast = None if self.forecast is None else self.forecast.to_json()
        return plain | {
            "outputs": [asdict(output) for output in self.outputs],
            "forecast": forecast,
        }


def run_file(
    model: str | Path,
    input: str | Path,
    path: str | Path | None = None,
    *,
    loops: int | None = None,
    tolerance: float | None = None,
    seed: int | None = None,
    threads: int | None = None,
    provider: str = "cpu",
    provider_options: Mapping[str, str] | None = None,
    memory: str | None = None,
    form: TableFormat | Mapping[str, Any] | None = None,
    force: bool = False,
) -> InferenceResult:
    """Run a model once on the arrays of a file, or on the last window of each series of a table.

    Args:
        model: The ``.onnx`` file.
        input: As `loopedge.runtime.inputs.ModelInputs.read`; a missing ``attention_mask`` is filled in.
        path: Where the outputs go, ``.npz`` or ``.npy``; of a table also ``.csv`` or ``.parquet``, with the names of
            series and the times; default: nowhere.
        loops: Iterations, for a model with a selectable count.
        tolerance: As `Session.run`.
        seed: Of the noise that the model takes, where the file holds none; default 0.
        threads: Threads inside an operator; default: ONNX Runtime's own choice.
        provider: Execution provider, as `loopedge.runtime.session.Session`.
        provider_options: Of the provider, by its own names.
        memory: As `loopedge.runtime.session.Session`.
        form: How a table is written down, or fields of that by name, which win over what the model remembers.
        force: Replace an existing ``path``.

    Returns:
        A summary of each output, and of a table the forecast.

    Raises:
        InputError: The model, the inputs, an option or the target cannot be used.
        MissingExtraError: The table or the target is Parquet and pyarrow is not installed.
        ProviderError: The execution provider is not available, or runs none of the products.
    """
    # What ONNX Runtime would run without end, or read from elsewhere, is refused.
    artifact = Artifact.open(model)
    specs = input_specs(artifact.graph)
    session = Session(
        model, threads=threads, provider=provider, memory=memory, provider_options=provider_options
    )
    expected = ModelInputs.of(model, specs, session.metadata)
    if path is not None:
        # What does not stand there yet is not a file of the model.
        files = artifact.needed_files() if Path(path).exists() else artifact.path
        check_paths(
            inputs={"MODEL": files, option_name("input"): input},
            outputs={option_name("path"): path},
        )
        _check_target(Path(path), session, input, force=force)
    if seed is not None and not session.metadata.random_inputs:
        raise InputError(
            f"{model} takes no noise: a seed has no use", hint=f"leave out {option_name('seed')}"
        )
    feeds = expected.read(input, seed=seed or 0, form=form)
    if _feed_loops(feeds.arrays, model, specs, session, loops):
        loops = None
    outputs, summary = run_arrays(
        session,
        feeds.arrays,
        loops=loops,
        tolerance=tolerance,
        part=None if feeds.windows is None else part_size(session),
    )
    forecast = _forecast(
        session, feeds, outputs, demanded=path is not None and is_forecast_file(path)
    )
    if path is not None and forecast is not None and is_forecast_file(path):
        write_forecast(forecast, path, force=force)
    elif path is not None:
        write_arrays(path, outputs, force=force)
    written = None if path is None else str(path)
    notes = [*feeds.notes, *summary.notes]
    return replace(summary, path=written, notes=notes, forecast=forecast)


def _feed_loops(
    arrays: dict[str, npt.NDArray[Any]],
    model: str | Path,
    specs: Sequence[InputSpec],
    session: Session,
    loops: int | None,
) -> bool:
    """Feed the loop count to a graph whose input takes it under another name than ours; tell whether one does."""
    count = next((spec for spec in specs if spec.chooses_loops), None)
    if count is None or session.takes_loops:  # the graph says so, its name does not
        return False
    if loops is not None:
        arrays[count.name] = count.loop_count(loops)
    elif count.name not in arrays:
        raise InputError(
            f"{model} takes a loop count, its input {count.name}", hint=option("loops", "N")
        )
    return True


def _forecast(
    session: Session,
    feeds: AcceptedInputs,
    outputs: dict[str, npt.NDArray[Any]],
    *,
    demanded: bool,
) -> Forecast | None:
    """Return what the outputs say of a table; None where there was none, or they have another shape than its task asks for.

    Raises:
        InputError: A forecast is demanded and they have.
    """
    answer, windows = outputs[session.output_names[0]], feeds.windows
    if windows is None or not (demanded or answers_task(windows, answer)):
        return None
    return make_forecast(str(session.path), session.metadata, windows, answer)


def _check_target(target: Path, session: Session, input: str | Path, *, force: bool) -> None:
    """Refuse a target that could not be written, before any work is done."""
    if not is_forecast_file(target):
        if target.suffix not in {".npz", ".npy"} and session.expected.reads_table(input):
            name = target.with_name(f"{target.name.partition('.')[0]}.csv")
            raise InputError(
                f"{target} has an unknown kind, .csv or .parquet is needed, or .npz for arrays",
                hint=option("path", str(name)),
            )
        check_arrays_target(target, len(session.output_names), force=force)
        return
    if not session.expected.reads_table(input):
        raise InputError(
            f"{target} would hold the forecasts of a table, {input} holds none for {session.path}",
            hint=f"write arrays: {option('path', str(target.with_suffix('.npz')))}",
        )
    check_forecast_target(target, force=force)


def run_arrays(
    session: Session,
    arrays: dict[str, npt.NDArray[Any]],
    *,
    loops: int | None = None,
    tolerance: float | None = None,
    seed: int = 0,
    part: int | None = None,
) -> tuple[dict[str, npt.NDArray[Any]], InferenceResult]:
    """Run a session once; return its outputs by name, and a summary of them.

    Args:
        session: The model.
        arrays: Its inputs by name.
        loops: As `Session.run`, like the rest.
        tolerance: Of an early exit.
        seed: Of the noise that the model takes.
        part: Samples that run at once; None: all.

    Raises:
        InputError: As `Session.run`.
    """
    started = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UntrainedWarning)
        outputs = in_parts(
            arrays,
            part,
            lambda feeds: session.run(feeds, loops=loops, tolerance=tolerance, seed=seed),
        )
    run_ms = (time.perf_counter() - started) * 1e3
    return outputs, InferenceResult(
        model=str(session.path),
        path=None,
        loops=_loops_run(session, arrays, loops, outputs),
        provider=session.provider,
        memory=session.memory,
        run_ms=run_ms,
        labels=_labels(session, outputs),
        notes=list(dict.fromkeys([*session.notes, *(str(each.message) for each in caught)])),
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
