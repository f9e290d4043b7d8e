"""Find the products of a forward pass, whatever module makes them, and let something else compute them."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
import torch.nn.functional as F  # noqa: N812  PyTorch's own name for it
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["Multiplier", "Products"]

Arguments = tuple[Any, ...]
Named = Mapping[str, Any]


class Multiplier(Protocol):
    """Computes products whose weight it knows."""

    def product(self, x: Tensor, weight: Tensor) -> Tensor | None:
        """Return x (..., inputs) times the transposed weight (outputs, inputs); None: the weight is not known."""
        ...

    def weight(self, weight: Tensor) -> Tensor | None:
        """Return what stands for a weight (outputs, inputs) whose product something else makes; None: not known."""
        ...

    def rounded_input(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return x, of any shape, as the product with a weight that is known reads it."""
        ...

    def table(self, table: Tensor) -> Tensor | None:
        """Return what stands for a table (entries, width) of which rows are taken; None: it is not known."""
        ...


class Products(TorchFunctionMode):
    """Hands the products inside the block to a multiplier, and computes what that does not know as ever.

    Products are ``linear``, ``matmul`` and ``@``, ``mm``, ``addmm``, convolutions and ``einsum`` with a weight of two dimensions,
    attention as ``torch.nn.MultiheadAttention`` calls it, and rows that ``embedding`` or an index takes from a table.
    """

    def __init__(self, multiplier: Multiplier) -> None:
        super().__init__()
        self._multiplier = multiplier

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Arguments = (),
        kwargs: Named | None = None,
    ) -> Any:
        named = kwargs or {}
        handler = HANDLERS.get(func)
        made = None if handler is None else handler(self._multiplier, func, args, named)
        return func(*args, **named) if made is None else made


def _argument(args: Arguments, named: Named, place: int, name: str) -> Any:
    return args[place] if len(args) > place else named.get(name)


def _linear(
    multiplier: Multiplier, func: Callable[..., Any], args: Arguments, named: Named
) -> Tensor | None:
    x, weight = _argument(args, named, 0, "input"), _argument(args, named, 1, "weight")
    made = multiplier.product(x, weight) if weight.dim() == 2 else None
    bias = _argument(args, named, 2, "bias")
    return made if made is None or bias is None else made + bias


def _matmul(
    multiplier: Multiplier, func: Callable[..., Any], args: Arguments, named: Named
) -> Tensor | None:
    left = _argument(args, named, 0, "input")
    right = args[1] if len(args) > 1 else named.get("other", named.get("mat2"))
    if not isinstance(left, Tensor) or not isinstance(right, Tensor):
        return None
    if right.dim() == 2:
        made = multiplier.product(left, right.mT)
        if made is not None:
            return made
    if left.dim() == 2 and right.dim() >= 2:
        made = multiplier.product(right.mT, left)
        return None if made is None else made.mT
    return None


def _reversed_matmul(
    multiplier: Multiplier, func: Callable[..., Any], args: Arguments, named: Named
) -> Tensor | None:
    return _matmul(multiplier, func, args[::-1], {})


def _addmm(
    multiplier: Multiplier, func: Callable[..., Any], args: Arguments, named: Named
) -> Tensor | None:
    if named.get("alpha", 1) != 1 or named.get("beta", 1) != 1 or len(args) != 3:
        return None
    made = _matmul(multiplier, func, args[1:], {})
    return None if made is None else made + args[0]


def _convolution(
    multiplier: Multiplier, func: Callable[..., Any], args: Arguments, named: Named
) -> Tensor | None:
    x, weight = _argument(args, named, 0, "input"), _argument(args, named, 1, "weight")
    axes = [0, *range(2, weight.dim()), 1]
    turned = weight.permute(axes)  # (out, kernel, in): a graph has it so, as a linear over windows
    matrix = turned.reshape(len(weight), -1)
    rounded = multiplier.weight(matrix)
    if rounded is None:
        return None
    back = [0, weight.dim() - 1, *range(1, weight.dim() - 1)]
    replaced = rounded.reshape(turned.shape).permute(back)
    others = {name: value for name, value in named.items() if name not in {"input", "weight"}}
    made: Tensor = func(multiplier.rounded_input(x, matrix), replaced, *args[2:], **others)
    return made


def _with_weights(
    multiplier: Multiplier, func: Callable[..., Any], args: Arguments, named: Named
) -> Any:
    """Let a function compute with rounded weights; what it reads inside itself stays as it is."""
    found = False

    def replaced(value: Any) -> Any:
        nonlocal found
        if isinstance(value, list | tuple) and func is torch.einsum:
            return [replaced(each) for each in value]
        if not isinstance(value, Tensor) or value.dim() != 2:
            return value
        known = multiplier.weight(value)
        turned = multiplier.weight(value.mT) if known is None else None
        found = found or known is not None or turned is not None
        return value if known is None and turned is None else known if turned is None else turned.mT

    changed = [replaced(value) for value in args]
    changed_named = {name: replaced(value) for name, value in named.items()}
    return func(*changed, **changed_named) if found else None


def _embedding(
    multiplier: Multiplier, func: Callable[..., Any], args: Arguments, named: Named
) -> Tensor | None:
    ids, table = _argument(args, named, 0, "input"), _argument(args, named, 1, "weight")
    rounded = multiplier.table(table)
    others = {name: value for name, value in named.items() if name not in {"input", "weight"}}
    made = None if rounded is None else func(ids, rounded, *args[2:], **others)
    return made


def _index(
    multiplier: Multiplier, func: Callable[..., Any], args: Arguments, named: Named
) -> Tensor | None:
    table, place = args[0], args[1]
    ids = isinstance(place, Tensor) and place.dtype in {torch.int64, torch.int32}
    if not ids or not isinstance(table, Tensor) or table.dim() != 2:
        return None
    rounded = multiplier.table(table)
    return None if rounded is None else rounded[place]


Handler = Callable[[Multiplier, Callable[..., Any], Arguments, Named], Any]

HANDLERS: dict[Callable[..., Any], Handler] = {
    F.linear: _linear,
    **dict.fromkeys((torch.matmul, torch.mm, Tensor.matmul, Tensor.mm, Tensor.__matmul__), _matmul),
    Tensor.__rmatmul__: _reversed_matmul,
    **dict.fromkeys((torch.addmm, Tensor.addmm), _addmm),
    **dict.fromkeys((torch.conv1d, torch.conv2d, torch.conv3d), _convolution),
    **dict.fromkeys((torch.einsum, F.multi_head_attention_forward), _with_weights),
    F.embedding: _embedding,
    Tensor.__getitem__: _index,
}
