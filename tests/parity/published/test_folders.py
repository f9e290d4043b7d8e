"""Folders of published models: keys, tensors and files are all read, or refused in one line that names them."""

import importlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from loopedge.errors import InputError
from loopedge.model.contract import run_loops
from loopedge.model.published import nanbeige, ouro
from loopedge.model.published.configuration import HARMLESS
from loopedge.model.published.loading import PublishedFolder, open_folder, published_type
from loopedge.model.published.reading import open_checkpoint
from loopedge.model.published.types import PUBLISHED as PUBLISHED_TYPES
from tests.parity.published.looped_llamas import (
    CONFIGS,
    NANBEIGE,
    OURO,
    PUBLISHED,
    random_state,
    reference_logits,
    shapes,
    write_folder,
)

TOLERANCE = 1e-5
BLOCKS = {"Nanbeige4.2-3B": 3.15e9, "Ouro-1.4B": 1.23e9, "Ouro-2.6B": 2.47e9}
"""Parameters of the layers."""
ROOMS: dict[str, Any] = {"nanbeige": nanbeige, "ouro": ouro}


def tokens(length: int, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(length)
    return torch.randint(83, (batch, length), generator=generator)


def made(folder: Path, config: dict[str, Any], **options: Any) -> PublishedFolder:
    return open_folder(write_folder(folder, config, random_state(config), **options))


def logits_of(folder: PublishedFolder, ids: Tensor, loops: int | None = None) -> Tensor:
    """Return what the module gives with the weights of the folder, all read."""
    module = folder.kind(folder.config)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.from_numpy(folder.tensors[name].read()))
        given = run_loops(module.eval(), ids, loops=loops)
    assert isinstance(given, Tensor)
    return given


def worst(given: Tensor, expected: Tensor) -> float:
    return float((given.double() - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(
    ("kind", "changes", "loops"),
    [
        ("nanbeige", {}, None),
        ("nanbeige", {}, 5),
        ("nanbeige", {"skip_loop_final_norm": True, "loop_loss_weights": [], "num_loops": 3}, None),
        ("nanbeige", {"loop_loss_weights": [0.1, 0.2, 0.3]}, None),
        ("nanbeige", {"tie_word_embeddings": True}, None),
        ("nanbeige", {"head_dim": None, "kv_channels": 16}, None),
        ("ouro", {}, None),
        ("ouro", {"early_exit_threshold": 0.5}, None),
        ("ouro", {"early_exit_threshold": 0.2, "num_key_value_heads": 1}, 2),
    ],
)
def test_modules_compute_what_an_independent_forward_does(
    kind: str, changes: dict[str, Any], loops: int | None, tmp_path: Path
) -> None:
    config = CONFIGS[kind] | changes
    plain = config | {"head_dim": config.get("head_dim") or config.get("kv_channels")}
    state = random_state(plain)
    kept = {key: value for key, value in config.items() if value is not None}
    folder = open_folder(write_folder(tmp_path, kept, state))
    ids = tokens(9)
    expected = reference_logits(plain, state, ids, loops)
    assert worst(logits_of(folder, ids, loops), expected) < TOLERANCE


def test_a_threshold_selects_another_step_for_each_token() -> None:
    """The test above would say nothing of the gate if all tokens left at one step."""
    ids, state = tokens(9), random_state(OURO)
    chosen = reference_logits(OURO | {"early_exit_threshold": 0.5}, state, ids)
    left = [
        int((chosen - reference_logits(OURO, state, ids, loops)).abs().amax(-1).lt(1e-9).sum())
        for loops in (1, 2, 3)
    ]
    assert sum(left) == ids.numel()
    assert sum(count > 0 for count in left) > 1


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_are_built_without_memory(name: str) -> None:
    config = PUBLISHED[name]
    room = ROOMS[config["model_type"]]
    with torch.device("meta"):
        module = room.MODULE(room.CONFIG.read(config, "config.json"))
    stored = {module.state_names()[key]: tuple(p.shape) for key, p in module.named_parameters()}
    assert stored == shapes(config)
    inside = sum(p.numel() for key, p in module.named_parameters() if ".layers." in key)
    assert inside == pytest.approx(BLOCKS[name], rel=0.01)


@pytest.mark.parametrize(
    ("config", "changes", "named"),
    [
        (NANBEIGE, {"enable_mhc": True}, "enable_mhc"),
        (NANBEIGE, {"enable_double_loop_split": True}, "enable_double_loop_split"),
        (NANBEIGE, {"loop_share_kv": True}, "loop_share_kv"),
        (NANBEIGE, {"qk_layernorm": True}, "qk_layernorm"),
        (NANBEIGE, {"emb_neighbor_num": 2}, "emb_neighbor_num"),
        (NANBEIGE, {"ngram_vocab_size_ratio": 0.5}, "ngram_vocab_size_ratio"),
        (NANBEIGE, {"enable_something_new": False}, "enable_something_new"),
        (NANBEIGE, {"loop_window": 64}, "loop_window"),
        (NANBEIGE, {"rope_scaling": {"type": "yarn"}}, "rope_scaling"),
        (NANBEIGE, {"head_dim": None}, "head_dim"),
        (NANBEIGE, {"head_dim": 9}, "head_dim"),
        (NANBEIGE, {"kv_channels": 12}, "kv_channels"),
        (NANBEIGE, {"num_key_value_heads": 4}, "num_key_value_heads"),
        (NANBEIGE, {"hidden_act": "gelu"}, "hidden_act"),
        (NANBEIGE, {"attention_bias": True}, "attention_bias"),
        (NANBEIGE, {"num_loops": 0}, "num_loops"),
        (OURO, {"use_sliding_window": True}, "use_sliding_window"),
        (OURO, {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        (OURO, {"layer_types": ["full_attention"]}, "layer_types"),
        (OURO, {"early_exit_step": 2}, "early_exit_step"),
        (OURO, {"chunk_size": 64}, "chunk_size"),
        (OURO, {"early_exit_threshold": 1.5}, "early_exit_threshold"),
        (OURO, {"loop_gate": True}, "loop_gate"),
    ],
)
def test_a_key_that_is_not_computed_is_refused_by_its_name(
    config: dict[str, Any], changes: dict[str, Any], named: str
) -> None:
    values = {key: value for key, value in (config | changes).items() if value is not None}
    with pytest.raises(InputError, match=named) as caught:
        ROOMS[config["model_type"]].CONFIG.read(values, "config.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model_type", ["iquestloopcoder", "inkling2_loop"])
def test_other_looped_models_are_refused_with_the_reason(model_type: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(InputError, match=r"are not exported: its .* no single"):
        published_type(tmp_path, generates=True)


def test_an_adapter_keeps_hrm_text_unless_text_is_generated(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "hrm_text"}))
    assert published_type(tmp_path, generates=False) is None
    assert published_type(tmp_path, generates=True) == "hrm_text"
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "albert"}))
    assert published_type(tmp_path, generates=True) is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_shards_and_types_are_read_as_pytorch_reads_them(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    state = random_state(OURO)
    write_folder(tmp_path, OURO, state, dtype=dtype, shards=3)
    checkpoint = open_checkpoint(tmp_path)
    assert len(checkpoint.files) == 3
    for name, values in state.items():
        stored = checkpoint.tensors[name]
        expected = values.to(dtype).float().numpy()
        assert np.array_equal(stored.read(), expected)
        assert np.array_equal(stored.read(0, 1), expected[:1])
        assert np.array_equal(np.concatenate([rows for _, rows in stored.chunks()]), expected)


def test_missing_unused_and_misshapen_tensors_are_named(tmp_path: Path) -> None:
    state = random_state(OURO)
    lost = {name: value for name, value in state.items() if "mlp.up_proj" not in name}
    with pytest.raises(
        InputError, match=r"tensors model.layers.0.mlp.up_proj.weight, .*1.* are missing"
    ):
        open_folder(write_folder(tmp_path / "lost", OURO, lost))
    more = state | {"model.layers.0.self_attn.q_proj.bias": torch.zeros(48)}
    with pytest.raises(InputError, match=r"tensor .*q_proj.bias is read by nothing"):
        open_folder(write_folder(tmp_path / "more", OURO, more))
    other = state | {"model.norm.weight": torch.zeros(47)}
    with pytest.raises(InputError, match=r"model.norm.weight has shape \(47,\), .* \(48,\)"):
        open_folder(write_folder(tmp_path / "other", OURO, other))
    cached = state | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(8)}
    open_folder(write_folder(tmp_path / "cached", OURO, cached))


def test_a_head_is_tied_by_its_key_and_by_its_values(tmp_path: Path) -> None:
    state = random_state(OURO)
    table = state["model.embed_tokens.weight"]
    same = open_folder(write_folder(tmp_path / "same", OURO, state | {"lm_head.weight": table}))
    assert same.config.tied
    assert "lm_head.weight" not in same.tensors
    assert "stored once" in same.notes[-1]
    assert not made(tmp_path / "apart", OURO).config.tied
    keyed = OURO | {"tie_word_embeddings": True}
    bare = {name: value for name, value in state.items() if name != "lm_head.weight"}
    assert open_folder(write_folder(tmp_path / "keyed", keyed, bare)).config.tied
    twice = state | {"lm_head.weight": table}
    assert open_folder(write_folder(tmp_path / "twice", keyed, twice)).config.tied
    with pytest.raises(InputError, match="tie_word_embeddings is true, and lm_head"):
        open_folder(write_folder(tmp_path / "wrong", keyed, state))
    with pytest.raises(InputError, match=r"tensor lm_head\.weight is missing"):
        open_folder(write_folder(tmp_path / "none", OURO, bare))


def test_tokenizer_files_and_end_ids_are_found(tmp_path: Path) -> None:
    files = {
        "tokenizer.json": "{}",
        "tokenizer_config.json": "{}",
        "chat_template.jinja": "{{ messages }}",
        "generation_config.json": {"eos_token_id": [7, 2]},
        "modeling_nanbeige.py": "raise SystemExit",
    }
    folder = made(tmp_path, NANBEIGE, files=files)
    assert set(folder.companions) == {
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    }
    assert folder.end_ids == (7, 2)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": "two"}')
    with pytest.raises(InputError, match="eos_token_id"):
        open_folder(tmp_path)


def header(entries: dict[str, Any]) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "its header has no length"),
        (struct.pack("<Q", 2**60) + b"{}", "its header has no length"),
        (struct.pack("<Q", 2) + b"{]", "its header is no JSON"),
        (header({"a": {**ENTRY, "dtype": "F8_E4M3"}}) + bytes(8), "stored as F8_E4M3"),
        (header({"a": {**ENTRY, "shape": [3]}}) + bytes(8), "other bytes"),
        (header({"a": {**ENTRY, "shape": [-2]}}) + bytes(8), "does not describe a"),
        (header({"a": {**ENTRY, "data_offsets": 3}}) + bytes(8), "does not describe a"),
        (header({"a": ENTRY}) + bytes(7), "ends before"),
    ],
)
def test_damaged_files_are_refused(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=said):
        open_checkpoint(tmp_path)


def test_an_index_names_what_its_shards_hold(tmp_path: Path) -> None:
    write_folder(tmp_path, OURO, random_state(OURO), shards=2)
    index = tmp_path / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    for name, shard, said in (
        ("model.norm.weight", "../model.safetensors", "a file beside it"),
        ("model.nothing", "model-00001-of-00002.safetensors", "which it does not"),
    ):
        changed = content["weight_map"] | {name: shard}
        index.write_text(json.dumps({"weight_map": changed}))
        with pytest.raises(InputError, match=said):
            open_checkpoint(tmp_path)
    index.write_text(json.dumps({"weight_map": {}}))
    assert open_checkpoint(tmp_path).tensors == {}


def test_values_that_are_not_finite_are_refused_when_they_are_read(tmp_path: Path) -> None:
    state = random_state(OURO)
    state["model.norm.weight"][3] = torch.nan
    folder = open_folder(write_folder(tmp_path, OURO, state))
    with pytest.raises(InputError, match=r"model\.norm\.weight holds a value that is not finite"):
        folder.tensors["model.norm.weight"].read()


def test_the_page_lists_every_key() -> None:
    page = (Path(__file__).parents[3] / "docs" / "published_models.md").read_text(encoding="utf-8")
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    keys = page.partition("## Keys")[2].partition("## Tensors")[0]
    assert all(f"`{key}`" in keys for key in HARMLESS)
    for model_type, home in PUBLISHED_TYPES.items():
        kind = importlib.import_module(f"loopedge.model.published.{home}").CONFIG
        for key in {*kind.model_fields, *kind.harmless}:
            assert f"`{key}`" in rows[model_type], (model_type, key)
