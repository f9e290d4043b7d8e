"""Small random checkpoints in the layout on disk: keys of ``config.json``, tensors by their published names and shapes.

Names and shapes are listed here a second time, from the publications, so that a module which forgets a tensor or
calls it otherwise does not load.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from loopedge.model.published import dory, hrm_text, huginn
from loopedge.model.published.blocks import LanguageModel

Shapes = dict[str, tuple[int, ...]]

DORY: dict[str, Any] = {
    "model_type": "dory",
    "architectures": ["DoryForCausalLM"],
    "dory_format_version": 1,
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 8,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "attention_head_dim": 16,
    "max_position_embeddings": 512,
    "hybrid_layer_pattern": "S-S-*-S-",
    "swa_window_size": 5,
    "rope_theta": 10_000.0,
    "rope_theta_2": 10_000_000.0,
    "rope_profile_layers": [1, 1, 1, 1, 2, 2, 1, 1],
    "init_method_std": 0.02,
    "ngpt_alpha_init": 0.05,
    "n_input_layers": 2,
    "n_recurrent_layers": 4,
    "n_output_layers": 2,
    "n_recurrent_loops": 2,
    # what transformers reads of the same file
    "head_dim": 16,
    "initializer_range": 0.02,
    "sliding_window": 5,
    "layer_types": [
        *("sliding_attention", "mlp", "sliding_attention", "mlp"),
        *("full_attention", "mlp", "sliding_attention", "mlp"),
    ],
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        "full_attention": {"rope_type": "default", "rope_theta": 10_000_000.0},
    },
}
HRM_TEXT: dict[str, Any] = {
    "model_type": "hrm_text",
    "architectures": ["HrmTextForCausalLM"],
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "H_cycles": 2,
    "L_cycles": 2,
    "L_bp_cycles": [0, 2],
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "tie_word_embeddings": False,
    "initializer_range": 0.5,
    "embedding_scale": 1.7,
    "prefix_lm": True,
}
HUGINN: dict[str, Any] = {
    "model_type": "huginn_raven",
    "architectures": ["RavenForCausalLM"],
    "vocab_size": 50,
    "n_embd": 32,
    "n_heads": 4,
    "n_layers": 3,
    "block_size": 512,
    "intermediate_size": 48,
    "rope_base": 50_000,
    "norm_eps": 1e-6,
    "qk_bias": True,
    "bias": False,
    "tie_embeddings": True,
    "n_layers_in_prelude": 1,
    "n_layers_in_recurrent_block": 1,
    "n_layers_in_coda": 1,
    "mean_recurrence": 3,
    "injection_type": "linear",
    "state_init": "like-init",
}
CONFIGS = {"dory": DORY, "hrm_text": HRM_TEXT, "huginn": HUGINN}
ROOMS: dict[str, Any] = {"dory": dory, "hrm_text": hrm_text, "huginn": huginn}

RELEASED: dict[str, dict[str, Any]] = {
    "dory": {
        **{key: value for key, value in DORY.items() if key not in ("head_dim", "layer_types")},
        "vocab_size": 131_072,
        "hidden_size": 2560,
        "intermediate_size": 7168,
        "num_hidden_layers": 72,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "n_input_layers": 16,
        "n_recurrent_layers": 40,
        "n_output_layers": 16,
        "attention_head_dim": 256,
        "swa_window_size": 1024,
        "sliding_window": 1024,
        "swa_num_attention_heads": 16,
        "swa_num_key_value_heads": 4,
        "swa_head_dim": 256,
        "hybrid_layer_pattern": "S-S-S-*-" * 9,
        "no_rope_layers": [0] * 72,
        "rope_profile_layers": [1, 1, 1, 1, 1, 1, 2, 2] * 9,
        "max_position_embeddings": 262_144,
        "init_method_std": 0.0177,
        "initializer_range": 0.0177,
        "partial_rotary_factor": 1.0,
        "ngpt": True,
        "fngpt": True,
        "ngpt_enable_final_norm": False,
        "mixer_type": None,
        "attention_output_gate": True,
        "attention_output_gate_logit_scale_init": None,
        "initial_state": "input_copy",
        "input_transform": "residual",
        "output_transform": "replace",
        "mlp_hidden_act": "silu",
        "tie_word_embeddings": False,
    },
    "hrm_text": {
        **HRM_TEXT,
        "vocab_size": 65_536,
        "hidden_size": 1536,
        "intermediate_size": 4096,
        "num_hidden_layers": 16,
        "num_attention_heads": 12,
        "num_key_value_heads": 12,
        "head_dim": 128,
        "L_cycles": 3,
        "max_position_embeddings": 4096,
        "pad_token_id": 5,
        "initializer_range": 0.025515518153991442,
        "embedding_scale": 39.191835884530846,
    },
    "huginn": {
        **HUGINN,
        "vocab_size": 65_536,
        "padded_vocab_size": 65_536,
        "padding_multiple": 4096,
        "n_embd": 5280,
        "n_heads": 55,
        "num_attention_heads": 55,
        "num_key_value_heads": 55,
        "head_dim": 96,
        "intermediate_size": 17_920,
        "block_size": 4096,
        "n_layers": 8,
        "n_layers_in_prelude": 2,
        "n_layers_in_recurrent_block": 4,
        "n_layers_in_coda": 2,
        "mean_recurrence": 32,
        "mean_backprop_depth": 8,
        "effective_expected_depth": 132,
        "architecture_class_name": "RecurrentGPT",
        "block_class_name": "SandwichBlock",
        "norm_class_name": "RMSNorm_llama",
        "mlp_class_name": "GatedMLP",
        "nonlin_name": "SiLU",
        "init_strategy": "takase",
        "init_orthogonal": False,
        "test_time_noise": 0,
        "test_time_noise_type": "fixed",
        "sampling_scheme": "poisson-lognormal-filling",
        "activation_checkpoint_impl": "per-iteration",
        "torch_dtype": "bfloat16",
        "init_values": {"std": 0.0087, "embed_scale": 72.66360849833398},
    },
}
"""The published sizes, with the other keys that stand in such files."""


def dory_shapes(config: Mapping[str, Any]) -> Shapes:
    hidden, ffn, vocabulary = (
        config[key] for key in ("hidden_size", "intermediate_size", "vocab_size")
    )
    width = config["num_attention_heads"] * config["attention_head_dim"]
    kv_width = config["num_key_value_heads"] * config["attention_head_dim"]
    shapes: Shapes = {
        "backbone.embeddings.weight": (vocabulary, hidden),
        "lm_head.weight": (vocabulary, hidden),
        "lm_head.logit_scale": (vocabulary,),
    }
    for i in range(config["num_hidden_layers"]):
        layer, mixer = f"backbone.layers.{i}", f"backbone.layers.{i}.mixer"
        if i % 2:
            shapes[f"{layer}.mlp_alpha"] = (hidden,)
            shapes |= {f"{mixer}.{name}_proj.weight": (ffn, hidden) for name in ("gate", "up")}
            shapes[f"{mixer}.down_proj.weight"] = (hidden, ffn)
            shapes |= {f"{mixer}.suv_{name}": (ffn,) for name in ("gate", "up")}
        else:
            shapes[f"{layer}.attn_alpha"] = (hidden,)
            shapes |= {f"{mixer}.{name}_proj.weight": (width, hidden) for name in "qg"}
            shapes |= {f"{mixer}.{name}_proj.weight": (kv_width, hidden) for name in "kv"}
            shapes[f"{mixer}.o_proj.weight"] = (hidden, width)
            shapes |= {f"{mixer}.{name}": (width,) for name in ("sqk", "s_gate")}
    return shapes


def hrm_text_shapes(config: Mapping[str, Any]) -> Shapes:
    hidden, ffn, vocabulary = (
        config[key] for key in ("hidden_size", "intermediate_size", "vocab_size")
    )
    width = config["num_attention_heads"] * config["head_dim"]
    shapes: Shapes = {
        "model.embed_tokens.weight": (vocabulary, hidden),
        "lm_head.weight": (vocabulary, hidden),
        "model.z_L_init": (hidden,),
    }
    for stack in ("L_module", "H_module"):
        for i in range(config["num_hidden_layers"]):
            layer = f"model.{stack}.layers.{i}"
            shapes[f"{layer}.attn.gqkv_proj.weight"] = (4 * width, hidden)
            shapes[f"{layer}.attn.o_proj.weight"] = (hidden, width)
            shapes[f"{layer}.mlp.gate_up_proj.weight"] = (2 * ffn, hidden)
            shapes[f"{layer}.mlp.down_proj.weight"] = (hidden, ffn)
    return shapes


def huginn_shapes(config: Mapping[str, Any]) -> Shapes:
    width, heads, ffn = (config[key] for key in ("n_embd", "n_heads", "intermediate_size"))
    shapes: Shapes = {
        "transformer.wte.weight": (config["vocab_size"], width),
        "transformer.adapter.weight": (width, 2 * width),
        "transformer.ln_f.weight": (width,),
    }
    for place, key in (
        ("prelude", "n_layers_in_prelude"),
        ("core_block", "n_layers_in_recurrent_block"),
        ("coda", "n_layers_in_coda"),
    ):
        for i in range(config[key]):
            layer = f"transformer.{place}.{i}"
            shapes |= {f"{layer}.norm_{n}.weight": (width,) for n in (1, 2, 3, 4)}
            shapes[f"{layer}.attn.Wqkv.weight"] = (3 * width, width)
            shapes[f"{layer}.attn.qk_bias"] = (2, 1, heads, width // heads)
            shapes[f"{layer}.attn.proj.weight"] = (width, width)
            shapes[f"{layer}.mlp.fc.weight"] = (2 * ffn, width)
            shapes[f"{layer}.mlp.proj.weight"] = (width, ffn)
    return shapes


SHAPES: dict[str, Callable[[Mapping[str, Any]], Shapes]] = {
    "dory": dory_shapes,
    "hrm_text": hrm_text_shapes,
    "huginn": huginn_shapes,
}
SCALED = ("sqk", "s_gate", "logit_scale")
"""Stored as multiples of the standard deviation."""


def random_tensors(kind: str, config: Mapping[str, Any], seed: int = 0) -> dict[str, Tensor]:
    """Return tensors by their names on disk, so large that every layer and every loop moves the state."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in SHAPES[kind](config).items():
        if name.endswith("alpha"):
            low, high = 3 * config["init_method_std"], 6 * config["init_method_std"]
        elif name.endswith(SCALED):
            low, high = 0.5 * config["init_method_std"], 1.5 * config["init_method_std"]
        else:
            low, high = (0.5, 1.5) if len(shape) == 1 else (-0.35, 0.35)
        tensors[name] = torch.rand(shape, generator=generator) * (high - low) + low
    return tensors


def write_checkpoint(
    folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()},
        folder / "model.safetensors",
    )
    return folder


def make_module(kind: str, **changes: Any) -> LanguageModel:
    """Build the module of a model type and fill it from tensors as they stand on disk."""
    config = {**CONFIGS[kind], **changes}
    return filled(kind, config, random_tensors(kind, config))


def filled(kind: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> LanguageModel:
    room = ROOMS[kind]
    module: LanguageModel = room.MODULE(room.CONFIG.read(config, "config.json"))
    parameters = dict(module.named_parameters())
    names = module.state_names()
    released = {module.release_name(name): tensor for name, tensor in tensors.items()}
    assert set(names) == set(parameters)
    assert set(names.values()) == set(released)
    with torch.no_grad():
        for name, parameter in parameters.items():
            assert parameter.shape == released[names[name]].shape, name
            parameter.copy_(released[names[name]])
    return module.eval()
