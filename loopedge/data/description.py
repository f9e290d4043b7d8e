"""What a model file says of the task that it was trained on: plain values, checked before anything is made of them.

`loopedge.tasks.task.Task.describe` writes it, and all that reads it, with tables or tokenizers, relies on its types.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from loopedge.data.tables.format import TableFormat
from loopedge.data.tables.timeline.frequency import parse_frequency
from loopedge.errors import InputError
from loopedge.files.validation import validation_problem

__all__ = ["DESCRIBED", "TABLES", "description_problem"]

TABLES = frozenset({"series", "series-labels"})
"""Tasks of windows of a table."""

DESCRIBED = TABLES | {
    *("countdown", "edit-distance", "in-context-linear", "in-context-trees", "lcs"),
    *("pairs", "sorting", "sudoku", "text"),
}
"""Tasks that loopedge can rebuild; those of others say what they like."""

Length = Annotated[int, Field(ge=1, le=1_048_576)]
Place = Annotated[int, Field(ge=0, le=2**31)]
Number = Annotated[float, Field(ge=-3e38, le=3e38)]


Share = Annotated[float, Field(ge=0, le=1)]


class _Level(BaseModel):
    """The prediction interval of one level, as `loopedge.tasks.intervals` writes it."""

    model_config = ConfigDict(extra="allow", strict=True)

    level: Annotated[int, Field(ge=1, le=99)]
    low: list[list[Number]]
    high: list[list[Number]]
    coverage: Share | None = None
    width: list[Number | None] | None = None
    step_coverage: list[list[Share | None]] | None = None
    step_width: list[list[Number | None]] | None = None
    worst_series: str | None = None
    worst_coverage: Share | None = None


class _Intervals(BaseModel):
    """Prediction intervals, as `loopedge.tasks.intervals` writes them."""

    model_config = ConfigDict(extra="allow", strict=True)

    unit: str
    still_unit: list[Number]
    windows: Place
    levels: list[_Level]


class _Description(BaseModel):
    """Types of what a description may hold; see the tasks for what each key means."""

    model_config = ConfigDict(extra="allow", strict=True)

    name: str
    kind: str = ""
    metric: str = ""
    seed: Place = 0
    # Tables.
    covariates: list[str] = Field(default_factory=list)
    targets: list[str] = Field(default_factory=list)
    target: str = ""
    label: str = ""
    classes: list[str] = Field(default_factory=list, max_length=1000)
    context: Length | None = None
    min_context: Length | None = None
    horizon: Length | None = None
    season: Length | None = None
    missing: Literal["", "refuse", "interpolate", "indicator"] = ""
    interpolate: bool = False
    time_column: str | None = None
    group: str | None = None
    frequency: str | None = None
    step: str | None = None
    gaps: Literal["split", "cross", "refuse"] = "split"
    form: dict[str, str | list[str]] = Field(default_factory=dict)
    scaling: Literal["column", "window"] = "column"
    wide: bool = False
    mean: list[Number] = Field(default_factory=list)
    scale: list[Number] = Field(default_factory=list)
    mase_season: Length | None = None
    mase_scale: list[Number | None] = Field(default_factory=list)
    intervals: _Intervals | None = None
    origin: Annotated[list[Place], Field(min_length=2, max_length=2)] | None = None
    # Text and pairs.
    tokenizer: str = ""
    tokenizer_sha256: str | None = None
    vocab_size: Place = 0
    source: str = ""
    separator: Place | None = None
    end: Place | None = None
    skip_long: bool = False
    named_parts: bool = False
    # Generated tasks.
    length: Length | None = None
    vocab: Place = 0
    letters: Place = 0
    prefixes: bool = False
    dims: Place = 0
    points: Place = 0
    depth: Place = 0
    noise: Number = 0.0
    numbers: Place = 0
    largest: Place = 0
    blanks: Place = 0
    box: Place = 0
    puzzles: Place = 0


def description_problem(task: Mapping[str, Any], *, complete: bool = True) -> str | None:
    """Say what is wrong with a description, or None: nothing is, or the task is none of `DESCRIBED`.

    Args:
        task: The description.
        complete: It must hold what running a model takes; to rebuild a task, the task itself says what it lacks.
    """
    name = task.get("name")
    if name is not None and not isinstance(name, str):
        return f"name is {type(name).__name__}, text is needed"
    if name not in DESCRIBED:
        return None
    try:
        _Description.model_validate(dict(task))
    except ValidationError as error:
        return validation_problem(error)
    return _table_problem(task, complete=complete) if name in TABLES else None


def _table_problem(task: Mapping[str, Any], *, complete: bool) -> str | None:
    """Say what is wrong with the values of a task of tables, whose types are right."""
    for key in ("frequency", "step"):
        if task.get(key) is not None:
            try:
                parse_frequency(task[key])
            except InputError:
                return f"{key}: {task[key]!r} names no frequency"
    form = dict(task.get("form") or {})
    form.pop("timezone", None)  # which zones there are is a matter of the machine
    for key, value in form.items():
        try:
            TableFormat.from_json({key: value})
        except (InputError, TypeError):
            return f"form.{key}: {value!r} does not say how a table is written"
    if not complete:
        return None
    for key in ("covariates", "mean", "context"):
        if task.get(key) is None:
            return f"{key} is missing"
    columns = _columns(task)
    if "targets" in task and not columns:
        return "targets is empty"
    if columns and len(task["mean"]) != len(columns):
        return f"mean has length {len(task['mean'])}, the columns are {len(columns)}"
    return None


def _columns(task: Mapping[str, Any]) -> list[str]:
    targets = [task["target"]] if "target" in task else list(task.get("targets", ()))
    return targets + list(task["covariates"])
