"""The modules of published models against the packages that define them, on small random checkpoints."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from loopedge.errors import InputError
from loopedge.model.published.blocks import LanguageModel
from loopedge.model.published.loading import open_folder
from tests.parity.published.checkpoints import (
    CONFIGS,
    DORY,
    HUGINN,
    RELEASED,
    ROOMS,
    SHAPES,
    filled,
    make_module,
    random_tensors,
    write_checkpoint,
)
from tests.parity.published.huginn_reference import huginn_logits
from tests.parity.third_party import relative_error, transformers

TOLERANCE = 1e-5
CLASSES = {"dory": "DoryForCausalLM", "hrm_text": "HrmTextForCausalLM"}
DORY_SPELLINGS = {
    "both": (),
    "release": (
        "head_dim",
        "initializer_range",
        "sliding_window",
        "layer_types",
        "rope_parameters",
    ),
    "transformers": (
        *("attention_head_dim", "init_method_std", "swa_window_size", "hybrid_layer_pattern"),
        *("rope_theta", "rope_theta_2", "rope_profile_layers"),
    ),
}
PARAMETERS = {"dory": 3_975_229_440, "hrm_text": 1_182_795_264, "huginn": 3_564_976_800}


def tokens(length: int, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(length)
    return torch.randint(50, (batch, length), generator=generator)


def package_model(folder: Path, kind: str, **changes: Any) -> Any:
    """Write a checkpoint and let transformers read it."""
    config = {**CONFIGS[kind], **changes}
    write_checkpoint(folder, config, random_tensors(kind, config))
    transformers.utils.logging.disable_progress_bar()
    model, report = getattr(transformers, CLASSES[kind]).from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not any(report.values()), report
    return model.eval()


def error(module: LanguageModel, ids: Tensor, expected: Tensor, loops: int | None = None) -> float:
    with torch.no_grad():
        logits = module(ids, loops=loops)
    assert isinstance(logits, Tensor)
    return relative_error(logits.numpy(), expected.numpy())


@pytest.mark.slow
@pytest.mark.parametrize("loops", [1, 2, 4])
def test_dory_is_that_of_transformers(tmp_path: Path, loops: int) -> None:
    model = package_model(tmp_path, "dory", n_recurrent_loops=loops)
    module = make_module("dory")
    for length in (1, 5, 23):  # shorter than a window, as long, longer
        ids = tokens(length)
        with torch.no_grad():
            expected = model(ids, use_cache=False).logits
        assert error(module, ids, expected, loops) < TOLERANCE


@pytest.mark.parametrize("changes", [{}, {"prefix_lm": False, "tie_word_embeddings": True}])
def test_hrm_text_is_that_of_transformers(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Without token_type_ids transformers reads a prompt causally, whatever prefix_lm says."""
    config = {**CONFIGS["hrm_text"], **changes}
    tensors = random_tensors("hrm_text", config)
    if config["tie_word_embeddings"]:
        del tensors["lm_head.weight"]
    write_checkpoint(tmp_path, config, tensors)
    model = transformers.HrmTextForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    module = filled("hrm_text", config, tensors)
    for length in (1, 23):
        ids = tokens(length)
        with torch.no_grad():
            expected = model(ids, use_cache=False).logits
        assert error(module, ids, expected) < TOLERANCE


@pytest.mark.parametrize("loops", [1, 3])
def test_huginn_is_that_of_its_publication(loops: int) -> None:
    tensors, module = random_tensors("huginn", HUGINN), make_module("huginn")
    for length in (1, 23):
        ids = tokens(length)
        expected = huginn_logits(tensors, HUGINN, ids, loops)
        assert error(module, ids, expected, loops) < TOLERANCE


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_loop_matters(kind: str) -> None:
    module, ids = make_module(kind), tokens(9)
    with torch.no_grad():
        less, trained = (module(ids, loops=module.loops - k) for k in (1, 0))
    assert relative_error(less.numpy(), trained.numpy()) > 1e-2


@pytest.mark.parametrize("spelling", DORY_SPELLINGS)
def test_dory_is_read_in_each_spelling(spelling: str) -> None:
    config = {key: value for key, value in DORY.items() if key not in DORY_SPELLINGS[spelling]}
    both, one = (ROOMS["dory"].CONFIG.read(keys, "config.json") for keys in (DORY, config))
    assert one.layers == both.layers
    assert one.sections == both.sections == (1, 2, 1)
    assert (one.head_size, one.std, one.gate_scale) == (both.head_size, both.std, both.gate_scale)


def test_what_transformers_saved_of_dory_is_read(tmp_path: Path) -> None:
    """Its config.json has one spelling alone, its tensors other names than the release."""
    model = package_model(tmp_path / "released", "dory")
    model.save_pretrained(tmp_path / "saved")
    folder = open_folder(tmp_path / "saved")
    released = open_folder(tmp_path / "released")
    assert set(folder.checkpoint.files) != set(released.checkpoint.files)
    assert {t.name for t in folder.tensors.values()} != {t.name for t in released.tensors.values()}
    for name, tensor in folder.tensors.items():
        np.testing.assert_array_equal(tensor.read(), released.tensors[name].read())


def test_tensors_of_a_state_dict_of_dory_are_found(tmp_path: Path) -> None:
    """In memory transformers calls them otherwise than on disk."""
    model = package_model(tmp_path, "dory")
    module, ids = filled("dory", DORY, model.state_dict()), tokens(9)
    with torch.no_grad():
        expected = model(ids, use_cache=False).logits
    assert error(module, ids, expected) < TOLERANCE


def test_partial_rotary_positions_turn_the_first_features_only() -> None:
    """transformers has no partial factor for Dory: features that are not turned see no positions at all."""
    factor = {
        "partial_rotary_factor": 0.25,
        "partial_rotary_factor_2": 0.5,
        "rope_parameters": None,
    }
    layers = ROOMS["dory"].CONFIG.read({**DORY, **factor}, "config.json").layers
    assert [layer.turned for layer in layers] == [4, 4, 8, 4]
    module = make_module("dory", **factor)
    whole = make_module("dory")
    with torch.no_grad():
        ids = tokens(9)
        assert relative_error(module(ids).numpy(), whole(ids).numpy()) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("kind", CONFIGS)
def test_the_published_size_is_accepted(kind: str) -> None:
    room = ROOMS[kind]
    config = room.CONFIG.read(RELEASED[kind], "config.json")
    with torch.device("meta"):
        module = room.MODULE(config)
    shapes = {module.state_names()[name]: tuple(p.shape) for name, p in module.named_parameters()}
    assert shapes == SHAPES[kind](RELEASED[kind])
    assert sum(map(math.prod, shapes.values())) == PARAMETERS[kind]
    assert not list(module.buffers())


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_shrunk_model_has_the_same_structure(kind: str) -> None:
    room = ROOMS[kind]
    config = room.CONFIG.read(RELEASED[kind], "config.json")
    small = config.shrunk()
    with torch.device("meta"):
        names = [set(room.MODULE(each).state_names()) for each in (config, small)]
    assert names[0] == names[1]
    module = room.MODULE(small)
    module.fill_random(torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert module(tokens(9), loops=2).isfinite().all()


NOTES: list[tuple[str, dict[str, Any], str | None]] = [
    ("dory", {}, None),
    ("dory", {"recurrent_kv_cache_mode": "last_loop"}, "--cache last-loop"),
    ("hrm_text", {}, "causally"),
    ("hrm_text", {"prefix_lm": False}, None),
    ("huginn", {}, "zeros"),
    ("huginn", {"state_init": "zero"}, None),
]


@pytest.mark.parametrize(("kind", "changes", "said"), NOTES)
def test_what_differs_from_the_package_by_choice_is_said(
    kind: str, changes: dict[str, Any], said: str | None
) -> None:
    notes = make_module(kind, **changes).notes
    assert bool(notes) == (said is not None)
    assert all(said in note for note in notes if said is not None)


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("dory", {"enable_depth_attention": True}, "enable_depth_attention"),
    ("dory", {"initial_state": "zero"}, "initial_state"),
    ("dory", {"input_transform": "gated"}, "input_transform"),
    ("dory", {"output_transform": "adaptive_slerp"}, "output_transform"),
    ("dory", {"ngpt": False}, "ngpt"),
    ("dory", {"hybrid_layer_pattern": "SS--*-S-"}, "alternate"),
    ("dory", {"hybrid_layer_pattern": "S-S-M-S-"}, "'M'"),
    ("dory", {"hybrid_layer_pattern": "S-S-S-S-"}, "do not agree"),
    ("dory", {"rope_theta": 5000.0}, "do not agree"),
    ("dory", {"head_dim": 8}, "head_dim"),
    ("dory", {"swa_head_dim": 8}, "swa_head_dim"),
    ("dory", {"rope_profile_layers": [1, 2]}, "rope_profile_layers"),
    ("dory", {"no_rope_layers": [0, 0, 0, 0, 1, 1, 0, 0]}, "no_rope_layers"),
    ("dory", {"n_input_layers": 3, "n_output_layers": 1}, "cuts a pair"),
    ("dory", {"n_recurrent_layers": 2}, "num_hidden_layers"),
    ("dory", {"swa_window_size": None, "sliding_window": None}, "swa_window_size"),
    ("hrm_text", {"loop_gate": True}, "loop_gate"),
    ("hrm_text", {"num_key_value_heads": 2}, "num_key_value_heads"),
    ("hrm_text", {"num_layers_per_stack": 1, "num_hidden_layers": 5}, "num_hidden_layers"),
    ("hrm_text", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rope_type"),
    ("hrm_text", {"rope_parameters": {"rope_type": "default", "rope_theta": 5e4}}, "do not agree"),
    ("huginn", {"injection_type": "add"}, "injection_type"),
    ("huginn", {"block_class_name": "TransformerPreNormBlock"}, "block_class_name"),
    ("huginn", {"test_time_noise": 0.1}, "test_time_noise"),
    ("huginn", {"iter_injection": "add"}, "iter_injection"),
    ("huginn", {"num_key_value_heads": 2}, "num_key_value_heads"),
    ("huginn", {"n_layers": 8}, "n_layers"),
]


@pytest.mark.parametrize(("kind", "changes", "named"), REFUSED)
def test_what_is_not_computed_is_refused_by_name(
    kind: str, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(InputError, match=named):
        ROOMS[kind].CONFIG.read({**CONFIGS[kind], **changes}, "config.json")
