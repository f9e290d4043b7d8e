"""Huginn's forward, written from its publication over tensors by name: complex rotations, no module of ours."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]


def huginn_logits(
    tensors: Tensors,
    config: Mapping[str, Any],
    ids: Tensor,
    loops: int,
    state: Tensor | None = None,
) -> Tensor:
    """Return logits (batch, sequence, vocabulary); the first state is zeros where none is handed over."""
    heads = config["n_heads"]
    x = tensors["transformer.wte.weight"][ids] * config["n_embd"] ** 0.5
    turns = rotations(ids.shape[1], config["n_embd"] // heads, config["rope_base"])

    def run(x: Tensor, place: str, key: str) -> Tensor:
        for i in range(config[key]):
            x = block(tensors, f"transformer.{place}.{i}", x, turns, heads)
        return x

    embedded = run(x, "prelude", "n_layers_in_prelude")
    x = torch.zeros_like(embedded) if state is None else state
    for _ in range(loops):
        x = torch.cat([x, embedded], dim=-1) @ tensors["transformer.adapter.weight"].T
        x = run(x, "core_block", "n_layers_in_recurrent_block")
    x = norm(tensors, "transformer.ln_f", x)
    x = norm(tensors, "transformer.ln_f", run(x, "coda", "n_layers_in_coda"))
    return x @ tensors["transformer.wte.weight"].T


def rotations(length: int, head_size: int, base: float) -> Tensor:
    """Return complex numbers of norm 1: (length, 1, head_size / 2)."""
    frequencies = 1 / base ** (torch.arange(0, head_size, 2) / head_size)
    angles = torch.outer(torch.arange(length), frequencies)
    return torch.polar(torch.ones_like(angles), angles)[:, None]


def block(tensors: Tensors, name: str, x: Tensor, turns: Tensor, heads: int) -> Tensor:
    attended = attention(tensors, f"{name}.attn", norm(tensors, f"{name}.norm_1", x), turns, heads)
    x = norm(tensors, f"{name}.norm_2", attended + x)
    first, second = (
        norm(tensors, f"{name}.norm_3", x) @ tensors[f"{name}.mlp.fc.weight"].T
    ).tensor_split(2, dim=-1)
    mixed = (first * torch.sigmoid(first) * second) @ tensors[f"{name}.mlp.proj.weight"].T
    return norm(tensors, f"{name}.norm_4", mixed + x)


def attention(tensors: Tensors, name: str, x: Tensor, turns: Tensor, heads: int) -> Tensor:
    batch, length, width = x.shape
    joined = x @ tensors[f"{name}.Wqkv.weight"].T
    q, k, v = (part.reshape(batch, length, heads, -1) for part in joined.tensor_split(3, dim=-1))
    q_bias, k_bias = tensors[f"{name}.qk_bias"]
    q, k = turned(q + q_bias, turns), turned(k + k_bias, turns)
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5
    future = torch.ones(length, length).triu(1).bool()
    weights = scores.masked_fill(future, -torch.inf).softmax(dim=-1)
    read = torch.einsum("bhqk,bkhd->bqhd", weights, v).reshape(batch, length, width)
    return read @ tensors[f"{name}.proj.weight"].T


def turned(x: Tensor, turns: Tensor) -> Tensor:
    """Turn neighbouring features, a complex number each: (batch, length, heads, head_size)."""
    pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turns).flatten(-2)


def norm(tensors: Tensors, name: str, x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * tensors[f"{name}.weight"]
