"""How `loopedge.attention` is written: one node, or what older opsets have for it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from loopedge.model.attention import AttentionCall, readable, run_attention, running_attention

__all__ = ["ATTENTION_OPSET", "lowered_attention"]

ATTENTION_OPSET = 23
"""The opset that brought the operator."""


@contextmanager
def lowered_attention(opset: int) -> Iterator[None]:
    """Let the attention that a capture inside the block meets become one node where the opset has it.

    A soft cap is written out in every opset: up to 1.26 ONNX Runtime's operator caps the scores after the mask, so a
    position reads what it may not. `loopedge.to_generate` finds it again.
    """
    with running_attention(_one_node if opset >= ATTENTION_OPSET else run_attention):
        yield


def _one_node(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, call: AttentionCall) -> Tensor:
    if call.softcap is not None:
        return run_attention(q, k, v, mask, call)
    plain = call.window is None and mask is None
    allowed = None if plain else readable(q, mask, call)
    inputs = (q, k, v) if allowed is None else (q, k, v, allowed)
    return torch.onnx.ops.symbolic(
        "Attention",
        inputs,
        {"is_causal": int(call.causal and plain), "scale": call.scale},
        dtype=q.dtype,
        shape=(*q.shape[:3], v.shape[3]),
        version=ATTENTION_OPSET,
    )
