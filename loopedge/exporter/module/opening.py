"""Find the module to export: in memory, in a checkpoint or a folder, or made by a factory of the user's own."""

from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from loopedge.errors import InputError
from loopedge.exporter.module.example import example_inputs
from loopedge.exporter.module.exported_module import MASK, ExportedModule, describe
from loopedge.exporter.module.factory import build_module, is_factory, load_weights
from loopedge.exporter.module.user_methods import run_user_code
from loopedge.exporter.options import ExportOptions
from loopedge.files.targets import file_sha256
from loopedge.model.adapters import adapt, load_pretrained
from loopedge.model.checkpoint import load_checkpoint, model_from
from loopedge.model.transformer import LoopedTransformer
from loopedge.options import by_face, option_name

__all__ = ["default_target", "open_module", "source_files"]

SAVED = (".json", ".safetensors", ".bin", ".model", ".txt", ".jinja")
"""Endings of the files that ``save_pretrained`` writes."""

CONTRACT_HINT = "see docs/bring_your_own.md and examples/bring_your_own.py"


def open_module(model: str | Path | nn.Module, options: ExportOptions) -> ExportedModule:
    """Find the module that a user names.

    Args:
        model: A ``model.pt``, a folder that ``save_pretrained`` wrote, ``package.module:factory``, or
            a module: a `LoopedModule`, one with its methods, or one that an adapter knows.
        options: ``padding`` is for the reference transformer, ``example`` takes the place of a
            module's own inputs, ``weights`` are for a factory or a module.

    Raises:
        InputError: It cannot be found, read or built, or is not a looped module.
    """
    if isinstance(model, nn.Module):
        if options.weights is not None:
            load_weights(model, options.weights)
        return _from_module(model, options)
    if not isinstance(model, str | Path):
        raise InputError(f"a torch module or the path of a model.pt is needed, not {type(model)}")
    if is_factory(str(model)):
        return _from_factory(str(model), options)
    if options.weights is not None:
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
        return _from_module(load_pretrained(Path(model)), options)
    checkpoint = load_checkpoint(model)
    return replace(
        _from_module(model_from(checkpoint, model), options),
        sha256=file_sha256(Path(model)),
        task=dict(checkpoint.get("task") or {}),
        companions=dict(checkpoint.get("companions") or {}),
    )


def default_target(model: str | Path, format: str = "onnx", task: str | None = None) -> Path:
    """Return where an export goes without a given target: beside its source, inside a folder."""
    format = format if task is None else f"{task}.{format}"
    if is_factory(str(model)):
        module = str(model).rpartition(":")[0]
        return Path(f"{module.rpartition('.')[2]}.{format}")
    path = Path(model)
    return path / f"model.{format}" if path.is_dir() else path.with_suffix(f".{format}")


def source_files(model: object) -> list[Path]:
    """Return the files that a model is read from: no export may write over them.

    Of a factory that is the file of its module in the current folder; of a folder, what
    ``save_pretrained`` writes.
    """
    if not isinstance(model, str | Path):
        return []
    if is_factory(str(model)):
        place = Path(*str(model).partition(":")[0].split("."))
        return [place.with_suffix(".py"), place / "__init__.py"]
    folder = Path(model)
    if not folder.is_dir():
        return [folder]
    return sorted(file for file in folder.iterdir() if file.suffix in SAVED)


def _from_factory(name: str, options: ExportOptions) -> ExportedModule:
    module = build_module(name)
    if options.weights is None:
        return _from_module(module, options)
    load_weights(module, options.weights)
    return replace(_from_module(module, options), sha256=file_sha256(Path(options.weights)))


def _from_module(model: nn.Module, options: ExportOptions) -> ExportedModule:
    methods = ("prelude", "core", "coda", "loops")
    missing = [name for name in methods if not hasattr(model, name)]
    if missing:
        adapted = adapt(model)
        if adapted is None:
            raise InputError(
                f"{type(model).__name__} is not a LoopedModule: it lacks {', '.join(missing)}",
                hint=CONTRACT_HINT,
            )
        model = adapted
    module = model.eval()
    if isinstance(module, LoopedTransformer):
        if options.example is not None:
            raise InputError(
                "a LoopedTransformer makes its own example inputs", hint="leave out example="
            )
        if options.dynamic_shapes is not None:
            raise InputError(
                "the axes of a LoopedTransformer are known: batch and sequence",
                hint=f"leave out {option_name('dynamic_shapes')}",
            )
        return _own(module, padding=options.padding)
    if options.padding is not None:
        raise InputError(
            f"{type(module).__name__} says itself whether it takes a mask",
            hint=by_face("leave out --padding and --no-padding", "leave out padding="),
        )
    return _foreign(module, options.example)


def _own(model: LoopedTransformer, *, padding: bool | None) -> ExportedModule:
    config = model.config
    padded = config.padding if padding is None else padding

    def make(batch: int, sequence: int, seed: int) -> tuple[Tensor, ...]:
        return example_inputs(model, batch=batch, sequence=sequence, padding=padded, seed=seed)

    return ExportedModule(
        module=model,
        example=make(2, min(7, config.max_length), 0),
        input_names=(model.input_names[0], MASK)[: 1 + padded],
        output_names=model.output_names,
        loop_range=(model.config.min_loops or model.loops, model.loops),
        make_inputs=make,
        random_inputs={},
        trained_length=config.max_length,
        min_length=config.min_length,
        max_length=config.max_length if config.positions == "learned" else None,
        task={},
    )


def _foreign(module: nn.Module, example: tuple[Tensor, ...] | None) -> ExportedModule:
    if example is None:
        own = getattr(module, "example_inputs", None)
        if not callable(own):
            raise InputError(
                f"{type(module).__name__} needs example inputs",
                hint="give it a method example_inputs(), or pass export(..., example=(tensor, ...))",
            )
        example = run_user_code("example_inputs", own)
    return describe(module, example)
