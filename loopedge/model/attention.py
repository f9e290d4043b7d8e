"""Attention that PyTorch's own function cannot say: windows, soft caps, grouped heads."""

import contextlib
import math
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  PyTorch's own name for it
from torch import Tensor

from loopedge.errors import InputError

__all__ = ["AttentionCall", "AttentionRunner", "attention", "run_attention", "running_attention"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionCall:
    """How an attention is computed, as `attention` was asked for it; ``scale`` is filled in."""

    causal: bool
    window: int | None
    scale: float
    softcap: float | None


AttentionRunner = Callable[[Tensor, Tensor, Tensor, Tensor | None, AttentionCall], Tensor]

_RUNNER: ContextVar[AttentionRunner | None] = ContextVar("loopedge_attention_runner", default=None)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    causal: bool = True,
    window: int | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    *,
    mask: Tensor | None = None,
) -> Tensor:
    """Attend from every position of a sequence to positions of the same sequence.

    In PyTorch this is plain, differentiable code. The exporter writes one ``Attention`` node (opset 23) or its parts
    (older opsets, and a soft cap in all of them), and `loopedge.to_generate` makes attention with a cache of it.

    Args:
        q: Queries, (batch, heads, sequence, head_size).
        k: Keys, (batch, kv_heads, sequence, head_size); ``kv_heads`` divides ``heads``.
        v: Values, (batch, kv_heads, sequence, value_size).
        causal: Whether position i reads the positions j <= i alone.
        window: How many positions a position reads at most, itself among them: i - window < j <= i.
            It needs ``causal``; None: all.
        scale: What scores are multiplied by; default: 1 / sqrt(head_size).
        softcap: Scores become ``softcap * tanh(score / softcap)`` before the mask; None: they stay.
        mask: bool, broadcastable to (batch, heads, sequence, sequence), True where a position may be read, as the
            padding of a batch asks for; it narrows ``causal`` and ``window``. A file with a cache takes none.

    Returns:
        (batch, heads, sequence, value_size).

    Raises:
        InputError: Shapes do not fit, or an option has a value that it cannot have.

    Unchecked: a position that may read none gives zeros in PyTorch, and may give something else in ONNX Runtime.
    """
    call = AttentionCall(
        causal=causal,
        window=window,
        scale=_checked_scale(q, k, v, scale),
        softcap=softcap,
    )
    _check(q, k, call, mask)
    return (_RUNNER.get() or run_attention)(q, k, v, mask, call)


def run_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, call: AttentionCall
) -> Tensor:
    """Compute attention with PyTorch's own operators."""
    k, v = _repeated(q, k), _repeated(q, v)
    plain = call.causal and call.window is None and mask is None
    if call.softcap is None:
        allowed = None if plain else readable(q, mask, call)
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=allowed, is_causal=plain, scale=call.scale
        )
    scores = (q @ k.transpose(-2, -1)) * call.scale  # (B, nh, S, S)
    scores = torch.tanh(scores / call.softcap) * call.softcap
    allowed = readable(q, mask, call)
    if allowed is not None:
        scores = torch.where(allowed, scores, -math.inf)
    shares = torch.softmax(scores, dim=-1)
    if mask is not None:  # a row that may read nothing is zero, as in scaled_dot_product_attention
        shares = torch.where(torch.isnan(shares), 0.0, shares)
    return shares @ v


def readable(q: Tensor, mask: Tensor | None, call: AttentionCall) -> Tensor | None:
    """Return which positions each position may read, bool, (sequence, sequence) where ``mask`` is None; None: all."""
    if not call.causal:
        return mask
    positions = torch.arange(q.shape[2], device=q.device)
    distance = positions[:, None] - positions[None, :]  # (S, S): how far a position looks back
    allowed = distance >= 0
    if call.window is not None:
        allowed = allowed & (distance < call.window)
    return allowed if mask is None else allowed & mask


@contextlib.contextmanager
def running_attention(runner: AttentionRunner | None) -> Iterator[None]:
    """Let ``runner`` compute the attention that the block meets: how the exporter sees it."""
    token = _RUNNER.set(runner)
    try:
        yield
    finally:
        _RUNNER.reset(token)


def _repeated(q: Tensor, x: Tensor) -> Tensor:
    """Give every query head the keys or values of its group."""
    group = q.shape[1] // x.shape[1]
    if group == 1:
        return x
    return x[:, :, None].expand(-1, -1, group, -1, -1).flatten(1, 2)  # (B, nh, S, hs)


def _checked_scale(q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> float:
    shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (q, k, v))
    hint = "(batch, heads, sequence, head_size): x.unflatten(-1, (heads, -1)).transpose(1, 2)"
    if any(tensor.dim() != 4 for tensor in (q, k, v)):
        raise InputError(f"attention takes q, k and v of four axes, not {shapes}", hint=hint)
    heads, groups = q.shape[1], k.shape[1]
    if v.shape[1] != groups or heads % groups or k.shape[3] != q.shape[3]:
        raise InputError(
            f"q, k and v of shapes {shapes} do not fit: the heads of k and v must be equal and divide those of q, "
            "and q and k must have one head size",
            hint=hint,
        )
    if scale is not None and not (math.isfinite(scale) and scale > 0):
        raise InputError(f"attention has the scale {scale}, a number above 0 is needed")
    return 1 / math.sqrt(q.shape[3]) if scale is None else float(scale)


def _check(q: Tensor, k: Tensor, call: AttentionCall, mask: Tensor | None) -> None:
    if call.window is not None and (call.window < 1 or not call.causal):
        raise InputError(
            f"attention has the window {call.window} and causal={call.causal}: a window is at least 1 and looks back",
            hint="loopedge.attention(q, k, v, causal=True, window=128)",
        )
    if call.softcap is not None and not (math.isfinite(call.softcap) and call.softcap > 0):
        raise InputError(f"attention has the soft cap {call.softcap}, a number above 0 is needed")
    if mask is not None and mask.dtype != torch.bool:
        raise InputError(
            f"the mask of attention is {mask.dtype}, bool is needed: True where a position may be read",
            hint="mask = attention_mask.bool()[:, None, None, :]",
        )
    if call.causal and _RUNNER.get() is None and q.shape[2] != k.shape[2]:
        raise InputError(
            f"causal attention has {q.shape[2]} queries and {k.shape[2]} keys, it needs as many of both",
            hint="causal=False reads the positions of another sequence",
        )
