"""What an artifact says of itself in ``metadata_props`` under ``loopedge.*``."""

import json
import math
from collections.abc import Mapping, MutableMapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from loopedge.data.description import description_problem
from loopedge.errors import InputError
from loopedge.files.json_text import parse_json
from loopedge.files.validation import validation_problem

__all__ = [
    "CORE_PATTERN",
    "FOREIGN",
    "FORM_KEY",
    "ITERATIONS_OUTPUT",
    "LOOPS_INPUT",
    "MOST_LOOPS",
    "PREFIX",
    "TOLERANCE_EXIT",
    "TOLERANCE_INPUT",
    "ArtifactMetadata",
    "CacheKind",
    "CacheSlot",
    "CacheType",
    "Companion",
    "Form",
    "Generation",
    "LastPositions",
    "MemoryProfile",
    "Metadata",
    "Prepared",
    "read_metadata",
    "write_metadata",
]

T = TypeVar("T")

PREFIX = "loopedge."
FORM_KEY = f"{PREFIX}form"
"""A file that loopedge exported holds it."""
OF_THE_FILE = {f"{PREFIX}weights", f"{PREFIX}checksum"}
"""Properties of the file that a graph stands in, not of the graph: `loopedge.artifact.seal`."""

LOOPS_INPUT, TOLERANCE_INPUT, ITERATIONS_OUTPUT = "loops", "tolerance", "iterations"
"""What an artifact may take and give beside the model's own inputs and outputs."""

TOLERANCE_EXIT = f"{TOLERANCE_INPUT}="
"""How `exit` begins where a tolerance ends the loop; the exported one follows."""

LARGEST_FLOAT32 = (2 - 2**-23) * 2.0**127

FILE_NAME = r"[^/\\\x00-\x1f]*[^/\\\x00-\x1f.]"
"""What a file beside the artifact may be called: a name without a folder, and not ``..``."""

MOST_LOOPS = 65_536
"""Of one Loop, as many as `loopedge.export` writes."""

CORE_PATTERN = r"core(?:[2-9]|[1-9]\d+)?"
"""What a core is called: `loopedge.graph.core.names`."""

CoreName = Annotated[str, Field(pattern=rf"^{CORE_PATTERN}$")]
Loops = Annotated[int, Field(ge=1, le=MOST_LOOPS)]
Length = Annotated[int, Field(ge=1, le=2**31 - 1)]
Place = Annotated[int, Field(ge=0, le=1023)]
Position = Annotated[int, Field(ge=-(2**31), le=2**31 - 1)]
Deviation = Annotated[float, Field(ge=0, le=3e38)]

TokenId = Annotated[int, Field(ge=0, le=2**31 - 1)]

Form = Literal["loop", "unrolled", "scan", "tensorscatter"]
CacheKind = Literal["per-loop", "last-loop"]
CacheType = Literal["float32", "float16", "int8", "int4"]
CACHE_BITS = {"float32": 32, "float16": 16, "int8": 8, "int4": 4}
MemoryProfile = Literal["balanced", "low", "mapped"]


def _described(task: dict[str, Any]) -> dict[str, Any]:
    problem = description_problem(task)
    if problem is not None:
        raise ValueError(problem)
    return task


def _ended(exit: str) -> str:
    if exit.startswith(TOLERANCE_EXIT):
        tolerance = float(exit.removeprefix(TOLERANCE_EXIT))
        if not 0 <= tolerance < math.inf:
            raise ValueError("the tolerance must be finite and at least 0")
    return exit


class Prepared(BaseModel):
    """The device that a file's packed weights were made for, and on; docs/memory.md."""

    model_config = ConfigDict(frozen=True, extra="allow")

    onnxruntime: str
    architecture: str
    processor: str
    features: list[str] = Field(description="Instructions that packing depends on.")


class Companion(BaseModel):
    """A file that must stand beside the artifact: a tokenizer."""

    model_config = ConfigDict(frozen=True, extra="allow")

    file: str = Field(
        pattern=rf"^{FILE_NAME}$", description="Its name alone: it stands in the same folder."
    )
    sha256: str


class LastPositions(BaseModel):
    """Which positions the last iteration computes, behind the Loop; docs/artifact.md.

    They are ``indices``, or those from ``start`` to before ``end`` where there are none.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    axes: dict[Place, Place] = Field(
        description="By state: the axis along which the positions lie."
    )
    whole: list[Place] = Field(default_factory=list, description="States that are computed whole.")
    indices: list[Position] | None = Field(default=None, min_length=1)
    start: Position = 0
    end: Position = 0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.axes or set(self.axes) & set(self.whole):
            raise ValueError("a state is there twice, or none is")
        if self.indices is None and self.start >= self.end >= 0 and self.start >= 0:
            raise ValueError(f"positions {self.start} to {self.end} are none")
        return self


class CacheSlot(BaseModel):
    """Keys and values of one attention in the cache of a generate file: ``past.<name>.key`` and so on."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str = Field(pattern=r"^[a-z][a-z0-9]*(\.\d+){1,2}$")
    loops: Loops | None = Field(
        default=None, description="Iterations that keep their own, where a Scan repeats it."
    )
    inner: list[Loops] = Field(
        default_factory=list, description="Those of Scans inside it, the outer one first."
    )
    kv_heads: Annotated[int, Field(ge=1, le=65_536)]
    head_size: Annotated[int, Field(ge=1, le=65_536)]
    window: Length | None = Field(default=None, description="Positions that are read; None: all.")
    softcap: Annotated[float, Field(gt=0, le=3e38)] | None = Field(
        default=None, description="Of the scores, where they have one."
    )


class Generation(BaseModel):
    """What a file that decodes with a cache says of it: docs/artifact.md."""

    model_config = ConfigDict(frozen=True, extra="allow")

    cache: CacheKind = "per-loop"
    cache_type: CacheType = "float32"
    exit: Literal["copy", "holes"] | None = Field(
        default=None,
        description="Where each token exits for itself: what skipped iterations keep of it.",
    )
    context: Length | None = Field(default=None, description="Positions of a text, at most.")
    vocab_size: Length | None = None
    slots: list[CacheSlot] = Field(min_length=1)
    end_ids: list[TokenId] = Field(default_factory=list, description="Tokens that end a text.")

    def past_of(self, present: str) -> str:
        """Return the part of the cache that an output goes into, both without their prefix.

        Where all iterations share a slot, ``core.<t>.<i>.key`` goes into ``core.<i>.key``.
        """
        place, *numbers, part = present.split(".")
        own = {slot.name for slot in self.slots}
        if len(numbers) > 1 and f"{place}.{'.'.join(numbers)}" not in own:
            return f"{place}.{numbers[-1]}.{part}"
        return present

    @property
    def bytes_per_token(self) -> int:
        """Bytes of keys and values of one token of one row, all iterations."""
        rows = sum(
            math.prod([slot.loops or 1, *slot.inner, slot.kv_heads, slot.head_size])
            for slot in self.slots
        )
        return rows * 2 * CACHE_BITS[self.cache_type] // 8


class Metadata(BaseModel):
    """What a model's file says of itself under ``loopedge.*``.

    A file of another tool says nothing: its metadata is `FOREIGN`, where each field has the value that stands for
    "not known" or "none". So who asks for one field needs no case for such files. Who needs ``version``, ``form``,
    ``loops`` or ``trained_loops`` asks for an `ArtifactMetadata`, which has them.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    version: str | None = None
    form: Form | None = None
    loops: Loops | None = Field(
        default=None, description="Iterations that run unless the input 'loops' says else."
    )
    trained_loops: Loops | None = None
    cores: dict[CoreName, Loops] | None = Field(
        default=None,
        min_length=2,
        description="Where the graph has several cores: the iterations of each, by its name.",
    )
    loop_range: tuple[Loops, Loops] | None = Field(
        default=None, description="Least and most loops that it was trained with."
    )
    max_loops: Loops | None = Field(
        default=None, description="Iterations that run at most; a higher count is clamped to it."
    )
    dynamic_loops: bool = False
    exit: Annotated[str, AfterValidator(_ended)] | None = Field(
        default=None, description="What ends the loop early: halt, or tolerance=X."
    )
    trained_length: Length | None = Field(default=None, description="Positions it was trained for.")
    max_length: Length | None = Field(default=None, description="Positions it can take at most.")
    min_length: Length | None = Field(
        default=None, description="Fewest positions that an output saw in training."
    )
    random_inputs: dict[str, Deviation] = Field(
        default_factory=dict, description="Inputs that hold noise, with its standard deviation."
    )
    missing_values: bool = Field(
        default=False, description="NaN in a continuous input stands for a missing value."
    )
    tables: list[str] = Field(default_factory=list, description="Timestep table initializers.")
    twin: Literal["untied"] | None = None
    checkpoint_sha256: str | None = None
    source_sha256: str | None = Field(
        default=None, description="Of the file whose loops were given back: `loopedge.reroll`."
    )
    max_rel_error: float | None = None
    task: Annotated[dict[str, Any], AfterValidator(_described)] = Field(default_factory=dict)
    companions: dict[str, Companion] = Field(
        default_factory=dict, description="Files beside it, by what they are: tokenizer.json."
    )
    end_ids: list[TokenId] = Field(
        default_factory=list, description="Tokens that end a text, as the folder of the model says."
    )
    quantization: dict[str, Any] | None = None
    storage: Literal["float16"] | None = Field(
        default=None, description="Type of the weights where it is not what they are computed in."
    )
    target: Literal["cpu", "cuda"] | None = Field(
        default=None, description="Device that it was exported for, where one was named."
    )
    memory: MemoryProfile = Field(
        default="balanced",
        description="How a session keeps the weights, unless something else is asked for.",
    )
    optimized: bool = Field(
        default=False,
        description="Set where ONNX Runtime's optimizers leave the graph as it is: low does without.",
    )
    last_rows: LastPositions | None = Field(
        default=None,
        description="Set where the last iteration computes only the positions that are read.",
    )
    logits: Literal["last"] | None = Field(
        default=None, description="Set where outputs are of the last position alone."
    )
    generate: Generation | None = Field(
        default=None, description="Set where the file decodes with a cache."
    )
    prepared: Prepared | None = Field(
        default=None, description="Set where the file holds weights packed for one device."
    )

    @model_validator(mode="after")
    def _one_count(self) -> Self:
        if self.cores is not None and self.cores.get("core") != self.loops:
            raise ValueError(f"loops is {self.loops}, cores says {self.cores.get('core')}")
        return self

    @property
    def foreign(self) -> bool:
        """Whether loopedge did not write the file."""
        return self.form is None

    @property
    def foreign_inputs(self) -> bool:
        """Whether another tool named the axes of the inputs: its file, or one that was rerolled from it.

        What loopedge exported says for how many positions it was trained, rerolled or not.
        """
        rerolled = self.source_sha256 is not None and self.trained_length is None
        return self.foreign or rerolled

    def answers(self, outputs: Mapping[str, T]) -> dict[str, T]:
        """Return the outputs that the model itself gives, by name: not how many iterations an early exit ran."""
        return {
            name: output
            for name, output in outputs.items()
            if self.exit is None or name != ITERATIONS_OUTPUT
        }

    @property
    def tolerance(self) -> float | None:
        """The tolerance that the model was exported with; None where no tolerance ends its loop."""
        if self.exit is None or not self.exit.startswith(TOLERANCE_EXIT):
            return None
        return min(float(self.exit.removeprefix(TOLERANCE_EXIT)), LARGEST_FLOAT32)

    @property
    def shortest(self) -> int | None:
        """The fewest positions that it was trained on; None where that is not known, 1 where any number was."""
        return self.min_length or self.task.get("min_context")

    def loops_note(self, loops: int) -> str | None:
        """Say that the model was not trained with so many loops; None where it was, or where it does not say."""
        if self.loop_range is None or self.loop_range[0] <= loops <= self.loop_range[1]:
            return None
        least, most = self.loop_range
        trained = str(most) if least == most else f"{least} to {most}"
        clamped = self.max_loops is not None and loops > self.max_loops
        return (
            f"{loops} loop{'s' if loops > 1 else ''} asked for, the model was trained with {trained}"
            + (f"; the file ends the loop after {self.max_loops}" if clamped else "")
        )

    def length_note(self, positions: int) -> str | None:
        """Say that the model was not trained on so few positions; None as for `loops_note`."""
        if self.shortest is None or positions >= self.shortest:
            return None
        return (
            f"{positions} position{'s' if positions > 1 else ''} to see, the model was trained with at least "
            f"{self.shortest}"
        )


class ArtifactMetadata(Metadata):
    """The ``loopedge.*`` properties of a file that loopedge wrote."""

    version: str
    form: Form
    loops: Loops = Field(description="Iterations that run unless the input 'loops' says else.")
    trained_loops: Loops


FOREIGN = Metadata()
"""Of a file that loopedge did not write."""


def read_metadata(properties: Mapping[str, str]) -> Metadata:
    """Parse the properties of a model.

    Args:
        properties: ``metadata_props`` of an onnx_ir model, or the custom metadata map of an
            onnxruntime session.

    Returns:
        An `ArtifactMetadata`; `FOREIGN` when loopedge did not write the model.

    Raises:
        InputError: The properties are there but not valid.
    """
    found = {
        name.removeprefix(PREFIX): value
        for name, value in properties.items()
        if name.startswith(PREFIX) and name not in OF_THE_FILE
    }
    if "form" not in found:
        return FOREIGN
    values = {name: _parse(name, value) for name, value in found.items()}
    try:
        return ArtifactMetadata.model_validate(values)
    except ValidationError as error:
        raise InputError(
            f"the loopedge metadata of the model is damaged: {validation_problem(error)}"
        ) from error


def _parse(name: str, text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        raise InputError(
            f"the loopedge metadata of the model is damaged: {name} is not JSON, {error}"
        ) from error


def write_metadata(metadata: Metadata, properties: MutableMapping[str, str]) -> None:
    """Store ``metadata`` in ``properties``, replacing what stood there under ``loopedge.*``.

    Properties of a foreign model are left as they are: it does not say more of itself than it said before.
    """
    if metadata.foreign:
        return
    for name in [name for name in properties if name.startswith(PREFIX)]:
        del properties[name]
    for name, value in metadata.model_dump(exclude_none=True).items():
        properties[PREFIX + name] = json.dumps(value, sort_keys=True)
