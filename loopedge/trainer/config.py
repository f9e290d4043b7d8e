"""How a model is trained, and how big it is: options checked against their bounds (torch-free)."""

from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from loopedge.errors import InputError
from loopedge.model.config import LoopedConfig
from loopedge.tasks.task import Task

__all__ = ["TrainConfig", "make_model_config", "make_train_config"]

EVALUATIONS, LEAST_INTERVAL = 20, 20
"""Evaluations in a run that does not say how often, and the least steps between them."""
WARMUP_SHARE, MOST_WARMUP = 0.05, 500


class TrainConfig(BaseModel):
    """Optimiser, schedule and bookkeeping; the defaults suit small models on a CPU."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    steps: int = Field(default=1000, ge=1, le=100_000_000)
    batch_size: int = Field(
        default=64, ge=1, le=1_048_576, description="Of one optimizer step, over all processes."
    )
    accumulate: int = Field(
        default=1, ge=1, le=65536, description="Parts that a batch is computed in, for memory."
    )
    lr: float = Field(default=1e-3, gt=0, le=10, description="Peak learning rate.")
    min_lr_share: float = Field(default=0.1, ge=0, le=1, description="Of the peak, at the end.")
    warmup: int | None = Field(
        default=None, ge=0, description="Steps of linear warm-up; default: 5 %, at most 500."
    )
    weight_decay: float = Field(default=0.01, ge=0, le=10)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.95, ge=0, lt=1)
    clip: float = Field(default=1.0, gt=0, description="Largest norm of the gradient.")
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32", description="Of the products while training; weights are float32."
    )
    compile: bool = Field(default=False, description="Compile the layers of the core.")
    ema: float | None = Field(
        default=None, gt=0, lt=1, description="Decay of averaged weights, which are then the model."
    )
    backprop_loops: int | None = Field(
        default=None, ge=1, description="Last iterations that gradients flow through."
    )
    quantization_aware: Literal["int8", "int4"] | None = Field(
        default=None, description="Round the weights in the forward pass, as a quantized file does."
    )
    patience: int | None = Field(
        default=None, ge=1, description="Evaluations without a better one that end the run."
    )
    distill_weight: float = Field(
        default=0.5, gt=0, le=1, description="Share of the teacher in the loss, where there is one."
    )
    distill_temperature: float = Field(default=2.0, gt=0, le=100)
    seed: int = Field(default=0, ge=0, le=2**63 - 1, description="Of weights and dropout.")
    evaluate_every: int | None = Field(
        default=None, ge=1, description="Steps between evaluations; default: a twentieth."
    )
    checkpoint_every: int | None = Field(
        default=None, ge=0, description="Steps between checkpoints; 0: none; default: as evaluated."
    )
    samples: int = Field(default=1024, ge=1, le=1_000_000, description="Most samples evaluated.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.compile and self.quantization_aware is not None:
            raise ValueError(
                "compiled layers cannot be trained quantization-aware: leave out one of the two"
            )
        return self

    @property
    def warmup_steps(self) -> int:
        """Steps of linear warm-up."""
        if self.warmup is not None:
            return self.warmup
        return min(MOST_WARMUP, round(WARMUP_SHARE * self.steps))

    @property
    def evaluation_interval(self) -> int:
        """Steps from one evaluation to the next."""
        return self.evaluate_every or max(LEAST_INTERVAL, -(-self.steps // EVALUATIONS))

    @property
    def checkpoint_interval(self) -> int:
        """Steps from one checkpoint to the next; 0: there are none."""
        return self.evaluation_interval if self.checkpoint_every is None else self.checkpoint_every


Config = TypeVar("Config", bound=BaseModel)


def make_train_config(**fields: Any) -> TrainConfig:
    """Return a `TrainConfig`.

    Raises:
        InputError: A field is unknown or out of bounds.
    """
    return _checked(TrainConfig, fields)


def make_model_config(task: Task, **fields: Any) -> LoopedConfig:
    """Return the configuration of a model for a task: what the task decides, and ``fields``.

    Raises:
        InputError: A field is unknown, out of bounds, or decided by the task.
    """
    decided = task.model_fields()
    both = sorted(set(decided) & set(fields))
    if both:
        raise InputError(f"{both[0]}: the task {task.name} decides it")
    config = _checked(LoopedConfig, decided | fields)
    if config.min_length is not None:
        return config
    shortest = task.shortest(each_position=config.causal and config.read == "all")
    return config.model_copy(update={"min_length": min(shortest, config.max_length)})


def _checked(kind: type[Config], fields: dict[str, Any]) -> Config:
    try:
        return kind(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]).replace("_", "-")
        message = first["msg"].removeprefix("Value error, ")
        if name:
            message = f"{name} is {first['input']!r}: {message[0].lower()}{message[1:]}"
        raise InputError(message, hint="loopedge train TASK --help") from error
