"""What is known of a checkpoint before PyTorch is measured on it; this imports torch."""

from pathlib import Path

from loopedge.errors import MissingExtraError

__all__ = ["checkpoint_loops"]


def checkpoint_loops(path: Path) -> tuple[int, int]:
    """Return the loop count of a ``model.pt``, and the bytes of its parameters, each once.

    Raises:
        InputError: The file is not a checkpoint.
        MissingExtraError: PyTorch is not installed.
    """
    try:
        from loopedge.model.checkpoint import load
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtraError(f"measuring {path} in PyTorch", extra="train") from error
    module = load(path)
    stored = {id(parameter): parameter.nbytes for parameter in module.parameters()}
    return int(module.loops), sum(stored.values())
