"""Models of other packages, exported, against the forward of the package itself."""

from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

import loopedge
from loopedge.errors import InputError
from loopedge.graph.core.view import view_core
from loopedge.model.adapters import adapt
from loopedge.model.contract import as_tuple
from tests.parity.models import SEVEN_BITS
from tests.parity.third_party import (
    PADDINGS,
    Sizes,
    make_albert,
    make_hrm_text,
    make_recursive,
    make_tensors,
    reference,
    relative_error,
    transformers,
)

pytestmark = pytest.mark.long

Maker = Callable[..., Any]
TOLERANCE = 1e-4


def made(maker: Maker, *arguments: str, **changes: Any) -> Maker:
    return lambda **more: maker(*arguments, **changes, **more)


KINDS: dict[str, Maker] = {
    "AlbertModel": made(make_albert, "AlbertModel"),
    "AlbertForMaskedLM": made(make_albert, "AlbertForMaskedLM"),
    "AlbertForPreTraining": made(make_albert, "AlbertForPreTraining"),
    "AlbertForSequenceClassification": made(make_albert, "AlbertForSequenceClassification"),
    "AlbertForTokenClassification": made(make_albert, "AlbertForTokenClassification"),
    "AlbertForQuestionAnswering": made(make_albert, "AlbertForQuestionAnswering"),
    "albert-two-layers-per-group": made(make_albert, "AlbertForMaskedLM", inner_group_num=2),
    "HrmTextForCausalLM": made(make_hrm_text),
    "HrmTextModel": made(make_hrm_text, "HrmTextModel"),
    "hrm-text-causal-tied": made(make_hrm_text, prefix_lm=False, tie_word_embeddings=True),
    "recursive-mixer": made(make_recursive, "MLPMixer1D"),
    "recursive-mixer-registers": made(make_recursive, "MLPMixer1D", registers=2),
    "recursive-encoder-registers": made(make_recursive, "Encoder", registers=2),
}
EVERY_FORM = ("AlbertForMaskedLM", "HrmTextForCausalLM", "recursive-mixer-registers")
CASES = [
    pytest.param(
        kind,
        form,
        marks=[] if (kind, form) == ("AlbertForMaskedLM", "loop") else pytest.mark.long,
    )
    for kind in KINDS
    for form in (("loop", "unrolled", "nested") if kind in EVERY_FORM else ("loop",))
    if not (kind.startswith("Albert") and form == "nested")  # no loop inside its core
]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Export a kind once: ``exported("AlbertModel", "loop", loops=2)``.

    ``nested`` is the loop form with the loops inside the core as Loops.
    """
    folder = tmp_path_factory.mktemp("adapters")

    @cache
    def export(kind: str, form: str, **changes: int) -> Path:
        adapter: Any = adapt(KINDS[kind](**changes))
        path = folder / f"{kind}-{form}-{'-'.join(map(str, changes.values()))}.onnx"
        options: Any = {"inner": "loop"} if form == "nested" else {"form": form}
        loopedge.export(adapter, path, example=adapter.example_inputs(), **options)
        return path

    return export


def cases_of(adapter: Any) -> list[tuple[Sizes, str]]:
    masked = "attention_mask" in adapter.input_names
    fixed = None if masked else getattr(adapter, "max_length", None)
    lengths = [fixed] if fixed else [1, 5, 23]
    paddings = PADDINGS if masked else PADDINGS[-1:]
    return [(Sizes(b, s), p) for b in (1, 4) for s in lengths for p in paddings]


def tokens_of(model: Any) -> int:
    return int(model.config.vocab_size if hasattr(model, "config") else 20)


@pytest.mark.parametrize(("kind", "form"), CASES)
def test_the_artifact_agrees_with_the_package(
    kind: str, form: str, exported: Callable[..., Path]
) -> None:
    model = KINDS[kind]()
    session = loopedge.Session(exported(kind, form), threads=1)
    adapter: Any = adapt(KINDS[kind]())
    for sizes, padding in cases_of(adapter):
        tensors = make_tensors(adapter.input_names, sizes, tokens=tokens_of(model), padding=padding)
        given = session.run({name: tensor.numpy() for name, tensor in tensors.items()})
        expected = reference(model, tensors)
        assert set(given) == set(adapter.output_names) == set(expected)
        for name, value in expected.items():
            error = relative_error(given[name], value, tensors.get("attention_mask"))
            assert error < TOLERANCE, (name, sizes, padding)


@pytest.mark.parametrize("kind", KINDS)
def test_every_iteration_matters(kind: str) -> None:
    """A test with weights near zero would pass with any number of loops."""
    adapter: Any = adapt(KINDS[kind]())
    inputs = adapter.example_inputs()
    with torch.no_grad():
        outputs = [
            as_tuple(adapter(*inputs, loops=count))[0].numpy()
            for count in (adapter.loops - 1, adapter.loops)
        ]
    assert relative_error(outputs[0], outputs[1]) > 1e-2


@pytest.mark.parametrize(("kind", "form"), CASES)
def test_matrices_are_stored_once(kind: str, form: str, exported: Callable[..., Path]) -> None:
    artifact = ir.load(exported(kind, form))
    stored = sum(
        value.const_value.nbytes
        for value in artifact.graph.initializers.values()
        if value.const_value is not None
        and value.const_value.dtype.is_floating_point()
        and len(value.const_value.shape) >= 2
    )
    parameters = KINDS[kind]().parameters()
    assert stored == sum(value.numel() * 4 for value in parameters if value.dim() >= 2)
    assert not any(graph.initializers for graph in artifact.graph.subgraphs())


@pytest.mark.parametrize(("kind", "form"), [case for case in CASES if case.values[0] in EVERY_FORM])
def test_weights_are_stored_once_under_the_names_of_the_package(
    kind: str, form: str, exported: Callable[..., Path]
) -> None:
    model: nn.Module = KINDS[kind]()
    artifact = ir.load(exported(kind, form))
    assert view_core(artifact).form == ("unrolled" if form == "unrolled" else "loop")
    assert not any(graph.initializers for graph in artifact.graph.subgraphs())
    stored = {name: value.const_value for name, value in artifact.graph.initializers.items()}
    names: dict[int, set[str]] = {}  # of each tensor; a tied one has two
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if parameter.numel() == 0:  # no register tokens
            continue
        names.setdefault(parameter.data_ptr(), set()).add(name)
    kept = {name for aliases in names.values() for name in aliases & set(stored)}
    assert len(kept) == len(names)
    weights = sum(tensor.nbytes for name, tensor in stored.items() if tensor and name in kept)
    assert weights == sum(parameter.numel() * 4 for parameter in model.parameters())
    others = sum(tensor.nbytes for name, tensor in stored.items() if tensor and name not in kept)
    assert others < 1000  # scalars, shapes, position ids, inverse frequencies


@pytest.mark.parametrize(("kind", "form"), CASES)
def test_onnxruntime_keeps_one_copy_of_each_weight(
    kind: str, form: str, exported: Callable[..., Path], tmp_path: Path
) -> None:
    """As a session opens it: with all optimizations, whose result is written and counted."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(str(exported(kind, form)), options)

    def matrices(path: Path) -> int:
        model = ir.load(path)
        return sum(
            value.const_value.nbytes
            for graph in (model.graph, *model.graph.subgraphs())
            for value in graph.initializers.values()
            if value.const_value is not None and len(value.const_value.shape) >= 2
        )

    assert matrices(tmp_path / "optimized.onnx") <= matrices(exported(kind, form))


@pytest.mark.long
@pytest.mark.parametrize("kind", EVERY_FORM)
def test_all_linears_become_int8(kind: str, exported: Callable[..., Path], tmp_path: Path) -> None:
    source = exported(kind, "loop")
    result = loopedge.quantize(source, tmp_path / "int8.onnx", scheme="dynamic", **SEVEN_BITS)
    assert result.matmuls["quantized"] == result.matmuls["total"] > 0
    assert result.sqnr_db > 20
    assert result.weight_bytes < 0.5 * result.source_weight_bytes


@pytest.mark.parametrize(
    ("kind", "embedding"),
    [
        ("AlbertForMaskedLM", "albert.embeddings.word_embeddings.weight"),
        pytest.param("hrm-text-causal-tied", "model.embed_tokens.weight", marks=pytest.mark.long),
    ],
)
def test_a_tied_head_is_stored_as_the_embedding(
    kind: str, embedding: str, exported: Callable[..., Path]
) -> None:
    initializers = ir.load(exported(kind, "loop")).graph.initializers
    assert embedding in initializers
    assert not {"lm_head.weight", "predictions.decoder.weight"} & set(initializers)


@pytest.mark.long
@pytest.mark.parametrize("kind", EVERY_FORM)
def test_the_number_of_nodes_does_not_depend_on_the_loop_count(
    kind: str, exported: Callable[..., Path]
) -> None:
    counts = [
        Counter(
            node.op_type for node in ir.load(exported(kind, "loop", loops=loops)).graph.all_nodes()
        )
        for loops in (2, 6)
    ]
    assert counts[0] == counts[1]


@pytest.mark.long
def test_norms_of_the_network_are_not_stored_per_refinement(exported: Callable[..., Path]) -> None:
    """x-transformers computes ``gamma + 1`` in every call; the core calls the network three times."""
    model: nn.Module = KINDS["recursive-encoder-registers"]()
    artifact = ir.load(exported("recursive-encoder-registers", "loop"))
    stored = sum(
        value.const_value.nbytes
        for value in artifact.graph.initializers.values()
        if value.const_value is not None
    )
    parameters = sum(parameter.numel() * 4 for parameter in model.parameters())
    assert stored < parameters + 800


@pytest.mark.long
@pytest.mark.parametrize("kind", ["AlbertForMaskedLM", "HrmTextForCausalLM"])
def test_a_row_of_padding_alone_stays_finite(kind: str, exported: Callable[..., Path]) -> None:
    session = loopedge.Session(exported(kind, "loop"), threads=1)
    feeds = {name: np.ones((2, 6), np.int64) for name in ("input_ids", "token_type_ids")}
    feeds["attention_mask"] = np.array([[0] * 6, [1] * 6])
    assert np.isfinite(session.run(feeds)["logits"]).all()


def test_an_adapter_holds_the_weights_of_the_model_and_no_copies() -> None:
    for maker in KINDS.values():
        model = maker()
        adapter = adapt(model)
        assert adapter is not None
        held = {name: parameter.data_ptr() for name, parameter in adapter.named_parameters()}
        assert set(held.values()) == {parameter.data_ptr() for parameter in model.parameters()}
        assert not adapter.training


@pytest.mark.parametrize("network", ["MLPMixer1D", "Encoder"])
@pytest.mark.parametrize("stop", ["at once", "some", "never"])
def test_halting_adapter_predicts_what_the_package_predicts(network: str, stop: str) -> None:
    model = make_recursive(network, registers=2)
    ids = torch.randint(20, (16, 9), generator=torch.Generator().manual_seed(3))
    threshold = {"at once": 0.0, "some": halfway(model, ids), "never": 1.1}[stop]
    adapter: Any = adapt(model, max_deep_refinement_steps=5, halt_prob_thres=threshold)
    with torch.no_grad():
        logits, probability = adapter(ids)
    predicted, steps = model.predict(ids, halt_prob_thres=threshold, max_deep_refinement_steps=5)
    assert torch.equal(logits.argmax(-1), predicted)
    assert (probability[steps < 5] >= threshold).all()
    assert len(set(steps.tolist())) > (stop == "some"), "rows stop at different steps"


@pytest.mark.long
@pytest.mark.parametrize("network", ["MLPMixer1D", "Encoder"])
def test_exported_halting_adapter_stops_where_the_package_stops(
    network: str, tmp_path: Path
) -> None:
    model = make_recursive(network, registers=2)
    ids = torch.randint(20, (16, 9), generator=torch.Generator().manual_seed(3))
    threshold = halfway(model, ids)
    adapter: Any = adapt(model, max_deep_refinement_steps=5, halt_prob_thres=threshold)
    loopedge.export(adapter, tmp_path / "model.onnx", inner="loop")
    given = loopedge.Session(tmp_path / "model.onnx", threads=1).run({"input_ids": ids.numpy()})
    predicted, steps = model.predict(ids, halt_prob_thres=threshold, max_deep_refinement_steps=5)
    assert np.array_equal(given["logits"].argmax(-1), predicted.numpy())
    assert np.array_equal(given["iterations"], steps.numpy())
    assert len(set(steps.tolist())) > 1


@pytest.mark.long
def test_a_folder_and_the_model_itself_export_to_the_same_file(tmp_path: Path) -> None:
    model = make_albert("AlbertForMaskedLM")
    model.save_pretrained(tmp_path / "folder")
    loopedge.export(tmp_path / "folder", tmp_path / "folder.onnx")
    loopedge.export(model, tmp_path / "model.onnx")
    first, second = (
        ir.load(tmp_path / f"{name}.onnx").graph.initializers for name in ("folder", "model")
    )
    assert set(first) == set(second)
    for name, value in first.items():
        assert value.const_value is not None
        other = second[name].const_value
        assert other is not None
        assert np.array_equal(value.const_value.numpy(), other.numpy()), name


def halfway(model: Any, ids: Tensor) -> float:
    """Return a probability that half of the rows pass after the first deep refinement."""
    with torch.no_grad():
        embedded, _ = model.embed_inputs_with_registers(ids)
        outputs, _ = model.deep_refinement(embedded, *model.get_initial())
        sorted_ = model.to_halt_pred(outputs).sigmoid().sort().values
    return float(sorted_[len(ids) // 2 - 1 : len(ids) // 2 + 1].mean())


def test_refused_with_one_line() -> None:
    with pytest.raises(InputError, match="2 groups of layers"):
        adapt(make_albert("AlbertModel", loops=4, num_hidden_groups=2))
    with pytest.raises(InputError, match="AlbertForMultipleChoice has no adapter"):
        adapt(make_albert("AlbertForMultipleChoice"))
    with pytest.raises(InputError, match="bfloat16, float32 is needed") as caught:
        adapt(make_hrm_text().bfloat16())
    assert caught.value.hint == "model.float()"
    stretched = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    with pytest.raises(InputError, match="rotary positions of type dynamic"):
        adapt(make_hrm_text(rope_parameters=stretched))
    with pytest.raises(InputError, match="max_deep_refinement_steps is 0"):
        adapt(make_recursive("MLPMixer1D"), max_deep_refinement_steps=0)
    with pytest.raises(InputError, match="Trainer has no adapter"):
        adapt(type("Trainer", (nn.Module,), {"__module__": "tiny_recursive_model.trainer"})())


def test_models_without_an_adapter_are_left_alone() -> None:
    assert adapt(nn.Linear(2, 2)) is None
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
    assert adapt(transformers.BertModel(transformers.BertConfig(vocab_size=9, **sizes))) is None
    adapter = adapt(make_albert("AlbertModel"))
    assert adapter is not None
    assert adapt(adapter) is None


def test_padding_does_not_reach_kept_positions() -> None:
    """What stands at padded positions changes nothing, in the adapter as in the package."""
    model = make_hrm_text()
    adapter: Any = adapt(model)
    tensors = make_tensors(adapter.input_names, Sizes(3, 8), tokens=50, padding="left")
    other = {**tensors, "input_ids": tensors["input_ids"] * tensors["attention_mask"]}
    with torch.no_grad():
        first, second = (adapter(*feeds.values()).numpy() for feeds in (tensors, other))
    kept: Tensor = tensors["attention_mask"].bool()
    assert np.allclose(first[kept], second[kept], atol=1e-5)
    assert relative_error(first, reference(model, tensors)["logits"], kept.long()) < 1e-5
