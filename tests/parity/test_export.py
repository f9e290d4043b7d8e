"""The exported graph against PyTorch, over kinds of models, loop counts, lengths and batches."""

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from onnx.reference import ReferenceEvaluator

import loopedge
from loopedge.errors import InputError, InputLengthWarning, LoopCountWarning, VerificationError
from loopedge.graph.core.unrolling import unroll
from loopedge.graph.core.view import LoopCore, view_core
from loopedge.inference.run import run_file
from loopedge.model.config import LoopedConfig
from loopedge.model.transformer import LoopedTransformer
from loopedge.profiler.options import ProfileOptions
from loopedge.profiler.subjects.pipeline import gather_subjects
from tests.parity.models import (
    KINDS,
    Sizes,
    make_inputs,
    make_model,
    relative_error,
    torch_output,
)

Exporter = Callable[..., Path]
SIZES = [Sizes(1, 1), Sizes(1, 7), Sizes(3, 16), Sizes(5, 2)]


@pytest.mark.filterwarnings("ignore::loopedge.errors.LoopCountWarning")
@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_loop_form_agrees_for_every_length_batch_and_loop_count(
    kind: str, exported: Exporter
) -> None:
    model = make_model(kind)
    session = loopedge.Session(exported(kind, dynamic_loops=True), threads=1)
    for sizes in SIZES:
        tensors, feeds = make_inputs(model, sizes)
        for loops in (1, 2, 3):
            given = session.run(feeds, loops=loops)[model.output_names[0]]
            expected = torch_output(model, tensors, loops)
            assert relative_error(given, expected, feeds.get("attention_mask")) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tokens", "series"])
def test_unrolled_form_agrees(kind: str, exported: Exporter) -> None:
    model = make_model(kind)
    session = loopedge.Session(exported(kind, form="unrolled"), threads=1)
    for sizes in SIZES:
        tensors, feeds = make_inputs(model, sizes)
        given = session.run(feeds)[model.output_names[0]]
        assert relative_error(given, torch_output(model, tensors)) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("opset", [20, 23])
def test_opsets_pass_the_checker_and_the_reference_evaluator(
    opset: int, exported: Exporter
) -> None:
    model = make_model("padded")
    path = exported("padded", opset=opset)
    onnx.checker.check_model(str(path), full_check=True)
    proto = onnx.load(path)
    assert [(item.domain, item.version) for item in proto.opset_import] == [("", opset)]
    reference = ReferenceEvaluator(proto)
    session = loopedge.Session(path, threads=1)
    for sizes in (Sizes(1, 1), Sizes(2, 7), Sizes(3, 11)):
        tensors, feeds = make_inputs(model, sizes)
        (by_reference,) = reference.run(None, feeds)
        expected = torch_output(model, tensors)
        kept = feeds["attention_mask"]
        assert relative_error(np.asarray(by_reference), expected, kept) < 1e-5
        assert relative_error(session.run(feeds)["logits"], expected, kept) < 1e-5


@pytest.mark.slow
def test_opset_20_decomposes_and_23_fuses(exported: Exporter) -> None:
    fused = {node.op_type for node in ir.load(exported("padded", opset=23)).graph.all_nodes()}
    plain = {node.op_type for node in ir.load(exported("padded", opset=20)).graph.all_nodes()}
    assert {"Attention", "RMSNormalization", "Gelu"} <= fused
    assert not {"Attention", "RMSNormalization"} & plain


def test_a_loop_count_past_the_table_is_clamped(exported: Exporter) -> None:
    model = make_model("tokens")
    session = loopedge.Session(exported("tokens", dynamic_loops=True), threads=1)
    _, feeds = make_inputs(model, Sizes(1, 5))
    with pytest.warns(LoopCountWarning, match="99 loops asked for, .* with 3; .* after 3"):
        clamped = session.run(feeds, loops=99)["logits"]
    assert np.array_equal(clamped, session.run(feeds)["logits"])
    with pytest.raises(InputError, match="loops is 0"):
        session.run(feeds, loops=0)


@pytest.mark.slow
def test_another_fixed_loop_count(tmp_path: Path) -> None:
    model = make_model("tokens", loops=3)
    result = loopedge.export(model, tmp_path / "five.onnx", loops=5)
    assert result.loops == 5
    assert "5 loops" in result.notes[0]
    tensors, feeds = make_inputs(model, Sizes(2, 6))
    given = loopedge.Session(result.path).run(feeds)["logits"]
    assert relative_error(given, torch_output(model, tensors, 5)) < 1e-5
    shown = loopedge.inspect(result.path).to_json()
    assert (shown["loops"], shown["trained_loops"]) == (5, 3)


@pytest.mark.slow
def test_weights_are_stored_once_in_the_main_graph_as_in_by_out(exported: Exporter) -> None:
    model = make_model("tokens")
    graph = ir.load(exported("tokens")).graph
    core = view_core(ir.load(exported("tokens")))
    assert isinstance(core, LoopCore)
    assert not core.loop.body.initializers
    shapes = {name: tuple(value.shape or ()) for name, value in graph.initializers.items()}
    assert shapes["core_layers.0.mlp.up.weight"] == (32, 128)
    assert shapes["core_layers.0.mlp.down.weight"] == (128, 32)
    assert shapes["embedding.weight"] == (50, 32)
    stored = sum(
        value.const_value.nbytes for value in graph.initializers.values() if value.const_value
    )
    parameters = sum(
        parameter.numel() * 4
        for name, parameter in model.named_parameters()
        if not name.startswith("timestep.")
    )
    tables = 3 * 32 * 4 * 4
    assert parameters + tables <= stored <= parameters + tables + 256
    for node in ir.load(exported("tokens")).graph.all_nodes():
        if node.op_type == "Transpose":
            assert node.inputs[0] is not None
            assert node.inputs[0].const_value is None, "a stored weight is transposed at run time"


@pytest.mark.slow
@pytest.mark.parametrize("form", ["loop", "unrolled"])
def test_onnxruntime_keeps_one_copy_of_each_weight(
    form: str, exported: Exporter, tmp_path: Path
) -> None:
    """ORT's optimizer folds Transposes of weights into copies; look at what it made."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(str(exported("tokens", form=form)), options)
    source, made = ir.load(exported("tokens", form=form)), ir.load(tmp_path / "optimized.onnx")

    def matrices(model: ir.Model) -> int:
        graphs = [model.graph, *model.graph.subgraphs()]
        return sum(
            value.const_value.nbytes
            for graph in graphs
            for value in graph.initializers.values()
            if value.const_value is not None and len(value.const_value.shape) == 2
        )

    assert matrices(made) <= matrices(source)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["loop", "unrolled"])
def test_the_file_holds_no_paths(form: str, exported: Exporter) -> None:
    content = exported("tokens", form=form).read_bytes()
    for trace in (b"site-packages", b".py", b"/home", b"/root", b"/usr", b"torch.nn", b"pkg."):
        assert trace not in content
    assert str(exported("tokens", form=form).parent).encode() not in content


def test_unrolling_the_loop_form_gives_the_unrolled_form(exported: Exporter) -> None:
    unrolled = unroll(ir.load(exported("tokens")))
    direct = ir.load(exported("tokens", form="unrolled"))
    assert sorted(node.op_type for node in unrolled.graph) == sorted(
        node.op_type for node in direct.graph
    )
    assert view_core(unrolled).form == "unrolled"


@pytest.mark.slow
def test_fully_masked_rows_stay_finite(exported: Exporter) -> None:
    for kind in ("padded", "bidirectional"):
        session = loopedge.Session(exported(kind))
        feeds = {
            "input_ids": np.ones((2, 6), np.int64),
            "attention_mask": np.array([[0] * 6, [1] * 6]),
        }
        assert np.isfinite(session.run(feeds)["logits"]).all()


@pytest.mark.slow
def test_masks_and_causality_hold_in_the_artifact(exported: Exporter) -> None:
    session = loopedge.Session(exported("padded"))
    ids = np.arange(1, 9)[None]
    mask = np.array([[0, 0, 1, 1, 1, 1, 1, 1]])
    first = session.run({"input_ids": ids, "attention_mask": mask})["logits"]
    other = ids.copy()
    other[0, :2] = 40  # padded away
    other[0, 7] = 41  # the future of all but the last position
    second = session.run({"input_ids": other, "attention_mask": mask})["logits"]
    assert np.allclose(first[0, 2:7], second[0, 2:7], atol=1e-5)
    assert not np.allclose(first[0, 7], second[0, 7], atol=1e-3)


def _drop_a_gate(model: ir.Model) -> None:
    for node in model.graph.all_nodes():
        if node.op_type == "Mul" and any("gate_mlp" in (v.name or "") for v in node.inputs if v):
            branch = next(v for v in node.inputs if v and "gate" not in (v.name or ""))
            ir.convenience.replace_all_uses_with(node.outputs[0], branch)
            return
    pytest.fail("the graph has no gate to drop")


def _swap_two_rows(model: ir.Model) -> None:
    value = model.graph.initializers["timestep.norm_attention.0"]
    assert value.const_value is not None
    table = value.const_value.numpy().copy()
    table[[0, 1]] = table[[1, 0]]
    value.const_value = ir.tensor(table, name=value.name)


def _drop_the_causal_mask(model: ir.Model) -> None:
    for node in model.graph.all_nodes():
        if node.op_type == "Attention":
            assert node.attributes["is_causal"].as_int() == 1
            node.attributes["is_causal"] = ir.AttrInt64("is_causal", 0)
            return
    pytest.fail("the graph has no Attention")


@pytest.mark.slow
@pytest.mark.parametrize("mutate", [_drop_a_gate, _swap_two_rows, _drop_the_causal_mask])
@pytest.mark.parametrize("form", ["loop", "unrolled"])
def test_a_broken_core_is_refused_and_leaves_nothing(
    form: str,
    mutate: Callable[[ir.Model], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from loopedge.exporter import assembled, passes

    honest = passes.optimise

    def optimise(graph: ir.Model) -> None:
        honest(graph)
        mutate(graph)

    monkeypatch.setattr(assembled, "optimise", optimise)
    with pytest.raises(VerificationError) as caught:
        loopedge.export(make_model("tokens"), tmp_path / "broken.onnx", form=form)  # type: ignore[arg-type]
    assert caught.value.measured is not None
    assert caught.value.measured > 1e-4
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_an_untrained_core_is_checked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With zero gates every core computes the identity; random rows tell them apart."""
    from loopedge.exporter import assembled, passes
    from loopedge.model.config import LoopedConfig
    from loopedge.model.transformer import LoopedTransformer

    honest = passes.optimise

    def optimise(graph: ir.Model) -> None:
        honest(graph)
        _drop_the_causal_mask(graph)

    monkeypatch.setattr(assembled, "optimise", optimise)
    untrained = LoopedTransformer(LoopedConfig(d_model=32, heads=4, vocab_size=50, max_length=16))
    with pytest.raises(VerificationError, match="random timestep rows"):
        loopedge.export(untrained, tmp_path / "untrained.onnx")


def test_bad_options_are_refused_before_any_work(tmp_path: Path) -> None:
    model, target = make_model("tokens"), tmp_path / "x.onnx"
    for options, text in (
        ({"loops": 0}, "loops is 0"),
        ({"opset": 17}, "opset 17"),
        ({"form": "rolled"}, "form 'rolled'"),
        ({"form": "unrolled", "dynamic_loops": True}, "fixed loop count"),
    ):
        with pytest.raises(InputError, match=text):
            loopedge.export(model, target, **options)
    target.write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        loopedge.export(model, target)
    assert target.read_text() == "mine"


@pytest.mark.slow
def test_what_is_outside_of_training_is_said_by_every_client(tmp_path: Path) -> None:
    """A series model trained at 3 loops, on 4 to 8 positions."""
    config = LoopedConfig(features=1, read="last", loops=3, max_length=8, min_length=4, d_model=32)
    torch.manual_seed(0)
    path = tmp_path / "model.onnx"
    loopedge.export(LoopedTransformer(config), path, dynamic_loops=True)
    stored = loopedge.inspect(path).metadata
    assert (stored["loop_range"], stored["min_length"]) == ([3, 3], 4)
    x = np.random.default_rng(0).standard_normal((1, 8, 1)).astype(np.float32)
    session = loopedge.Session(path)
    session.run(x)
    session.run(x[:, :4], loops=3)
    with pytest.warns(LoopCountWarning, match="1 loop asked for, the model was trained with 3"):
        session.run(x, loops=1)
    with pytest.warns(InputLengthWarning, match="3 positions .* at least 4"):
        session.run(x[:, :3])
    np.savez(tmp_path / "short.npz", inputs=x[:, :3])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # quantize's own runs are no news of the user's
        loopedge.quantize(path, tmp_path / "q.onnx", min_sqnr_db=0)
        several = {"inputs": np.random.default_rng(1).standard_normal((8, 3, 1)).astype(np.float32)}
        result = loopedge.quantize(
            path, tmp_path / "short.onnx", data=several, scheme="dynamic", min_sqnr_db=0
        )
    assert [note for note in result.notes if "3 positions" in note and "at least 4" in note]
    assert run_file(path, tmp_path / "short.npz", loops=2).notes == [
        "2 loops asked for, the model was trained with 3",
        "3 positions to see, the model was trained with at least 4",
    ]
    with tempfile.TemporaryDirectory() as folder:
        options = ProfileOptions(input=tmp_path / "short.npz", loops=2)
        notes = gather_subjects([path], options, Path(folder)).notes
    assert notes == [
        "model.onnx: 2 loops asked for, the model was trained with 3",
        "model.onnx: 3 positions to see, the model was trained with at least 4",
    ]
    np.savez(tmp_path / "long.npz", inputs=np.concatenate([x, x], axis=1))
    with pytest.raises(InputError, match=r"16 positions, .* takes at most 8"):
        run_file(path, tmp_path / "long.npz")
    fixed = loopedge.export(LoopedTransformer(config), tmp_path / "fixed.onnx", loops=1)
    assert fixed.notes == ["1 loop asked for, the model was trained with 3"]
    assert loopedge.Session(fixed.path).notes == fixed.notes


@pytest.mark.slow
def test_the_range_is_what_counts_were_drawn_from(tmp_path: Path) -> None:
    config = LoopedConfig(features=1, loops=5, min_loops=2, max_length=8, d_model=32)
    result = loopedge.export(LoopedTransformer(config), tmp_path / "model.onnx", loops=2)
    assert result.notes == []
    assert loopedge.inspect(result.path).metadata["loop_range"] == [2, 5]
