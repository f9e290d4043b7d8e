"""What a module says of itself: names, example inputs, loops; checked before any work."""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from loopedge.errors import InputError
from loopedge.exporter.options import MOST_LOOPS
from loopedge.graph.metadata import ITERATIONS_OUTPUT, LOOPS_INPUT, TOLERANCE_INPUT
from loopedge.model.contract import LoopedProtocol
from loopedge.runtime.inputs import MASK

__all__ = ["MASK", "ExampleMaker", "ExportedModule", "check_weights", "describe"]

ExampleMaker = Callable[[int, int, int], tuple[Tensor, ...]]
"""(batch, sequence, seed) -> inputs."""

"""An integer input of this name, (batch, sequence), says by 1 which positions are kept."""

RESERVED = (LOOPS_INPUT, TOLERANCE_INPUT, ITERATIONS_OUTPUT)
COMPUTED = (torch.float32, torch.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedModule:
    """A module to export.

    ``loop_range`` are the least and the most loops that it was trained with, ``random_inputs`` the
    inputs that hold noise with their standard deviations, ``dynamic_shapes`` what the module names the axes
    of its inputs, ``companions`` the texts of the files that the artifact needs beside it.
    """

    module: nn.Module
    example: tuple[Tensor, ...]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    loop_range: tuple[int, int]
    make_inputs: ExampleMaker | None = None
    random_inputs: Mapping[str, float]
    trained_length: int | None = None
    max_length: int | None = None
    min_length: int | None = None
    dynamic_shapes: object = None
    sha256: str | None = None
    task: dict[str, Any]
    companions: Mapping[str, str] = field(default_factory=dict)

    @property
    def mask(self) -> str | None:
        """The name of the input that says which positions are kept, where there is one."""
        named = dict(zip(self.input_names, self.example, strict=True))
        mask = named.get(MASK)
        kept = mask is not None and mask.dim() == 2 and not mask.is_floating_point()
        return MASK if kept else None

    @property
    def tied(self) -> frozenset[int]:
        """The inputs whose axes follow the first input's where they are as long: the mask, and noise."""
        tied = {self.mask, *self.random_inputs}
        return frozenset(i for i, name in enumerate(self.input_names) if name in tied)

    @property
    def looped(self) -> LoopedProtocol:
        """The module under its contract."""
        return cast("LoopedProtocol", self.module)


def describe(module: nn.Module, example: object) -> ExportedModule:
    """Read what a module says of itself.

    Args:
        module: A module under the contract.
        example: Its example inputs.

    Raises:
        InputError: Something is missing, of a wrong type, or does not fit the rest.
    """
    name = type(module).__name__
    inputs = (example,) if isinstance(example, Tensor) else example
    if (
        not isinstance(inputs, tuple | list)
        or not inputs
        or not all(isinstance(tensor, Tensor) for tensor in inputs)
    ):
        raise InputError(f"the example inputs of {name} must be tensors, at least one")
    given = tuple(inputs)
    loops = getattr(module, "loops", None)
    if not _is_count(loops):
        raise InputError(f"{name}.loops is {loops!r}, the trained loop count is needed")
    if cast("int", loops) > MOST_LOOPS:
        raise InputError(f"{name}.loops is {loops}, at most {MOST_LOOPS} are written")
    names = getattr(module, "input_names", None) or _input_names(module, given)
    outputs = getattr(module, "output_names", None) or ()
    _check_names(name, names, outputs)
    if len(names) != len(given):
        raise InputError(f"{name} names {len(names)} inputs, its example has {len(given)}")
    shortest, longest = (_positions(name, module, limit) for limit in ("min_length", "max_length"))
    return ExportedModule(
        module=module,
        example=given,
        input_names=tuple(names),
        output_names=tuple(outputs),
        loop_range=_loop_range(name, getattr(module, "loop_range", None), cast("int", loops)),
        random_inputs=_noise(name, module, dict(zip(names, given, strict=True))),
        trained_length=longest,
        max_length=longest,
        min_length=shortest,
        dynamic_shapes=getattr(module, "dynamic_shapes", None),
        task={},
    )


def check_weights(module: nn.Module) -> None:
    """Refuse parameters that are not finite, or not of a type that is computed in.

    Raises:
        InputError: The message names the parameter.
    """
    for name, value in module.named_parameters():
        kind = str(value.dtype).removeprefix("torch.")
        if value.is_floating_point() and value.dtype not in COMPUTED:
            raise InputError(f"{name} is {kind}, float32 is needed", hint="model.float()")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise InputError(f"{name} holds a value that is not finite")


def _check_names(module: str, inputs: object, outputs: object) -> None:
    for what, names in (("input_names", inputs), ("output_names", outputs)):
        if isinstance(names, str) or not isinstance(names, tuple | list):
            raise InputError(f"{module}.{what} is {names!r}, a tuple of names is needed")
        for name in names:
            if not isinstance(name, str) or not name:
                raise InputError(f"{module}.{what} holds {name!r}, which is not a name")
            if name in RESERVED:
                raise InputError(
                    f"{module}.{what} holds {name}, which the graph needs itself",
                    hint=f"rename it; {', '.join(RESERVED)} are taken",
                )
    together = [*cast("tuple[str]", inputs), *cast("tuple[str]", outputs)]
    twice = next((name for name in together if together.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{module} calls two inputs or outputs {twice}")


def _loop_range(module: str, given: object, loops: int) -> tuple[int, int]:
    if given is None:
        return (loops, loops)
    if isinstance(given, tuple | list) and len(given) == 2 and all(map(_is_count, given)):
        least, most = given
        if least <= most:
            return (least, most)
    raise InputError(f"{module}.loop_range is {given!r}, (least, most) loop counts are needed")


def _positions(name: str, module: nn.Module, limit: str) -> int | None:
    given = getattr(module, limit, None)
    if given is not None and not _is_count(given):
        raise InputError(f"{name}.{limit} is {given!r}, a number of positions is needed")
    return cast("int | None", given)


def _noise(module: str, source: nn.Module, example: Mapping[str, Tensor]) -> dict[str, float]:
    given = getattr(source, "random_inputs", None) or {}
    if not isinstance(given, Mapping):
        raise InputError(f"{module}.random_inputs is {given!r}, a dict of deviations is needed")
    for name, deviation in given.items():
        if name not in example:
            raise InputError(f"{module}.random_inputs names {name}, which is not an input")
        real = isinstance(deviation, int | float) and math.isfinite(deviation)
        if not real or not example[name].is_floating_point():
            raise InputError(
                f"{module}.random_inputs gives {name} the deviation {deviation!r}; a number is needed, and "
                "a floating-point input"
            )
    return {name: float(deviation) for name, deviation in given.items()}


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _input_names(module: nn.Module, example: tuple[Tensor, ...]) -> tuple[str, ...]:
    """Name the first input by its kind, the others as the prelude's parameters."""
    first = "inputs" if example[0].is_floating_point() else "input_ids"
    parameters = inspect.signature(cast("LoopedProtocol", module).prelude).parameters.values()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    named = [parameter.name for parameter in parameters if parameter.kind in positional]
    rest = [named[i] if i < len(named) else f"input_{i}" for i in range(1, len(example))]
    return (first, *rest)
