"""Nanbeige and Ouro, which no package has: small random folders by their published names, and an independent forward.

The forward is plain functions over the stored tensors, written from the description of the models: no module of loopedge.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

State = Mapping[str, Tensor]

NANBEIGE: dict[str, Any] = {
    "architectures": ["NanbeigeForCausalLM"],
    "model_type": "nanbeige",
    "vocab_size": 83,
    "hidden_size": 48,
    "intermediate_size": 72,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 70_000_000.0,
    "rope_scaling": None,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "num_loops": 2,
    "loop_loss_weights": [0.3],
    "skip_loop_final_norm": False,
    "enable_double_loop_split": False,
    "loop_share_kv": False,
    "enable_hyper_connection": False,
    "enable_mhc": False,
    "enable_depth_attention": False,
    "qk_layernorm": False,
    "emb_neighbor_num": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.57.1",
    "use_cache": True,
}
OURO: dict[str, Any] = {
    "architectures": ["OuroForCausalLM"],
    "model_type": "ouro",
    "vocab_size": 83,
    "hidden_size": 48,
    "intermediate_size": 72,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "head_dim": 16,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000.0,
    "rope_scaling": None,
    "max_position_embeddings": 64,
    "max_window_layers": 2,
    "sliding_window": None,
    "use_sliding_window": False,
    "layer_types": ["full_attention", "full_attention"],
    "tie_word_embeddings": False,
    "total_ut_steps": 3,
    "early_exit_threshold": 1.0,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "torch_dtype": "bfloat16",
    "use_cache": True,
}
CONFIGS = {"nanbeige": NANBEIGE, "ouro": OURO}

PUBLISHED: dict[str, dict[str, Any]] = {
    "Nanbeige4.2-3B": {
        **NANBEIGE,
        "vocab_size": 166_144,
        "hidden_size": 3072,
        "intermediate_size": 10_752,
        "num_hidden_layers": 22,
        "num_attention_heads": 48,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 262_144,
    },
    "Ouro-1.4B": {
        **OURO,
        "vocab_size": 49_152,
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "head_dim": 128,
        "max_position_embeddings": 65_536,
        "max_window_layers": 24,
        "layer_types": ["full_attention"] * 24,
        "total_ut_steps": 4,
    },
    "Ouro-2.6B": {
        **OURO,
        "vocab_size": 49_152,
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 48,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "head_dim": 128,
        "max_position_embeddings": 65_536,
        "max_window_layers": 48,
        "layer_types": ["full_attention"] * 48,
        "total_ut_steps": 4,
    },
}
"""Configurations of the published sizes, by name. Size and number of the key-value heads of Nanbeige are what its 3B of layers ask for."""


def shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the tensors of a checkpoint, by their published names."""
    width, inner, vocabulary = (
        config[key] for key in ("hidden_size", "intermediate_size", "vocab_size")
    )
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocabulary, width),
        "model.norm.weight": (width,),
    }
    norms: tuple[str, ...] = ("input_layernorm", "post_attention_layernorm")
    if config["model_type"] == "ouro":
        norms = (*norms, "input_layernorm_2", "post_attention_layernorm_2")
        found |= {"model.early_exit_gate.weight": (1, width), "model.early_exit_gate.bias": (1,)}
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        found |= {f"{layer}.{norm}.weight": (width,) for norm in norms}
        found |= {
            f"{layer}.self_attn.q_proj.weight": (queries, width),
            f"{layer}.self_attn.k_proj.weight": (keys, width),
            f"{layer}.self_attn.v_proj.weight": (keys, width),
            f"{layer}.self_attn.o_proj.weight": (width, queries),
            f"{layer}.mlp.gate_proj.weight": (inner, width),
            f"{layer}.mlp.up_proj.weight": (inner, width),
            f"{layer}.mlp.down_proj.weight": (width, inner),
        }
    if not config["tie_word_embeddings"]:
        found["lm_head.weight"] = (vocabulary, width)
    return found


def random_state(config: Mapping[str, Any], seed: int = 0) -> dict[str, Tensor]:
    """Return random tensors that bfloat16 holds exactly, as float32."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes(config).items():
        values = torch.randn(shape, generator=generator)
        values = values * shape[-1] ** -0.5 if len(shape) > 1 else 1 + 0.1 * values
        if name.endswith("gate.bias"):
            values = values * 0  # half of the tokens leave at the first step
        state[name] = values.bfloat16().float()
    return state


def write_folder(
    folder: Path,
    config: Mapping[str, Any],
    state: State,
    *,
    dtype: torch.dtype = torch.bfloat16,
    shards: int = 1,
    files: Mapping[str, object] | None = None,
) -> Path:
    """Write a folder as a model hub has it, with more files by name where there are some."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(dict(config)))
    stored = {name: value.to(dtype).contiguous() for name, value in state.items()}
    if shards == 1:
        save_file(stored, folder / "model.safetensors")
    else:
        names = [f"model-{i + 1:05}-of-{shards:05}.safetensors" for i in range(shards)]
        placed = {name: names[i % shards] for i, name in enumerate(stored)}
        for shard in names:
            held = {name: stored[name] for name, place in placed.items() if place == shard}
            save_file(held, folder / shard)
        index = {"metadata": {}, "weight_map": placed}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    for name, content in (files or {}).items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name).write_text(text)
    return folder


def reference_logits(
    config: Mapping[str, Any], state: State, ids: Tensor, loops: int | None = None
) -> Tensor:
    """Return logits (batch, sequence, vocabulary) of the whole text, in float64."""
    values = {name: value.double() for name, value in state.items()}
    x = values["model.embed_tokens.weight"][ids]
    head = values.get("lm_head.weight", values["model.embed_tokens.weight"])
    if config["model_type"] == "nanbeige":
        x = _nanbeige(config, values, x, loops)
    else:
        x = _ouro(config, values, x, loops)
    return x @ head.T


def _nanbeige(config: Mapping[str, Any], values: State, x: Tensor, loops: int | None) -> Tensor:
    weights = config.get("loop_loss_weights")
    times = loops or (len(weights) + 1 if weights else config["num_loops"])
    eps, last = config["rms_norm_eps"], values["model.norm.weight"]
    for _ in range(times):
        for i in range(config["num_hidden_layers"]):
            name = f"model.layers.{i}"
            x = x + _attention(
                config, values, name, _norm(x, values[f"{name}.input_layernorm.weight"], eps)
            )
            x = x + _mlp(
                values, name, _norm(x, values[f"{name}.post_attention_layernorm.weight"], eps)
            )
        if not config["skip_loop_final_norm"]:
            x = _norm(x, last, eps)
    return _norm(x, last, eps) if config["skip_loop_final_norm"] else x


def _ouro(config: Mapping[str, Any], values: State, x: Tensor, loops: int | None) -> Tensor:
    eps = config["rms_norm_eps"]
    states, leaving = [], []
    for _ in range(loops or config["total_ut_steps"]):
        for i in range(config["num_hidden_layers"]):
            name = f"model.layers.{i}"
            norms = [
                values[f"{name}.{norm}.weight"]
                for norm in (
                    *("input_layernorm", "input_layernorm_2"),
                    *("post_attention_layernorm", "post_attention_layernorm_2"),
                )
            ]
            attended = _attention(config, values, name, _norm(x, norms[0], eps))
            x = x + _norm(attended, norms[1], eps)
            x = x + _norm(_mlp(values, name, _norm(x, norms[2], eps)), norms[3], eps)
        x = _norm(x, values["model.norm.weight"], eps)
        states.append(x)
        gate = x @ values["model.early_exit_gate.weight"].T + values["model.early_exit_gate.bias"]
        leaving.append(torch.sigmoid(gate)[..., 0])
    return _selected(states, leaving, config["early_exit_threshold"])


def _selected(states: Sequence[Tensor], leaving: Sequence[Tensor], threshold: float) -> Tensor:
    """Return each token's state at the first step where the probability of having left reaches the threshold."""
    chosen = states[-1].clone()
    for row in range(chosen.shape[0]):
        for position in range(chosen.shape[1]):
            staying, left = 1.0, 0.0
            for step, state in enumerate(states):
                leaves = float(leaving[step][row, position])
                left += staying * leaves if step < len(states) - 1 else staying
                staying *= 1 - leaves
                if left >= threshold and threshold < 1:
                    chosen[row, position] = state[row, position]
                    break
    return chosen


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) * weight


def _mlp(values: State, name: str, x: Tensor) -> Tensor:
    gate, up, down = (values[f"{name}.mlp.{part}_proj.weight"] for part in ("gate", "up", "down"))
    turned = x @ gate.T
    return (turned * torch.sigmoid(turned) * (x @ up.T)) @ down.T


def _attention(config: Mapping[str, Any], values: State, name: str, x: Tensor) -> Tensor:
    size, theta = config["head_dim"], config["rope_theta"]
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    q, k, v = (
        torch.unflatten(x @ values[f"{name}.self_attn.{part}_proj.weight"].T, -1, (-1, size))
        for part in "qkv"
    )
    length = x.shape[1]
    attended = []
    for head in range(heads):
        shared = head // (heads // groups)
        query, key = _turned(q[:, :, head], theta), _turned(k[:, :, shared], theta)
        scores = query @ key.transpose(1, 2) / math.sqrt(size)
        later = torch.ones(length, length, dtype=torch.bool).triu(1)
        weights = torch.softmax(scores.masked_fill(later, -math.inf), dim=-1)
        attended.append(weights @ v[:, :, shared])
    return torch.cat(attended, dim=-1) @ values[f"{name}.self_attn.o_proj.weight"].T


def _turned(x: Tensor, theta: float) -> Tensor:
    """Turn feature i with feature i + half, by position * theta^(-2 i / size)."""
    half = x.shape[-1] // 2
    frequencies = theta ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = torch.arange(x.shape[1], dtype=torch.float64)[:, None] * frequencies
    first, second = x[..., :half], x[..., half:]
    return torch.cat(
        [
            first * angles.cos() - second * angles.sin(),
            second * angles.cos() + first * angles.sin(),
        ],
        dim=-1,
    )
