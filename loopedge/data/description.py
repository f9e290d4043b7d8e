"""What a model file says of the task that it was trained on: plain values, checked before anything is made of them.

`loopedge.tasks.task.Task.describe` writes it, and all that reads it, with tables or tokenizers, relies on its types.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

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
    missing: str = ""
    interpolate: bool = False
    time_column: str | None = None
    group: str | None = None
    mean: list[Number] = Field(default_factory=list)
    scale: list[Number] = Field(default_factory=list)
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
    missing = [key for key in ("covariates", "mean", "context") if task.get(key) is None]
    if complete and name in TABLES and missing:
        return f"{missing[0]} is missing"
    return None
