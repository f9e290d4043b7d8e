"""Parameters without memory: a module of any size is captured with them, and run with weights read as they are used."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  PyTorch's own name for it
from torch import Tensor, nn

from loopedge.model.published.reading import StoredTensor

__all__ = ["put_stand_ins", "stream_weights"]


def put_stand_ins(module: nn.Module) -> None:
    """Give a module on the meta device parameters on the CPU that take no memory, in place: a zero each, expanded."""
    for owner, name, parameter in _parameters(module):
        zero = torch.zeros((), dtype=parameter.dtype).expand(parameter.shape)
        setattr(owner, name, nn.Parameter(zero, requires_grad=False))


def stream_weights(
    module: nn.Module, tensors: Mapping[str, StoredTensor], rounded: Callable[[str, Tensor], Tensor]
) -> None:
    """Let a module read each weight when it computes with it, in place; none is kept.

    Products and embeddings read a part of a weight at a time, all else reads the whole one.

    Args:
        module: Runs without gradients from now on; it cannot be trained or saved.
        tensors: Where its parameters stand, by name.
        rounded: What becomes of the values of a parameter, by its name, before they are computed with.
    """
    for path, (owner, name, parameter) in zip(
        dict(module.named_parameters()), _parameters(module), strict=True
    ):
        streamed = _Streamed.of(parameter.shape, tensors[path], path, rounded)
        del owner._parameters[name]
        setattr(owner, name, streamed)


def _parameters(module: nn.Module) -> list[tuple[nn.Module, str, nn.Parameter]]:
    """List the parameters with the modules that own them, in the order of ``named_parameters``."""
    return [
        (owner, name, parameter)
        for owner in module.modules()
        for name, parameter in owner.named_parameters(recurse=False)
    ]


class _Streamed(Tensor):
    """A tensor whose values stand on the disk."""

    _stored: StoredTensor
    _path: str
    _rounded: Callable[[str, Tensor], Tensor]

    @staticmethod
    def of(
        shape: torch.Size,
        stored: StoredTensor,
        path: str,
        rounded: Callable[[str, Tensor], Tensor],
    ) -> "_Streamed":
        made = torch.zeros(()).expand(shape).as_subclass(_Streamed)
        made._stored, made._path, made._rounded = stored, path, rounded
        return made

    def rows(self, start: int = 0, stop: int | None = None) -> Tensor:
        """Return rows of the weight."""
        return self._rounded(self._path, torch.from_numpy(self._stored.read(start, stop)))

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = dict(kwargs or {})
        if (
            func is F.linear
            and isinstance(args[1], _Streamed)
            and not isinstance(args[0], _Streamed)
        ):
            return _linear(args[0], args[1], *args[2:], **given)
        if func is F.embedding and isinstance(args[1], _Streamed):
            return _embedding(args[0], args[1])
        with torch._C.DisableTorchFunctionSubclass():
            if func is Tensor.shape.__get__:  # type: ignore[attr-defined]
                return func(*args, **given)
            return func(*map(_whole, args), **{key: _whole(value) for key, value in given.items()})


def _whole(value: Any) -> Any:
    if isinstance(value, _Streamed):
        return value.rows()
    if isinstance(value, tuple | list):
        return type(value)(map(_whole, value))
    return value


def _linear(x: Tensor, weight: _Streamed, bias: Tensor | None = None) -> Tensor:
    parts = [
        x @ weight._rounded(weight._path, torch.from_numpy(rows)).T
        for _, rows in weight._stored.chunks()
    ]
    given = torch.cat(parts, dim=-1)
    return given if bias is None else given + _whole(bias)


def _embedding(ids: Tensor, weight: _Streamed) -> Tensor:
    rows = [weight.rows(row, row + 1) for row in ids.flatten().tolist()]
    return torch.cat(rows).reshape(*ids.shape, -1)
