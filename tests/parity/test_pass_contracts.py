"""Every pass of an export keeps its contract on graphs as they are assembled: valid, the same values, a true report."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn
from torch.nn import functional

import loopedge
from loopedge.errors import InputError
from loopedge.exporter import assembled as station
from loopedge.exporter.float16_weights import round_weights
from loopedge.graph.core.probe import probe
from loopedge.graph.core.unrolling import unroll
from loopedge.graph.core.untied import untie
from loopedge.graph.core.view import view_core
from loopedge.graph.editing import structure
from loopedge.graph.metadata import ArtifactMetadata, write_metadata
from loopedge.graph.passes.attention import expand_masks, merge_head_axes
from loopedge.graph.passes.folding import fold_constants
from loopedge.graph.passes.foreign_weights import normalise_weights
from loopedge.graph.passes.half import compute_in_float16
from loopedge.graph.passes.last_position import keep_last_position
from loopedge.graph.passes.layout import fold_weight_layouts
from loopedge.graph.passes.norms import fold_unit_scales, fuse_rms_norms
from loopedge.graph.passes.simplify import hoist_invariants, simplify_reshapes, tidy
from loopedge.graph.passes.storage import restore_float32, store_float16
from loopedge.graph.passes.table_head import read_table_in_place, turn_scores
from loopedge.graph.positions.coda import select_positions_first
from loopedge.graph.positions.last_iteration import narrow_last_iteration, restore_last_iteration
from loopedge.graph.split.head_groups import split_heads
from loopedge.graph.split.hidden_chunks import split_hidden
from loopedge.model.contract import Tensors
from tests.parity.foreign_files import FOREIGN, write_foreign
from tests.parity.models import ROUNDING, Sizes, make_inputs, make_model
from tests.parity.test_inner_loops import Refiner

pytestmark = pytest.mark.long

Feeds = dict[str, NDArray[Any]]
Pass = Callable[[ir.Model], object]
LOOPS = 2

IN_PLACE: dict[str, Pass] = {
    "fold_weight_layouts": fold_weight_layouts,
    "simplify_reshapes": simplify_reshapes,
    "fold_unit_scales": fold_unit_scales,
    "fold_constants": fold_constants,
    "fuse_rms_norms": fuse_rms_norms,
    "expand_masks": expand_masks,
    "merge_head_axes": merge_head_axes,
    "hoist_invariants": hoist_invariants,
    "tidy": tidy,
    "select_positions_first": select_positions_first,
    "split_hidden": lambda model: split_hidden(model, least_width=16, least_bytes=0),
    "split_heads": lambda model: split_heads(model, length=256, least_width=8),
    "narrow_last_iteration": lambda model: narrow_last_iteration(model).applied,
    "read_table_in_place": lambda model: read_table_in_place(model, least_bytes=0),
    "turn_scores": turn_scores,
    "restore_last_iteration": restore_last_iteration,
    "store_float16": store_float16,
    "restore_float32": restore_float32,
}
"""In the order of an export, what undoes a step behind it."""

COPYING: dict[str, Callable[[ir.Model], ir.Model]] = {
    "unroll": unroll,
    "untie": untie,
    "probe": lambda model: probe(model, view_core(model).states),
    "compute_in_float16": compute_in_float16,
}

SUBJECTS = ("tokens", "bidirectional", "series", "inner", "spelled", "opset 20")


class Spelled(loopedge.LoopedModule):
    """Norms without weights, norms that are written out, a mask of one row for all queries; a coda that reads one position in the end."""

    input_names = ("inputs",)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.loops = LOOPS
        self.mix, self.head = nn.Linear(8, 8), nn.Linear(8, 3)
        self.scale = nn.Parameter(torch.rand(8))

    def example_inputs(self) -> tuple[Tensor]:
        return (torch.randn(2, 7, 8, generator=torch.Generator().manual_seed(0)),)

    def prelude(self, *inputs: Tensor) -> tuple[Tensors, Tensors]:
        return inputs[0], inputs[0][..., 0] > -1  # positions that are attended to

    def core(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        assert isinstance(state, Tensor)
        assert isinstance(context, Tensor)
        x = state * torch.rsqrt(state.pow(2).mean(-1, keepdim=True) + 1e-6) * self.scale
        heads = x.reshape(*x.shape[:-1], 2, 4).transpose(1, 2)
        read = functional.scaled_dot_product_attention(
            heads, heads, heads, attn_mask=context[:, None, None, :]
        )
        mixed: Tensor = self.mix(read.transpose(1, 2).flatten(2))
        return functional.layer_norm(state + mixed, (8,))

    def coda(self, state: Tensors, context: Tensors) -> Tensors:
        assert isinstance(state, Tensor)
        scores: Tensor = self.head(torch.tanh(state))
        return scores[:, 0]


def subject(name: str) -> tuple[Any, Feeds]:
    if name == "spelled":
        spelled = Spelled().eval()
        return spelled, {"inputs": spelled.example_inputs()[0].numpy()}
    if name == "inner":
        model = Refiner(loops=LOOPS).eval()
        return model, {"inputs": model.example_inputs()[0].numpy()}
    made = make_model("tokens" if name == "opset 20" else name, loops=LOOPS)
    return made, make_inputs(made, Sizes(2, 6))[1]


class _AssembledError(Exception):
    """Ends an export before the passes."""


def assembled(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[ir.Model, Feeds]:
    """Return the loop form as it is before any pass, with weights that float16 holds."""
    model, feeds = subject(name)
    taken: list[ir.Model] = []

    def stop(graph: ir.Model) -> None:
        taken.append(graph)
        raise _AssembledError

    with monkeypatch.context() as patched:
        patched.setattr(station, "optimise", stop)
        with pytest.raises(_AssembledError):
            loopedge.export(
                round_weights(model).module,
                folder / "model.onnx",
                inner="loop",
                opset=20 if name == "opset 20" else 23,
            )
    (graph,) = taken
    metadata = ArtifactMetadata(version="0", form="loop", loops=LOOPS, trained_loops=LOOPS)
    write_metadata(metadata, graph.metadata_props)
    return graph, feeds


def evaluate(model: ir.Model, feeds: Feeds) -> list[NDArray[Any]]:
    """Run a valid graph: by onnx's own evaluator, or where it holds operators of ONNX Runtime there."""
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    if any(node.domain for node in model.graph.all_nodes()):
        return list(ort.InferenceSession(proto.SerializeToString()).run(None, feeds))
    outputs: Any = ReferenceEvaluator(proto).run(None, feeds)
    return [np.asarray(output) for output in outputs]


@pytest.mark.parametrize("name", SUBJECTS)
def test_passes_keep_the_values_and_tell_whether_they_changed_the_graph(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, feeds = assembled(name, tmp_path, monkeypatch)
    before = evaluate(model, feeds)
    for step, one_pass in IN_PLACE.items():
        was = structure(model)
        changed = bool(one_pass(model))
        assert changed == (structure(model) != was), step
        for given, expected in zip(evaluate(model, feeds), before, strict=True):
            assert np.abs(given - expected).max() <= ROUNDING * np.abs(expected).max(), step
        settled = structure(model)
        assert not one_pass(model), f"{step} changes what it changed already"
        assert structure(model) == settled, step


def test_each_pass_has_something_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the test above would show nothing of it."""
    busy = set()
    for name in SUBJECTS:
        model, _ = assembled(name, tmp_path, monkeypatch)
        busy |= {step for step, one_pass in IN_PLACE.items() if one_pass(model)}
    assert busy == IN_PLACE.keys()


@pytest.mark.parametrize("step", COPYING)
@pytest.mark.parametrize("name", ["tokens", "inner"])
def test_what_returns_a_graph_leaves_its_own_as_it_is(
    name: str, step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, feeds = assembled(name, tmp_path, monkeypatch)
    for one_pass in list(IN_PLACE.values())[:10]:
        one_pass(model)
    before, was = evaluate(model, feeds), structure(model)
    made = COPYING[step](model)
    assert structure(model) == was
    assert made is not model
    close = 1e-2 if step == "compute_in_float16" else ROUNDING
    for given, expected in zip(evaluate(made, feeds), before, strict=False):
        assert np.abs(given - expected).max() <= close * np.abs(expected).max()


def test_the_last_position_is_taken_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, feeds = assembled("tokens", tmp_path, monkeypatch)
    (whole,) = evaluate(model, feeds)
    assert keep_last_position(model) == ["logits"]
    (last,) = evaluate(model, feeds)
    assert np.array_equal(last, whole[:, -1:])
    settled = structure(model)
    with pytest.raises(InputError, match="no output has a value per position"):
        keep_last_position(model)
    assert structure(model) == settled


@pytest.mark.parametrize("name", FOREIGN)
def test_weights_of_other_tools_are_normalised_once(name: str, tmp_path: Path) -> None:
    model = ir.load(write_foreign(name, tmp_path / "other.onnx"))
    for place, node in enumerate(model.graph.all_nodes()):
        node.name = f"{node.op_type}.{place}"  # as `Artifact.open` does
    feeds = {"x": np.random.default_rng(0).normal(size=(2, 5, 32)).astype(np.float32)}
    before, was = evaluate(model, feeds), structure(model)
    assert normalise_weights(model) == (structure(model) != was)
    close = 1e-2 if name == "float16" else ROUNDING
    for given, expected in zip(evaluate(model, feeds), before, strict=True):
        assert np.abs(given - expected).max() <= close * np.abs(expected).max()
    settled = structure(model)
    assert not normalise_weights(model)
    assert structure(model) == settled
