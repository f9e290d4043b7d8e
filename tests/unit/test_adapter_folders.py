"""Folders of other packages: what is read, what is refused, always with one line."""

import importlib
import json
import pickle
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from loopedge.errors import InputError, MissingExtraError
from loopedge.model.adapters import albert as albert_adapter
from loopedge.model.adapters import load_pretrained, supported
from loopedge.model.contract import as_tuple
from loopedge.model.folder import read_config
from tests.parity.third_party import (
    RECURSIVE,
    Sizes,
    make_albert,
    make_hrm_text,
    make_recursive,
    make_tensors,
    reference,
    relative_error,
    transformers,
)

NETWORKS: dict[str, dict[str, Any]] = {
    "MLPMixer1D": {"kind": "MLPMixer1D", "depth": 1, "seq_len": 9},
    "Encoder": {"kind": "Encoder", "depth": 1, "heads": 2, "attn_dim_head": 8},
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("albert")
    make_albert("AlbertForMaskedLM").save_pretrained(folder)
    return folder


@pytest.fixture
def albert(saved: Path, tmp_path: Path) -> Path:
    shutil.copytree(saved, tmp_path / "albert")
    return tmp_path / "albert"


def save_recursive(model: Any, folder: Path, network: dict[str, Any], **more: Any) -> Path:
    folder.mkdir()
    config = {"model_type": "tiny-recursive-model", **RECURSIVE, "network": network, **more}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), folder / "model.safetensors")
    return folder


def edit(folder: Path, **changes: Any) -> None:
    """Change keys of config.json; None removes one."""
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def compare(model: Any, folder: Path, sizes: Sizes, tokens: int) -> None:
    adapter: Any = load_pretrained(folder)
    assert not adapter.training
    tensors = make_tensors(adapter.input_names, sizes, tokens=tokens, padding="right")
    with torch.no_grad():
        given = as_tuple(adapter(*tensors.values()))
    expected = reference(model, tensors)
    for name, value in zip(adapter.output_names, given, strict=True):
        mask = tensors.get("attention_mask")
        assert relative_error(value.numpy(), expected[name], mask) < 1e-5


def test_a_saved_transformers_model_computes_what_it_computed(
    saved: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    hrm = make_hrm_text()
    hrm.save_pretrained(tmp_path / "hrm")
    make_hrm_text().bfloat16().save_pretrained(tmp_path / "half")
    capfd.readouterr()
    compare(make_albert("AlbertForMaskedLM"), saved, Sizes(3, 7), 50)
    compare(hrm, tmp_path / "hrm", Sizes(3, 7), 50)
    with torch.no_grad():
        for parameter in hrm.parameters():  # not its buffers: .bfloat16() rounds frequencies too
            parameter.copy_(parameter.bfloat16())
    compare(hrm, tmp_path / "half", Sizes(3, 7), 50)
    assert "".join(capfd.readouterr()) == "", "loading is silent"


def test_shards_are_read(tmp_path: Path) -> None:
    model = make_hrm_text()
    model.save_pretrained(tmp_path, max_shard_size="50KB")
    assert not (tmp_path / "model.safetensors").exists()
    compare(model, tmp_path, Sizes(2, 5), 50)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_folder_of_a_tiny_recursive_model(network: str, tmp_path: Path) -> None:
    model = make_recursive(network)
    compare(model, save_recursive(model, tmp_path / "trm", NETWORKS[network]), Sizes(2, 9), 20)
    folder = save_recursive(
        model, tmp_path / "halting", NETWORKS[network], max_deep_refinement_steps=5
    )
    adapter = load_pretrained(folder)
    assert (adapter.loops, hasattr(adapter, "halt")) == (5, True)
    ids = torch.arange(18).reshape(2, 9)
    predicted, _ = model.predict(ids, max_deep_refinement_steps=5)
    with torch.no_grad():
        assert torch.equal(as_tuple(adapter(ids))[0].argmax(-1), predicted)


@pytest.mark.parametrize(
    ("model_type", "more"),
    [
        ("bert", {}),
        ("ouro", {"auto_map": {"AutoModelForCausalLM": "modeling_ouro.OuroForCausalLM"}}),
        ("../albert", {}),
        ("__init__", {}),
    ],
)
def test_other_model_types_get_the_contract(
    model_type: str, more: dict[str, Any], albert: Path
) -> None:
    edit(albert, model_type=model_type, **more)
    (albert / "modeling_ouro.py").write_text("raise SystemExit('code beside the weights was run')")
    with pytest.raises(
        InputError, match=f"model_type '{model_type}' of .* has no adapter"
    ) as caught:
        load_pretrained(albert)
    assert "albert, hrm_text, tiny_recursive_model" in caught.value.message
    assert caught.value.hint is not None
    for place in ("loopedge.LoopedModule", "docs/bring_your_own.md", "examples/bring_your_own.py"):
        assert place in caught.value.hint
    assert supported() == ["albert", "hrm_text", "tiny_recursive_model"]


def test_code_beside_a_supported_model_is_not_run(albert: Path) -> None:
    edit(albert, auto_map={"AutoModelForMaskedLM": "modeling.Mine", "AutoConfig": "modeling.C"})
    (albert / "modeling.py").write_text("raise SystemExit('code beside the weights was run')")
    compare(make_albert("AlbertForMaskedLM"), albert, Sizes(2, 5), 50)


Damage = Callable[[Path], Any]


def _drop_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["albert.encoder.embedding_hidden_mapping_in.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _misshape_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["predictions.dense.weight"] = torch.zeros(3, 3)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "is not a folder"),
        (lambda folder: (folder / "config.json").unlink(), r"holds no config\.json"),
        (lambda folder: (folder / "config.json").write_text("{,"), "is not JSON: line 1"),
        (lambda folder: (folder / "config.json").write_bytes(b"\xff\xfe\x00"), "UTF-8"),
        (lambda folder: (folder / "config.json").write_text("[]"), "names no model_type"),
        (lambda folder: edit(folder, model_type=None), "names no model_type"),
        (lambda folder: edit(folder, architectures=None), "names no class under"),
        (lambda folder: edit(folder, architectures=["BertModel"]), "names the class BertModel"),
        (lambda folder: edit(folder, architectures=[{}]), "names no class under"),
        (lambda folder: edit(folder, hidden_size="wide"), "cannot be loaded: .*hidden_size"),
        (lambda folder: edit(folder, num_hidden_groups=3, num_hidden_layers=3), "is missing"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"holds no model\.safetensors"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 99), "header"),
        (_drop_a_tensor, "tensor albert.encoder.embedding_hidden_mapping_in.weight is missing"),
        (_misshape_a_tensor, r"predictions.dense.weight has shape \(3, 3\), .* \(16, 32\)"),
    ],
)
def test_a_damaged_folder_gives_one_line(damage: Damage, message: str, albert: Path) -> None:
    damage(albert)
    with pytest.raises(InputError, match=message) as caught:
        load_pretrained(albert)
    assert "\n" not in caught.value.message


class _Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('pickled code was run')",))


def test_a_bin_file_gives_tensors_and_never_code(albert: Path) -> None:
    tensors = load_file(albert / "model.safetensors")
    (albert / "model.safetensors").unlink()
    torch.save(tensors, albert / "pytorch_model.bin")
    compare(make_albert("AlbertForMaskedLM"), albert, Sizes(2, 5), 50)
    for write in (
        lambda path: torch.save({**tensors, "extra": _Code()}, path),
        lambda path: path.write_bytes(pickle.dumps(_Code())),
    ):
        write(albert / "pytorch_model.bin")
        with pytest.raises(InputError, match=r"pickled code|cannot be loaded"):
            load_pretrained(albert)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": None}, "network names the kind None, known are MLPMixer1D"),
        ({"network": {"kind": "os.system"}}, "network names the kind os.system"),
        ({"network": {"kind": "MLPMixer1D"}}, "cannot be built: .*missing 2 required"),
        ({"dim": None}, "cannot be built"),
        ({"num_refinement_blocks": 1}, "cannot be built"),
        ({"colour": "red"}, "cannot be built: .*colour"),
        ({"num_register_tokens": 2}, "cannot be loaded: .*register_tokens"),
        ({"num_tokens": 21}, "cannot be loaded: .*size mismatch"),
        ({"network": {**NETWORKS["MLPMixer1D"], "depth": 2}}, "is missing and"),
        (
            {"network": {**NETWORKS["MLPMixer1D"], "depth": 0}},
            "unknown tensor|size mismatch|missing",
        ),
    ],
)
def test_a_wrong_tiny_recursive_configuration_gives_one_line(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    model = make_recursive("MLPMixer1D")
    folder = save_recursive(model, tmp_path / "trm", NETWORKS["MLPMixer1D"])
    edit(folder, **changes)
    with pytest.raises(InputError, match=message) as caught:
        load_pretrained(folder)
    assert "\n" not in caught.value.message


def test_pickled_weights_of_a_tiny_recursive_model_are_not_read(tmp_path: Path) -> None:
    model = make_recursive("MLPMixer1D")
    folder = save_recursive(model, tmp_path / "trm", NETWORKS["MLPMixer1D"])
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"holds no model\.safetensors"):
        load_pretrained(folder)


def test_a_missing_package_is_named_by_its_extra(
    albert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(MissingExtraError, match="of type albert needs the extra 'adapters'"):
        albert_adapter.load(albert, read_config(albert))


def test_loading_leaves_the_package_as_it_was(saved: Path) -> None:
    logging = transformers.utils.logging
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load_pretrained(saved)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1,000,000,000, at most 65,536"),
        ({"inner_group_num": 10**9}, "inner_group_num is 1,000,000,000, at most 1,024"),
        ({"vocab_size": 10**9}, "asks for .* parameters, model.safetensors holds"),
        ({"vocab_size": 10**30}, "too many digits"),
    ],
)
def test_a_configuration_that_asks_for_more_than_its_file_holds(
    change: dict[str, Any], message: str, albert: Path
) -> None:
    edit(albert, **change)
    with pytest.raises(InputError, match=message):
        load_pretrained(albert)


def test_shards_stand_beside_their_index(albert: Path) -> None:
    (albert / "model.safetensors").unlink()
    index = albert / "model.safetensors.index.json"
    for name in ("../other.safetensors", "/etc/passwd"):
        index.write_text(json.dumps({"weight_map": {"x": name}}))
        with pytest.raises(InputError, match="a file beside it is needed"):
            load_pretrained(albert)
    index.write_text("[]")
    with pytest.raises(InputError, match="has no weight_map"):
        load_pretrained(albert)
