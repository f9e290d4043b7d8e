"""One optimizer step: the batch in parts, gradients over all processes, clipping, AdamW."""

import contextlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from loopedge.errors import InputError
from loopedge.model.transformer import LoopedTransformer
from loopedge.options import option
from loopedge.tasks.task import Batch, Task
from loopedge.trainer.config import TrainConfig
from loopedge.trainer.quantization_aware.rounded_forward import rounded_weights
from loopedge.trainer.steps.average import WeightAverage
from loopedge.trainer.steps.objective import Objective, asked_of, inputs_of, outputs_of, scale_of
from loopedge.trainer.steps.optimizer import learning_rate, make_optimizer
from loopedge.trainer.world import World, shard

__all__ = ["Step", "Stepper"]

DROPOUT_STREAM, LOOPS_STREAM = 101, 102
"""Random streams of a step beside its batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The gradient of a step, not applied yet.

    Args:
        loss: Mean over what the whole batch asks.
        gradient_norm: Before clipping.
        lr: Learning rate.
        loops: Iterations.
        tokens: Positions of the whole batch, padding left out.
    """

    loss: float
    gradient_norm: float
    lr: float
    loops: int
    tokens: int


class Stepper:
    """Makes steps; each depends on its number alone, and on the weights and the optimizer's state.

    Args:
        task: Gives the batches.
        model: On the device of ``world``; is compiled, wrapped or sharded in place as asked.
        config: Optimizer and schedule.
        objective: The loss.
        world: The processes of the run.

    Raises:
        InputError: The batch cannot be split evenly, or there is no compiler.
    """

    def __init__(
        self,
        task: Task,
        model: LoopedTransformer,
        config: TrainConfig,
        objective: Objective,
        world: World,
    ) -> None:
        self.task, self.model, self.config = task, model, config
        self.objective, self.world = objective, world
        check_parts(config, world)
        self.average = None if config.ema is None else WeightAverage(model, config.ema)
        if config.compile:
            compile_layers(model, world.device)
        self.module = world.wrap(model)
        if self.average is not None and world.is_sharded:
            shard(self.average.model)
        self.optimizer = make_optimizer(model, config)

    def compute(self, step: int) -> Step:
        """Compute the gradient of step ``step``, counted from 0."""
        config, world = self.config, self.world
        batch = self.task.batch("train", config.batch_size, step)
        torch.manual_seed(seed_of(config.seed, DROPOUT_STREAM, step, world.rank))
        loops = self._loops(step)
        asked = asked_of(self.objective.kind, batch)
        self.optimizer.zero_grad(set_to_none=True)
        own, parts = world.share(batch), config.accumulate
        loss = torch.zeros((), device=world.device)
        for part in range(parts):
            rows = own.rows(slice(part, None, parts)) if parts > 1 else own
            with world.unsynchronised(self.module, when=part < parts - 1):
                loss += self._backward(rows, asked, loops)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
        return Step(
            loss=world.sum(float(loss)),
            gradient_norm=float(norm.full_tensor() if isinstance(norm, DTensor) else norm),
            lr=learning_rate(config, step),
            loops=loops,
            tokens=positions(batch),
        )

    def apply(self, step: int, made: Step) -> None:
        """Move the weights along the gradient of step ``step``."""
        for group in self.optimizer.param_groups:
            group["lr"] = made.lr
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.model, step)

    def _backward(self, batch: Batch, asked: int, loops: int) -> Tensor:
        """Add the gradient of some samples; return their part of the mean loss."""
        device, config = self.world.device, self.config
        inputs = inputs_of(batch, device)
        targets = torch.from_numpy(batch.targets).to(device)
        lower = config.precision == "bfloat16"
        with (
            torch.autocast(device.type, torch.bfloat16) if lower else contextlib.nullcontext(),
            rounded_weights(self.model, config.quantization_aware),
        ):
            outputs = outputs_of(
                self.module, inputs, loops=loops, backprop_loops=config.backprop_loops
            )
        loss = self.objective(outputs, targets, inputs, scale_of(self.model, batch)) / asked
        # Gradients are averaged over the processes, losses are parts of one sum.
        (loss * self.world.size).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _loops(self, step: int) -> int:
        """Return the iterations of a step: drawn, where the model is trained with several counts."""
        least, most = self.model.config.min_loops, self.model.config.loops
        if least is None or least == most:
            return most
        generator = np.random.default_rng([self.config.seed, LOOPS_STREAM, step])
        return int(generator.integers(least, most + 1))


def check_parts(config: TrainConfig, world: World) -> None:
    """Refuse a batch that processes and parts cannot split evenly.

    Raises:
        InputError: As said.
    """
    parts = world.size * config.accumulate
    if config.batch_size % parts:
        raise InputError(
            f"a batch of {config.batch_size} samples cannot be split evenly over {world.size} "
            f"processes and {config.accumulate} parts",
            hint=option("batch_size", max(1, round(config.batch_size / parts)) * parts),
        )


def compile_layers(model: LoopedTransformer, device: torch.device) -> None:
    """Compile the layers of the core for training: once, whatever the number of iterations.

    Evaluation and the probe of stability stay eager: each would be compiled anew, for another batch
    size and without gradients, and costs more to compile than a run's evaluations take.

    Raises:
        InputError: There is no C++ compiler for the CPU.
    """
    names = (os.environ.get("CXX"), "g++", "c++", "clang++")
    if device.type == "cpu" and not any(shutil.which(name) for name in names if name):
        raise InputError(
            f"{option('compile')} needs a C++ compiler, none of g++, c++ and clang++ is found",
            hint=f"install g++, or train without {option('compile')}",
        )
    for layer in model.core_layers:
        layer.forward = compiled_in_training(layer)


def compiled_in_training(layer: nn.Module) -> Callable[..., Tensor]:
    """Return a layer's forward that is compiled in training mode, and eager in evaluation mode."""
    eager = layer.forward
    compiled = torch.compile(eager)

    def forward(*arguments: Any) -> Tensor:
        output: Tensor = (compiled if layer.training else eager)(*arguments)
        return output

    return forward


def seed_of(*parts: int) -> int:
    """Return a seed of 63 bits that differs for every combination of numbers."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


def positions(batch: Batch) -> int:
    """Return the tokens of a batch, padding left out."""
    if batch.attention_mask is not None:
        return int(batch.attention_mask.sum())
    return int(batch.inputs.shape[0] * batch.inputs.shape[1])
