"""Run a model of tables on a table: `loopedge.forecast`, with numpy and onnxruntime alone."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from loopedge.data.tables.format import TableFormat
from loopedge.errors import InputError
from loopedge.files.arrays import Array
from loopedge.graph.metadata import Metadata
from loopedge.runtime.session import Session
from loopedge.runtime.tables.forecast import Forecast, softmax
from loopedge.runtime.tables.last_windows import LastWindows
from loopedge.tasks.intervals import Intervals

__all__ = ["answers_task", "forecast", "in_parts", "make_forecast", "part_size"]

PART = 256
"""Windows that run together."""


def forecast(
    model: str | Path | Session,
    table: str | Path,
    *,
    form: TableFormat | Mapping[str, Any] | None = None,
    loops: int | None = None,
    tolerance: float | None = None,
) -> Forecast:
    """Forecast what follows each series of a table, or tell its label.

    The columns are taken by their names. The model sees the last table rows of each series, as many as it was trained
    on; it remembers which columns hold times and names of series, and how its table was written down.

    Args:
        model: An exported model that was trained on a table (``loopedge train series``), or a session of one.
        table: A CSV or Parquet file with the columns of training, its oldest table row first.
        form: How the table is written down: all of it, or fields by name, which win over those of training.
        loops: As `loopedge.Session.run`, like the next one.
        tolerance: Of an early exit.

    Returns:
        Names of the series, times, values and intervals; or labels and their probabilities.

    Raises:
        InputError: The model was not trained on a table; the file, a column, a value or the order cannot be used; no
            series is long enough.
        MissingExtraError: The file is Parquet and pyarrow is not installed.
        ProviderError: The execution provider is not available.
    """
    session = model if isinstance(model, Session) else Session(model)
    expected = session.expected
    if expected.described is None:
        raise InputError(
            f"{session.path} was not trained on a table: it forecasts none",
            hint="run it on arrays: loopedge.Session(path).run(arrays)",
        )
    read = expected.read(table, form=form)
    if read.windows is None:
        raise InputError(
            f"{table} holds arrays, a table is needed",
            hint="run it on arrays: loopedge.Session(path).run(arrays)",
        )
    outputs = in_parts(
        read.arrays,
        part_size(session),
        lambda feeds: session.run(feeds, loops, tolerance=tolerance),
    )
    return make_forecast(
        str(session.path), session.metadata, read.windows, outputs[session.output_names[0]]
    )


def part_size(session: Session) -> int | None:
    """Return how many windows run together; None: all of them.

    Where a range is found while a model runs it is that of all windows together: they run one by one there, so that
    what is said of a series does not hang on the others.
    """
    if session.metadata.random_inputs:
        return None
    dynamic = (session.metadata.quantization or {}).get("scheme") == "dynamic"
    return 1 if dynamic else PART


def in_parts(
    arrays: Mapping[str, Array],
    size: int | None,
    run: Callable[[dict[str, Array]], dict[str, Array]],
) -> dict[str, Array]:
    """Run some samples after the others and put their outputs together.

    Args:
        arrays: Inputs by name, the first axis the samples.
        size: Samples at once; None: all.
        run: Returns the outputs of some.
    """
    if size is None:
        return run(dict(arrays))
    total = len(next(iter(arrays.values())))
    parts = [
        run(
            {
                name: _rows(array, total, slice(first, first + size))
                for name, array in arrays.items()
            }
        )
        for first in range(0, total, size)
    ]
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _rows(array: Array, total: int, part: slice) -> Array:
    """Return some of the samples; what is one number for all of them, as a tolerance, stays."""
    return array[part] if array.shape[:1] == (total,) else array


def make_forecast(model: str, metadata: Metadata, windows: LastWindows, answer: Array) -> Forecast:
    """Return what the first output of a model says of the series of a table.

    Args:
        model: Its file.
        metadata: What the file says of itself.
        windows: What it was run on.
        answer: Its first output: (series, horizon, targets), or logits (series, classes).

    Raises:
        InputError: The output has another shape than the task of the model.
    """
    if not answers_task(windows, answer):
        raise InputError(
            f"{model} gives an output of shape {answer.shape}, its task asks for {_answer_shape(windows)}"
        )
    described = windows.described
    shared: dict[str, Any] = {
        "model": model,
        "table": windows.source,
        "group": windows.group,
        "time_column": windows.time_column,
        "series": windows.series,
        "rows": windows.rows,
        "notes": windows.notes,
    }
    if described.classes:
        return Forecast(
            **shared,
            times=tuple((text,) for text in windows.last_times),
            label=described.label,
            classes=described.classes,
            probabilities=softmax(answer),
        )
    found = Intervals.of(metadata.task)
    return Forecast(
        **shared,
        times=windows.times,
        targets=described.targets,
        values=answer,
        intervals={}
        if found is None
        else found.around(answer, found.units(windows.inputs, windows.mask)),
    )


def answers_task(windows: LastWindows, answer: Array) -> bool:
    """Tell whether an output has the shape that the task of the model asks for."""
    return answer.shape == _answer_shape(windows)


def _answer_shape(windows: LastWindows) -> tuple[int, ...]:
    described = windows.described
    if described.classes:
        return len(windows.series), len(described.classes)
    return len(windows.series), described.horizon, len(described.targets)
