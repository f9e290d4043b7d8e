"""What is exported: a module, and what is known about its inputs, its loops and its origin."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from loopedge.errors import InputError
from loopedge.exporter.example import example_inputs
from loopedge.exporter.factory import build_module, is_factory, load_weights
from loopedge.exporter.verify import ExampleMaker
from loopedge.files import file_sha256
from loopedge.model.adapters import adapt, load_pretrained
from loopedge.model.checkpoint import load_checkpoint, model_from
from loopedge.model.contract import LoopedProtocol
from loopedge.model.transformer import LoopedTransformer

__all__ = ["MASK", "Subject", "default_target", "open_subject"]

MASK = "attention_mask"
CONTRACT_HINT = "see docs/bring_your_own.md and examples/bring_your_own.py"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A module to export.

    ``loop_range`` are the least and the most loops that it was trained with, ``random_inputs`` the
    inputs that hold noise with their standard deviations.
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
    sha256: str | None = None
    task: dict[str, Any]

    @property
    def looped(self) -> LoopedProtocol:
        """The module under its contract."""
        return cast("LoopedProtocol", self.module)


def open_subject(
    model: str | Path | nn.Module,
    *,
    padding: bool | None = None,
    example: tuple[Tensor, ...] | None = None,
    weights: str | Path | None = None,
) -> Subject:
    """Find the module that a user names.

    Args:
        model: A ``model.pt``, a folder that ``save_pretrained`` wrote, ``package.module:factory``, or
            a module: a `LoopedModule`, one with its methods, or one that an adapter knows.
        padding: For the reference transformer: take an ``attention_mask``.
        example: Example inputs, instead of the module's own.
        weights: For a factory: the file its weights come from.

    Raises:
        InputError: It cannot be found, read or built, or is no looped module.
    """
    if isinstance(model, nn.Module):
        if weights is not None:
            load_weights(model, weights)
        return _from_module(model, padding=padding, example=example)
    if not isinstance(model, str | Path):
        raise InputError(f"a torch module or the path of a model.pt is needed, not {type(model)}")
    if is_factory(str(model)):
        module = build_module(str(model))
        if weights is not None:
            load_weights(module, weights)
        known = _from_module(module, padding=padding, example=example)
        return known if weights is None else replace(known, sha256=file_sha256(Path(weights)))
    if weights is not None:
        raise InputError(
            f"{model} holds its own weights",
            hint="loopedge export package.module:factory --weights weights.safetensors",
        )
    if not Path(model).exists():
        raise InputError(
            f"{model} does not exist",
            hint="name a model.pt, a folder that save_pretrained wrote, or package.module:factory",
        )
    if Path(model).is_dir():
        return _from_module(load_pretrained(Path(model)), padding=padding, example=example)
    checkpoint = load_checkpoint(model)
    known = _from_module(model_from(checkpoint, model), padding=padding, example=example)
    return replace(known, sha256=file_sha256(Path(model)), task=dict(checkpoint.get("task") or {}))


def default_target(model: str | Path, format: str = "onnx") -> Path:
    """Return where an export goes when nobody says: beside its source, inside a folder."""
    if is_factory(str(model)):
        module = str(model).rpartition(":")[0]
        return Path(f"{module.rpartition('.')[2]}.{format}")
    path = Path(model)
    return path / f"model.{format}" if path.is_dir() else path.with_suffix(f".{format}")


def _from_module(
    model: nn.Module, *, padding: bool | None, example: tuple[Tensor, ...] | None
) -> Subject:
    methods = ("prelude", "core", "coda", "timestep_table", "loops")
    missing = [name for name in methods if not hasattr(model, name)]
    if missing:
        adapted = adapt(model)
        if adapted is None:
            raise InputError(
                f"{type(model).__name__} is no LoopedModule: it lacks {', '.join(missing)}",
                hint=CONTRACT_HINT,
            )
        model = adapted
    module = model.eval()
    if isinstance(module, LoopedTransformer):
        return _own(module, padding=padding)
    if padding is not None:
        raise InputError(
            f"{type(module).__name__} says itself whether it takes a mask",
            hint="leave out --padding and --no-padding",
        )
    return _foreign(module, example)


def _own(model: LoopedTransformer, *, padding: bool | None) -> Subject:
    config = model.config
    padded = config.padding if padding is None else padding

    def make(batch: int, sequence: int, seed: int) -> tuple[Tensor, ...]:
        return example_inputs(model, batch=batch, sequence=sequence, padding=padded, seed=seed)

    return Subject(
        module=model,
        example=make(2, min(7, config.max_length), 0),
        input_names=(model.input_names[0], MASK)[: 1 + padded],
        output_names=model.output_names,
        loop_range=(1, model.loops),
        make_inputs=make,
        random_inputs={},
        trained_length=config.max_length,
        max_length=config.max_length if config.positions == "learned" else None,
        task={},
    )


def _foreign(module: nn.Module, example: tuple[Tensor, ...] | None) -> Subject:
    name = type(module).__name__
    if example is None:
        own = getattr(module, "example_inputs", None)
        if not callable(own):
            raise InputError(
                f"{name} needs example inputs",
                hint="give it a method example_inputs(), or pass export(..., example=(tensor, ...))",
            )
        example = own()
    example = (example,) if isinstance(example, Tensor) else tuple(example)
    if not example or not all(isinstance(tensor, Tensor) for tensor in example):
        raise InputError(f"the example inputs of {name} must be tensors, at least one")
    loops = getattr(module, "loops", None)
    if isinstance(loops, bool) or not isinstance(loops, int) or loops < 1:
        raise InputError(f"{name}.loops is {loops!r}, the trained loop count is needed")
    names = tuple(getattr(module, "input_names", None) or _input_names(module, example))
    if len(names) != len(example):
        raise InputError(f"{name} names {len(names)} inputs, its example has {len(example)}")
    noise = dict(getattr(module, "random_inputs", None) or {})
    unknown = [one for one in noise if one not in names]
    if unknown:
        raise InputError(f"{name}.random_inputs names {unknown[0]}, which is no input")
    longest = getattr(module, "max_length", None)
    return Subject(
        module=module,
        example=example,
        input_names=names,
        output_names=tuple(getattr(module, "output_names", ())),
        loop_range=tuple(getattr(module, "loop_range", (1, loops))),
        random_inputs=noise,
        trained_length=longest,
        max_length=longest,
        task={},
    )


def _input_names(module: nn.Module, example: tuple[Tensor, ...]) -> tuple[str, ...]:
    """Name the first input by its kind, the others as the prelude's parameters."""
    first = "inputs" if example[0].is_floating_point() else "input_ids"
    parameters = inspect.signature(cast("LoopedProtocol", module).prelude).parameters.values()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    named = [parameter.name for parameter in parameters if parameter.kind in positional]
    rest = [named[i] if i < len(named) else f"input_{i}" for i in range(1, len(example))]
    return (first, *rest)
