"""Capture what is equal once per run: tests export the same small models again and again.

``torch.export`` takes half a second to two for each part of a model, most of what such a test takes. A part is captured
anew unless module, weights, example inputs, sizes, opset, and the code of classes that tests write are all the same.
What reads more, as a function inside a test does, and what stands in a file that a test writes is always captured.
"""

import hashlib
import io
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

__all__ = ["share_captures"]

HOME = "loopedge.exporter.capture.capture"
LARGEST = 4 << 20
"""Bytes of a graph that is kept."""
MARK = "_shares_captures"
KEPT = {
    *("benchmarks", "examples", "loopedge", "tests"),
    *("builtins", "collections", "einops", "functools", "numpy", "operator"),
    *("tiny_recursive_model", "torch", "torch_einops_utils", "transformers", "x_transformers"),
}
"""Packages whose files no test writes."""
AUTOMATIC = {"__dict__", "__weakref__", "__doc__", "__module__", "__annotations__", "__qualname__"}


def share_captures(folder: Path) -> None:
    """Let captures of this process be shared, once the module that captures is imported.

    Args:
        folder: Takes the graphs; every worker of a run may have the same.
    """
    home: Any = sys.modules.get(HOME)
    if home is not None and not hasattr(home._capture, MARK):
        home._capture = shared(home._capture, folder)


def shared(capture: Callable[..., Any], folder: Path) -> Callable[..., Any]:
    """Return a capture that keeps what it made in a folder."""

    @wraps(capture)
    def captured(*given: Any) -> Any:
        import onnx_ir as ir

        key = identity(given)
        kept = folder / f"captured-{key}.onnx"
        if key is not None and kept.exists():
            return ir.from_proto(_read(kept))
        graph = capture(*given)
        if key is not None:
            _keep(ir.to_proto(graph).SerializeToString(), kept)
        return graph

    setattr(captured, MARK, True)
    return captured


def _read(path: Path) -> Any:
    import onnx

    return onnx.load_model_from_string(path.read_bytes())


def _keep(content: bytes, path: Path) -> None:
    """Write a file that another worker may write at the same time."""
    if len(content) < LARGEST:
        own = path.with_suffix(f".{os.getpid()}")
        own.write_bytes(content)
        own.replace(path)


def identity(given: Any) -> str | None:
    """Return a digest of all that a capture reads; None where that is not known."""
    written = io.BytesIO()
    try:
        _Identity(written).dump(given)
    except (pickle.PicklingError, TypeError, AttributeError, ValueError, RuntimeError):
        return None
    return hashlib.sha256(written.getvalue()).hexdigest()


class _Identity(pickle.Pickler):
    """Writes a module as pickle does, but tensors by value and classes of tests with their code.

    What is equal is written alike, one object or two; but tensors are numbered, for they may be tied.
    """

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.fast = True  # no memo
        self._tensors: dict[int, int] = {}

    def reducer_override(self, given: Any) -> Any:
        import torch

        if isinstance(given, torch.Tensor):
            place = self._tensors.setdefault(id(given), len(self._tensors))
            return str, (f"{place} {_described(given)}",)
        if not isinstance(given, type | FunctionType):
            return NotImplemented
        if given.__module__.partition(".")[0] not in KEPT:
            raise pickle.PicklingError(f"{given} may be another one in the next test")
        if isinstance(given, type) and given.__module__.startswith("tests."):
            return tuple, (tuple(_code_of(given)),)
        return NotImplemented


def _described(tensor: Any) -> str:
    array = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(array.numpy().tobytes()).hexdigest()
    kind = f"{type(tensor).__name__} {tensor.dtype} {tensor.requires_grad}"
    return f"{kind} {tuple(tensor.shape)} {tensor.stride()} {digest}"


def _code_of(kind: type) -> Iterator[Any]:
    """Yield what a class says, and its bases.

    Raises:
        pickle.PicklingError: A function of it reads variables of the function around it.
    """
    yield kind.__module__, kind.__qualname__
    yield kind.__bases__
    for name, value in sorted(vars(kind).items()):
        if name not in AUTOMATIC and not name.startswith("_abc"):
            yield name, _said(value)


def _said(value: Any) -> Any:
    if isinstance(value, classmethod | staticmethod):
        return type(value).__name__, _said(value.__func__)
    if isinstance(value, property):
        return "property", _said(value.fget)
    if isinstance(value, FunctionType):
        if set(value.__code__.co_freevars) - {"__class__"}:
            raise pickle.PicklingError(f"{value.__qualname__} is a closure")
        return _said(value.__code__), value.__defaults__, value.__kwdefaults__
    if isinstance(value, CodeType):
        constants = tuple(map(_said, value.co_consts))
        return value.co_code, constants, value.co_names, value.co_varnames, value.co_cellvars
    return value
