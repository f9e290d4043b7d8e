"""Read a folder that holds a model of another package: ``config.json`` and weights, no code."""

import importlib
import pickle
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from loopedge.errors import InputError, MissingExtraError
from loopedge.files.input_files import check_file
from loopedge.files.json_text import read_json

__all__ = [
    "CONFIG",
    "CONTRACT_HINT",
    "MOST",
    "MOST_LAYERS",
    "check_counts",
    "check_parameters",
    "import_package",
    "load_tensors",
    "load_transformers",
    "read_config",
    "weights_file",
]

CONFIG = "config.json"
MOST_LOOPS, MOST_LAYERS = 65_536, 1024
SAFE_FILES = ("model.safetensors", "model.safetensors.index.json")
PICKLED_FILES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
MOST = {
    "num_hidden_layers": MOST_LOOPS,
    "num_hidden_groups": MOST_LAYERS,
    "inner_group_num": MOST_LAYERS,
    "num_layers_per_stack": MOST_LAYERS,
    "H_cycles": MOST_LOOPS,
    "L_cycles": MOST_LAYERS,
    "num_refinement_blocks": MOST_LOOPS,
    "num_latent_refinements": MOST_LAYERS,
    "max_deep_refinement_steps": MOST_LOOPS,
    "depth": MOST_LAYERS,
}
"""Counts of a ``config.json``; what repeats inside an iteration is written out and counts as layers."""

SHARES, FREE_PARAMETERS = 2, 32 << 20
"""Parameters for each stored byte, a tied one being there twice; and those that are built anyway."""

HEADS = (
    *("predictions.", "sop_classifier.", "albert.pooler.", "pooler.", "classifier.", "qa_outputs."),
    "lm_head.",
)
"""Tensors of other heads, which a checkpoint may hold beside those of its class."""

CONTRACT_HINT = (
    "docs/adapters.md; or bring it under loopedge.LoopedModule: docs/bring_your_own.md, "
    "examples/bring_your_own.py"
)
SAVE_HINT = "write the folder with model.save_pretrained(folder)"
HARMLESS = (r".*torch\.jit\.script. is deprecated.*",)
"""Warnings that the packages give when they are imported; matched by text, only here."""


def read_config(folder: Path) -> dict[str, Any]:
    """Read ``config.json``; it names a ``model_type``.

    Raises:
        InputError: The folder or the file is missing, is not a JSON object, or names no model_type.
    """
    source = folder / CONFIG
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder", hint=SAVE_HINT)
    if not source.exists():
        raise InputError(f"{folder} holds no {CONFIG}", hint=SAVE_HINT)
    config = read_json(source, needed="a configuration")
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise InputError(f"{source} names no model_type", hint=SAVE_HINT)
    check_counts(config, MOST, source)
    return config


def check_counts(config: Mapping[str, Any], most: Mapping[str, int], source: Path) -> None:
    """Refuse counts by which a few bytes ask for any number of modules or iterations.

    Args:
        config: Of a model, or of a part of it.
        most: By key, the largest value; a value that is not a number is left to the package.
        source: The file, for messages.

    Raises:
        InputError: A count is larger.
    """
    for key, allowed in most.items():
        count = config.get(key)
        if isinstance(count, int | float) and count > allowed:
            raise InputError(f"{source}: {key} is {count:,}, at most {allowed:,} are allowed")


def check_parameters(build: Callable[[], nn.Module], weights: Path, config: Path) -> None:
    """Build a model without memory, and refuse one that has more parameters than its file has bytes.

    Args:
        build: Makes the model, on the device that is set.
        weights: The file of its weights, or the index of its shards.
        config: What asks for the parameters, for messages.

    Raises:
        InputError: As said.
    """
    with torch.device("meta"):
        asked = sum(parameter.numel() for parameter in build().parameters())
    files = [weights] if weights.suffix != ".json" else _shards(weights)
    stored = sum(file.stat().st_size for file in files)
    if asked > max(FREE_PARAMETERS, SHARES * stored):
        raise InputError(
            f"{config} asks for {asked:,} parameters, {weights.name} holds {stored:,} bytes of weights"
        )


def _shards(index: Path) -> list[Path]:
    """Return the files that an index names, which stand beside it."""
    content = read_json(index, needed="an index of weights")
    named = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
        raise InputError(f"{index} is not an index of weights: it has no weight_map")
    names = sorted(set(named.values()))
    for name in names:
        if Path(name).name != name:
            raise InputError(f"{index} names {name}, a file beside it is needed")
    return [check_file(index.parent / name, needed="a file of weights") for name in names]


def weights_file(folder: Path, *, pickled: bool = True) -> Path:
    """Return the file of the weights, or the index of its shards; safetensors first.

    Args:
        folder: Where to look.
        pickled: Whether a ``pytorch_model.bin`` will do; it is read with ``weights_only``.

    Raises:
        InputError: There is none.
    """
    names = SAFE_FILES + PICKLED_FILES if pickled else SAFE_FILES[:1]
    for name in names:
        if (folder / name).exists():
            return check_file(folder / name, needed="a file of weights")
    raise InputError(f"{folder} holds no {SAFE_FILES[0]}", hint=SAVE_HINT)


def import_package(name: str, needs: str) -> Any:
    """Import a package of the extra ``adapters``.

    Args:
        name: Of the module.
        needs: What needs it, for the message.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        with warnings.catch_warnings():
            for text in HARMLESS:
                warnings.filterwarnings("ignore", message=text)
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtraError(needs, extra="adapters") from error


def load_transformers(folder: Path, config: dict[str, Any], classes: Collection[str]) -> nn.Module:
    """Build a transformers model, in float32 and evaluation mode, from what save_pretrained wrote.

    The class is one of the package's own; code beside the weights is never run, and nothing is
    looked up on a network.

    Args:
        folder: Holds ``config.json`` and weights.
        config: As `read_config` read it.
        classes: Names of the classes that will do; ``architectures`` chooses one.

    Raises:
        InputError: The class is not among them, or weights are missing, misshapen or damaged.
        MissingExtraError: transformers is not installed.
    """
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    if not isinstance(name, str) or name not in classes:
        raise InputError(
            f"{folder / CONFIG} names {f'the class {name}' if name else 'no class'} under "
            f"architectures, these have an adapter: {', '.join(classes)}",
            hint=CONTRACT_HINT,
        )
    source = weights_file(folder)
    transformers = import_package("transformers", f"a model of type {config['model_type']}")
    kind = getattr(transformers, name)
    try:
        with _silent(transformers):
            settings = kind.config_class.from_pretrained(folder, local_files_only=True)
            check_parameters(lambda: kind(settings), source, folder / CONFIG)
            model, info = kind.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=source.name in SAFE_FILES,
                weights_only=True,
                dtype=torch.float32,
                attn_implementation="sdpa",
                ignore_mismatched_sizes=True,  # refused below, with the shapes
                output_loading_info=True,
            )
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{source} holds pickled code, which is never run: only plain tensors are read",
            hint="save it as safetensors: model.save_pretrained(folder)",
        ) from error
    except InputError:
        raise
    except Exception as error:  # whatever transformers or the file give
        raise InputError(f"{folder} cannot be loaded: {_first_line(error)}") from error
    for key, given, wanted in sorted(info["mismatched_keys"]):
        raise InputError(
            f"{source}: tensor {key} has shape {tuple(given)}, "
            f"the configuration asks for {tuple(wanted)}"
        )
    _check_missing(source, info["missing_keys"])
    for key in sorted(info["unexpected_keys"]):
        if not key.startswith(HEADS):
            raise InputError(f"{source}: the model has no place for the tensor {key}")
    loaded: nn.Module = model.eval()
    return loaded


def load_tensors(model: nn.Module, source: Path) -> None:
    """Load a safetensors file into a model whose every tensor it must hold.

    Raises:
        InputError: Tensors are missing, unknown or misshapen, or the file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    try:
        missing, unknown = load_model(model, source, strict=False)
    except (SafetensorError, RuntimeError, OSError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        # PyTorch's first line only names the class; the tensor stands in the second.
        raise InputError(f"{source} cannot be loaded: {reason[-1].strip()}") from error
    _check_missing(source, missing)
    for key in sorted(unknown):
        raise InputError(f"{source}: unknown tensor {key}")


def _check_missing(source: Path, missing: Collection[str]) -> None:
    if missing:
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f"{source}: tensor {min(missing)} is missing{others}")


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) or type(error).__name__


@contextmanager
def _silent(transformers: Any) -> Iterator[None]:
    """No progress bars and no load report: what is wrong is raised."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
