"""The recipe that a quantized file holds in its metadata: what was decided, so that it can be repeated on another file."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import onnx_ir as ir
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from loopedge.artifact.artifact import Artifact
from loopedge.errors import InputError
from loopedge.files.validation import validation_problem
from loopedge.graph.core.names import loop_name
from loopedge.graph.weights import linears
from loopedge.options import option, option_name
from loopedge.quantizer.activations.ranges import Granularity
from loopedge.quantizer.options import QuantizeOptions
from loopedge.quantizer.recipe import Recipe
from loopedge.quantizer.schemes.weight_only import WEIGHT_BITS

__all__ = ["RecordedRecipe", "read_recorded", "recorded", "repeated", "unrefined_notes"]


class RecordedRecipe(BaseModel):
    """What was decided when a file was quantized, but for what data says: its ranges.

    ``linears`` are the linears of the model, named as in the loop form: a recipe is for models of the same structure.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    scheme: Literal["static", "dynamic", "weight-int8", "weight-int4", "weight-int2"]
    ranges: Granularity | None = None
    method: Literal["minmax", "mse", "percentile", "entropy"] | None = None
    smoothing: bool | None = None
    ops: Literal["microsoft", "standard", "qdq"] = "microsoft"
    target: str | None = None
    keep: tuple[str, ...] = ()
    weight_only: tuple[str, ...] = ()
    as_core: tuple[str, ...] = ()
    lifted: tuple[str, ...] = ()
    block_size: int | None = None
    reduce_range: bool = False
    rounding: Literal["data", "nearest"] | None = None
    memory: str | None = None
    linears: tuple[str, ...] = Field(min_length=1)


def recorded(recipe: Recipe, model: ir.Model) -> dict[str, Any]:
    """Return what the metadata of a file says of its recipe.

    Args:
        recipe: How it was quantized.
        model: The float graph.
    """
    table = recipe.table if recipe.scheme == "static" else None
    found = RecordedRecipe(
        scheme=recipe.scheme,  # type: ignore[arg-type]  # one of SCHEMES
        ranges=table.granularity if table else None,
        method=table.method if table else None,  # type: ignore[arg-type]
        smoothing=bool(table.factors()) if table else None,
        ops=recipe.ops,  # type: ignore[arg-type]
        target=recipe.target,
        keep=recipe.keep,
        weight_only=recipe.weight_only,
        as_core=recipe.as_core,
        lifted=recipe.lifted,
        block_size=recipe.block_size,
        reduce_range=recipe.reduce_range,
        rounding=_rounding(recipe),
        memory=recipe.memory,
        linears=_names(model),
    )
    return found.model_dump(mode="json", exclude_none=True)


def read_recorded(path: str | Path) -> RecordedRecipe:
    """Return the recipe that a quantized file holds.

    Raises:
        InputError: The file cannot be read, or holds none.
    """
    metadata = Artifact.open(path).metadata
    hint = option("recipe", "model.int8.onnx", command="quantize model.onnx")
    if metadata.foreign:
        raise InputError(
            f"{path} was not written by loopedge: it holds no recipe",
            hint=f"name the options that it was quantized with, or {hint}",
        )
    if metadata.quantization is None:
        raise InputError(f"{path} is not quantized: it holds no recipe", hint=hint)
    held = metadata.quantization.get("recipe")
    if held is None:
        raise InputError(
            f"{path} was written by an earlier version, which kept no recipe",
            hint="quantize its float model again",
        )
    try:
        return RecordedRecipe.model_validate(held)
    except ValidationError as error:
        raise InputError(
            f"{path} holds a recipe that cannot be read: {validation_problem(error)}", hint=hint
        ) from error


def repeated(
    options: QuantizeOptions, model: ir.Model, source: str | Path
) -> tuple[QuantizeOptions, tuple[str, ...]]:
    """Return options with the recipe that they name written out, and which linears it lifted.

    Args:
        options: With `QuantizeOptions.recipe`.
        model: The float graph.
        source: What errors call it.

    Raises:
        InputError: The file holds no recipe, or one for a model of another structure.
    """
    if options.recipe is None:
        return options, ()
    found = read_recorded(options.recipe)
    _check_structure(found, _names(model), options.recipe, source)
    finds = options.ranges is None  # else the file of ranges says how they were found
    return replace(
        options,
        recipe=None,
        scheme=found.scheme,
        granularity=found.ranges if finds else None,
        method=found.method if finds else None,
        smoothing=found.smoothing if finds else None,
        ops=found.ops,
        target=found.target,
        keep=found.keep,
        weight_only=found.weight_only,
        as_core=found.as_core,
        block_size=found.block_size,
        reduce_range=found.reduce_range,
        rounding=found.rounding,
        memory=options.memory or found.memory,
    ), found.lifted


def unrefined_notes(options: QuantizeOptions) -> list[str]:
    """Say that the file of a recipe was refined, where the one that repeats it will not be."""
    if options.recipe is None or options.refine is not None:
        return []
    held = (Artifact.open(options.recipe).metadata.quantization or {}).get("refined") or {}
    if not held.get("best_step"):
        return []
    again = f"{option('refine', held['steps'])} and {option_name('module')}"
    return [
        f"the weights of {options.recipe} were refined, which its recipe does not repeat: add {again}"
    ]


def _rounding(recipe: Recipe) -> Literal["data", "nearest"] | None:
    """Say how the weights of blocks were rounded; None where the scheme has none."""
    if recipe.scheme not in WEIGHT_BITS:
        return None
    return "nearest" if recipe.rounding is None else "data"


def _names(model: ir.Model) -> tuple[str, ...]:
    return tuple(dict.fromkeys(loop_name(item.node) for item in linears(model)))


def _check_structure(
    found: RecordedRecipe, names: Sequence[str], recipe: str | Path, source: str | Path
) -> None:
    """Refuse a model that has other linears than the one that the recipe was made for."""
    missing = [name for name in found.linears if name not in names]
    more = [name for name in names if name not in found.linears]
    if not missing and not more:
        return
    which = f"has no linear {missing[0]}" if missing else f"has the linear {more[0]} more"
    raise InputError(
        f"the recipe of {recipe} is for a model of another structure: {source} {which}",
        hint=f"{option('data', 'samples.npz')} without {option_name('recipe')} chooses for this one",
    )
