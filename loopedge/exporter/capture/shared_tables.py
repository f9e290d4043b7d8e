"""Let all captures share PyTorch's tables of ONNX translations and of decompositions.

``torch.onnx.export`` builds them anew for each graph: the first from the source of two thousand functions, half of the
time that a small part takes, the others by asking every operator what it is, an eighth.
"""

import importlib
from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["shared_tables"]

_BUILT: dict[Hashable, Any] = {}


def _opset(**options: Any) -> Hashable:
    return tuple(sorted(options.items()))


def _operators(*given: set[Any]) -> Hashable:
    """Tell apart the operators of this process: a library that is imported registers its own."""
    composite = torch._C._dispatch_get_registrations_for_dispatch_key("CompositeImplicitAutograd")
    known: Any = torch._decomp.decomposition_table
    return *map(frozenset, given), tuple(composite), tuple(torch.ops._dir), len(known)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """A function of PyTorch that builds a table, and what the table hangs on.

    ``owner`` is the class that holds the function, empty where that is the module. ``kept`` makes what is handed
    out of what was built.
    """

    module: str
    owner: str = ""
    function: str
    key: Callable[..., Hashable]
    kept: Callable[[Any], Any]


TABLES = (
    _Table(
        module="torch.onnx._internal.exporter._registration",
        owner="ONNXRegistry",
        function="from_torchlib",
        key=_opset,
        kept=lambda registry: registry,
    ),
    _Table(
        module="torch.onnx._internal.exporter._decomp",
        function="create_onnx_friendly_decomposition_table",
        key=_operators,
        kept=dict,
    ),
    _Table(
        module="torch.export.exported_program",
        function="_collect_all_valid_cia_ops",
        key=_operators,
        kept=set,
    ),
)


@contextmanager
def shared_tables() -> Iterator[None]:
    """Keep the tables that a capture inside the block builds, for the next one of the same opset and operators.

    Where this PyTorch keeps a table elsewhere, each capture builds its own.
    """
    with ExitStack() as stack:
        for table in TABLES:
            stack.enter_context(_shared(table))
        yield


@contextmanager
def _shared(table: _Table) -> Iterator[None]:
    try:
        home: Any = importlib.import_module(table.module)
        home = getattr(home, table.owner) if table.owner else home
        build: Callable[..., Any] = getattr(home, table.function)
    except (ImportError, AttributeError):
        yield
        return

    def shared(*given: Any, **options: Any) -> Any:
        key = table, table.key(*given, **options)
        if key not in _BUILT:
            _BUILT[key] = build(*given, **options)
        return table.kept(_BUILT[key])

    original = vars(home)[table.function]
    setattr(home, table.function, staticmethod(shared) if table.owner else shared)
    try:
        yield
    finally:
        setattr(home, table.function, original)
