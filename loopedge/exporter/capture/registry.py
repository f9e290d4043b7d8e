"""Let all captures share PyTorch's table of ONNX translations.

``torch.onnx.export`` builds the table anew for each graph, from the source of two thousand functions: half of the
time that a small part takes.
"""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["shared_registry"]

HOME = "torch.onnx._internal.exporter._registration"
_BUILT: dict[Any, Any] = {}


@contextmanager
def shared_registry() -> Iterator[None]:
    """Keep the table that a capture inside the block builds, for the next one of the same opset.

    Where this PyTorch keeps the table elsewhere, each capture builds its own.
    """
    try:
        registry: Any = importlib.import_module(HOME).ONNXRegistry
        build: Callable[..., Any] = registry.from_torchlib
    except (ImportError, AttributeError):
        yield
        return

    def shared(**options: Any) -> Any:
        key = tuple(sorted(options.items()))
        if key not in _BUILT:
            _BUILT[key] = build(**options)
        return _BUILT[key]

    original = registry.__dict__["from_torchlib"]
    registry.from_torchlib = staticmethod(shared)
    try:
        yield
    finally:
        registry.from_torchlib = original
