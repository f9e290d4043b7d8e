"""Build a user's module from ``package.module:factory`` and load its weights."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from loopedge.errors import InputError
from loopedge.files.input_files import check_file
from loopedge.model.tensor_file import check_tensors, read_saved
from loopedge.options import option
from loopedge.user_code import import_object, reason_of

__all__ = ["build_module", "is_factory", "load_weights"]


def is_factory(source: str) -> bool:
    """Tell ``package.module:factory`` from the path of a file.

    Raises:
        InputError: The module is written as the path of its file.
    """
    if ".py:" in source and not Path(source).exists():
        name = source.replace(".py:", ":").strip("./").replace("/", ".")
        raise InputError(
            f"{source} names a file, a module is needed", hint=f"loopedge export {name}"
        )
    module, _, factory = source.rpartition(":")
    names = [*module.split("."), *factory.split(".")]
    return bool(module) and all(name.isidentifier() for name in names) and not Path(source).exists()


def build_module(source: str) -> nn.Module:
    """Import a factory, from the current folder too, and call it without arguments.

    Args:
        source: ``package.module:factory``; the factory is a function or a class, or a module that
            is built already.

    Returns:
        The module, in evaluation mode.

    Raises:
        InputError: It cannot be imported, fails, or gives no torch module.
    """
    found = import_object(source)
    if isinstance(found, nn.Module):
        return found.eval()
    if not callable(found):
        raise InputError(f"{source} is not a function: {type(found).__name__}")
    try:
        built = found()
    except (Exception, SystemExit) as error:  # user code may raise anything
        raise InputError(
            f"{source} failed: {reason_of(error)}", hint="a factory takes no arguments"
        ) from error
    if not isinstance(built, nn.Module):
        raise InputError(f"{source} gives {type(built).__name__}, a torch module is needed")
    return built.eval()


def load_weights(module: nn.Module, path: str | Path) -> None:
    """Load weights into a module by the names of its state_dict, all of them or none.

    Args:
        module: Receives them.
        path: ``.safetensors``, or a ``.pt`` of plain tensors. A tensor that the module ties to
            another may be missing.

    Raises:
        InputError: The file cannot be read, or its names or shapes are not those of the module.
    """
    source = Path(path)
    given = _read(source)
    wanted = module.state_dict(keep_vars=True)
    unknown = sorted(set(given) - set(wanted))
    if unknown:
        raise InputError(f"{source}: the module has no tensor {unknown[0]}")
    for name, value in given.items():
        if value.is_floating_point() is not wanted[name].is_floating_point():
            raise InputError(
                f"{source}: tensor {name} is {value.dtype}, the module's is {wanted[name].dtype}"
            )
        if tuple(value.shape) != tuple(wanted[name].shape):
            raise InputError(
                f"{source}: tensor {name} has shape {tuple(value.shape)}, "
                f"the module's has {tuple(wanted[name].shape)}"
            )
    loaded = {wanted[name].data_ptr() for name in given}
    for name, value in wanted.items():
        if name not in given and value.data_ptr() not in loaded:
            raise InputError(f"{source}: tensor {name} is missing")
    module.load_state_dict(given, strict=False)


def _read(source: Path) -> Mapping[str, Tensor]:
    check_file(source, needed="a file of tensors", hint=option("weights", "weights.safetensors"))
    if source.suffix == ".safetensors":
        try:
            return load_file(source)
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"{source} is not a safetensors file or is damaged: {error}"
            ) from error
    values = read_saved(
        source,
        needed="a file of tensors",
        hint=option("weights", "weights.safetensors"),
        code_hint="safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')",
    )
    if isinstance(values, dict) and isinstance(values.get("state_dict"), dict):
        values = values["state_dict"]
    return check_tensors(values, source)
