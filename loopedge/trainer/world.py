"""The processes of a run: one, or those that torchrun started, on torch.distributed."""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

from loopedge.errors import InputError, LoopedgeError, LostWorkerError, ProviderError
from loopedge.model.transformer import LoopedTransformer
from loopedge.options import by_face, option
from loopedge.tasks.metrics import Tally, total
from loopedge.tasks.task import Batch

__all__ = ["Sharding", "World", "is_first_process", "open_world", "shard"]

T = TypeVar("T")
Sharding = Literal["replicated", "sharded"]
CPU = torch.device("cpu")
TIMEOUT = timedelta(minutes=10)
"""How long a process waits for the others before it takes them for lost."""

TORCHRUN = "torchrun --nproc-per-node 2 -m loopedge train"

LOST_SIGNS = (
    "connection closed by peer",
    "connection reset by peer",
    "broken pipe",
    "timed out",
    "timeout",
    "nccl",
)
"""What PyTorch's communication says when a process is gone; gloo says all but the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The processes that train one model together, each on its rows of every batch.

    Args:
        rank: Of this process, from 0.
        size: Processes altogether.
        device: Where this process computes.
        sharding: ``replicated`` (DDP: each process has the whole model) or ``sharded`` (FSDP2: each
            has a part of every weight, gathered when it is needed).
    """

    rank: int = 0
    size: int = 1
    device: torch.device = CPU
    sharding: Sharding = "replicated"
    _replicas: list[DistributedDataParallel] = field(default_factory=list, repr=False)

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and reports on the run."""
        return self.rank == 0

    @property
    def is_sharded(self) -> bool:
        """Whether each process holds a part of every weight."""
        return self.sharding == "sharded" and self.size > 1

    def wrap(self, model: LoopedTransformer) -> nn.Module:
        """Return the module whose gradients are averaged over the processes."""
        if self.size == 1:
            return model
        if self.is_sharded:
            shard(model)
            return model
        places = [self.device.index] if self.device.type == "cuda" else None
        replica = DistributedDataParallel(model, device_ids=places)
        self._replicas.append(replica)
        return replica

    def leave(self) -> None:
        """Leave the processes, with DDP's references to them dropped.

        Its reducer is C++ and keeps Python's lock while it is freed. Were the last reference to the
        process group its own, it would wait for gloo's threads, and one that still has to free a
        tensor waits for that lock: a deadlock that some runs met at their end.
        """
        dist.destroy_process_group()
        for replica in self._replicas:
            del replica.reducer, replica.logger, replica.process_group

    def unsynchronised(
        self, module: nn.Module, *, when: bool
    ) -> contextlib.AbstractContextManager[Any]:
        """Keep gradients to this process while a batch is computed in parts, if ``when``."""
        if isinstance(module, FSDPModule):
            module.set_requires_gradient_sync(not when)
        elif isinstance(module, DistributedDataParallel) and when:
            return module.no_sync()
        return contextlib.nullcontext()

    def share(self, batch: Batch) -> Batch:
        """Return this process's rows of a batch: every size-th one, from its rank on."""
        return batch.rows(slice(self.rank, None, self.size))

    def sum(self, value: float) -> float:
        """Return the sum of a number over all processes."""
        if self.size == 1:
            return value
        summed = torch.tensor(value, dtype=torch.float64)
        summed = summed if self.device.type == "cpu" else summed.to(self.device)
        dist.all_reduce(summed)
        return float(summed)

    def sum_tally(self, tally: Tally) -> Tally:
        """Return the sum of the tallies of all processes; an empty one adds nothing."""
        return tally if self.size == 1 else total(one for one in self.gather(tally) if one)

    def gather(self, value: T) -> list[T]:
        """Return what each process has, in the order of their ranks: every process has to call it."""
        if self.size == 1:
            return [value]
        gathered = [value] * self.size
        dist.all_gather_object(gathered, value)
        return gathered

    def any(self, flag: bool) -> bool:
        """Tell whether the flag is set in any process."""
        return self.sum(float(flag)) > 0

    def on_first(self, action: Callable[[], T]) -> T:
        """Run something on the first process; all get what it returned, or its error.

        Raises:
            LoopedgeError: What the action raised; an OSError likewise.
        """
        if self.size == 1:
            return action()
        outcome: list[Any] = [None, None]
        if self.is_first:
            try:
                outcome[0] = action()
            except (LoopedgeError, OSError) as error:
                outcome[1] = error
        dist.broadcast_object_list(outcome)
        if outcome[1] is not None:
            raise outcome[1]
        result: T = outcome[0]
        return result

    def is_lost(self, error: BaseException) -> bool:
        """Tell whether an error says that another process is gone."""
        if self.size == 1 or not isinstance(error, RuntimeError):
            return False
        return any(sign in str(error).lower() for sign in LOST_SIGNS)


def is_first_process() -> bool:
    """Return whether this is the process that reports on the run."""
    return os.environ.get("RANK", "0") == "0"


@contextlib.contextmanager
def open_world(device: str = "cpu", sharding: Sharding = "replicated") -> Iterator[World]:
    """Join the processes that torchrun started; alone, there is one.

    Args:
        device: ``cpu`` (gloo) or ``cuda`` (NCCL; each process takes the GPU of its local rank).
        sharding: As `World`.

    Raises:
        InputError: The device is not known, one process is to be sharded, or the environment does
            not say where the others are.
        LostWorkerError: Another process is gone, or has never come.
        ProviderError: There is no CUDA device, or too few.
    """
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    place = _device(device, int(os.environ.get("LOCAL_RANK", "0")))
    if sharding == "sharded" and size == 1:
        raise InputError(
            "one process has nothing to share its weights with",
            hint=f"{TORCHRUN} ... --sharding sharded",
        )
    world = World(rank=rank, size=size, device=place, sharding=sharding)
    if size == 1:
        yield world
        return
    try:
        _join(place)
        try:
            yield world
        finally:
            world.leave()
    except RuntimeError as error:
        if not world.is_lost(error):
            raise
        raise LostWorkerError(
            f"another of the {size} processes of the run was lost, or has not come",
            hint=f"{by_face('the same command', 'the same call')}; with {option('resume')}, if a state stands beside the target",
        ) from error


def _join(place: torch.device) -> None:
    try:
        dist.init_process_group("gloo" if place.type == "cpu" else "nccl", timeout=TIMEOUT)
    except ValueError as error:
        raise InputError(
            " ".join(str(error).split()), hint=f"{TORCHRUN} ... starts all processes"
        ) from error


def _device(name: str, local_rank: int) -> torch.device:
    if name == "cpu":
        return CPU
    if name != "cuda":
        raise InputError(
            f"device {name!r} is not known",
            hint=f"{option('device', 'cpu')} or {option('device', 'cuda')}",
        )
    found = torch.cuda.device_count()
    if found <= local_rank:
        raise ProviderError(
            f"CUDA device {local_rank} was asked for, PyTorch finds {found}",
            hint=option("device", "cpu"),
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def shard(model: LoopedTransformer) -> None:
    """Shard the layers of the core, and the rest, over all processes (FSDP2).

    A layer stays gathered until its backward pass: it is used once per iteration.
    """
    for layer in model.core_layers:
        fully_shard(layer, reshard_after_forward=False)
    fully_shard(model, reshard_after_forward=False)
