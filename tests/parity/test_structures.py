"""The looped structures of the field (examples/models) through export, against PyTorch."""

from collections.abc import Callable
from dataclasses import dataclass
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
from examples import bring_your_own
from examples.models import (
    hrm_like,
    huginn_like,
    loopformer_like,
    ouro_like,
    parcae_like,
    relaxed_recursive_like,
    universal_transformer_like,
)
from loopedge.graph.core.unrolling import unroll
from loopedge.graph.core.view import LoopCore, view_core
from loopedge.graph.metadata import read_metadata, write_metadata
from loopedge.graph.passes.simplify import tidy
from loopedge.graph.weights import TABLE_PREFIX
from loopedge.model.contract import LoopedModule, Tensors, as_tuple
from loopedge.quantizer.activations.smoothing import smoothable
from tests.parity.models import relative_error

pytestmark = pytest.mark.long

Written = Callable[..., Path]


@dataclass(frozen=True)
class Structure:
    """A factory, and the parameters of its module that reach the graph as tables or not at all."""

    make: Callable[[], LoopedModule]
    in_tables: tuple[str, ...] = ()


STRUCTURES = {
    "bring_your_own": Structure(bring_your_own.make, ("step.weight",)),
    "hrm": Structure(hrm_like.make, ("steps",)),
    "trm": Structure(hrm_like.make_trm, ("steps",)),
    "huginn": Structure(huginn_like.make),
    "loopformer": Structure(loopformer_like.make, ("conditioning.",)),
    "ouro": Structure(ouro_like.make),
    "parcae": Structure(parcae_like.make),
    "relaxed_recursive": Structure(relaxed_recursive_like.make, (".a", ".b")),
    "universal_transformer": Structure(universal_transformer_like.make),
}


def slow_but(*quick: str) -> list[Any]:
    """Return the structures as parameters: all but ``quick`` ones are left out of make test-fast."""
    return [
        name if name in quick else pytest.param(name, marks=pytest.mark.long) for name in STRUCTURES
    ]


LOOP_FORMS = slow_but("universal_transformer", "hrm")
OTHERS = slow_but("universal_transformer")
HALTING = ("ouro", "universal_transformer")
SIZES = [(1, 1), (1, 9), (3, 7), (5, 2)]


@cache
def made(name: str) -> LoopedModule:
    """Return the model with norms that are not the identity, and with no halting."""
    model = STRUCTURES[name].make()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    if name in HALTING:
        setattr(model, "halt", None)  # noqa: B010  mypy knows it as a method
    return model


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Export a structure once per session: ``written("ouro", form="loop", loops=2)``."""
    folder = tmp_path_factory.mktemp("structures")

    @cache
    def export(name: str, **options: Any) -> Path:
        path = folder / ("-".join([name, *map(str, options.values())]) + ".onnx")
        model = made(name)
        loopedge.export(model, path, example=examples_of(model), **options)
        return path

    return export


def examples_of(model: nn.Module) -> tuple[Tensor, ...]:
    inputs = getattr(model, "example_inputs")()  # noqa: B009  an optional part of the contract
    return tuple(inputs)


def inputs_of(model: LoopedModule, batch: int, sequence: int) -> tuple[Tensor, ...]:
    """Return inputs like the example's, of another size and with other values."""
    generator = torch.Generator().manual_seed(batch * 100 + sequence)
    tensors = []
    for like in examples_of(model):
        shape = (batch, sequence, *like.shape[2:])
        if like.is_floating_point():
            tensors.append(torch.randn(shape, generator=generator) * like.std())
        else:
            tensors.append(torch.randint(0, int(like.max()) + 1, shape, generator=generator))
    return tuple(tensors)


def assert_agrees(path: Path, model: LoopedModule, loops: int | None) -> None:
    session = loopedge.Session(path, threads=1)
    for batch, sequence in SIZES:
        tensors = inputs_of(model, batch, sequence)
        feeds = {
            name: tensor.numpy()
            for name, tensor in zip(model.input_names, tensors, strict=True)  # type: ignore[arg-type]
        }
        with torch.no_grad():
            expected = as_tuple(model(*tensors, loops=loops))
        given = session.run(feeds)
        for name, want in zip(model.output_names, expected, strict=True):  # type: ignore[arg-type]
            assert relative_error(given[name], want.numpy()) < 1e-4, (batch, sequence)


def unrolled(path: Path, folder: Path) -> Path:
    """Write the unrolled form of a loop form, as export does once it has the loop form."""
    graph = unroll(ir.load(path), 2)
    tidy(graph)
    metadata = read_metadata(graph.metadata_props)
    assert not metadata.foreign
    write_metadata(metadata.model_copy(update={"form": "unrolled"}), graph.metadata_props)
    ir.save(graph, folder / "unrolled.onnx")
    return folder / "unrolled.onnx"


def matrix_bytes(model: ir.Model, *, tables: bool) -> int:
    """Return the bytes of initializers of two and more dimensions, in all graphs."""
    return sum(
        value.const_value.nbytes
        for graph in (model.graph, *model.graph.subgraphs())
        for name, value in graph.initializers.items()
        if value.const_value is not None
        and len(value.const_value.shape) >= 2
        and (tables or not name.startswith(TABLE_PREFIX))
    )


def initializer_bytes(model: ir.Model) -> tuple[int, int]:
    """Return the bytes of all initializers of the main graph but tables, and of the tables."""
    held = {
        name: value.const_value.nbytes
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
    }
    tables = sum(size for name, size in held.items() if name.startswith(TABLE_PREFIX))
    return sum(held.values()) - tables, tables


@pytest.mark.parametrize("name", LOOP_FORMS)
def test_the_loop_form_agrees_at_every_size(name: str, written: Written) -> None:
    assert_agrees(written(name, form="loop", loops=2), made(name), loops=2)


@pytest.mark.parametrize("name", LOOP_FORMS)
def test_the_unrolled_form_agrees_at_every_size(
    name: str, written: Written, tmp_path: Path
) -> None:
    path = unrolled(written(name, form="loop", loops=2), tmp_path)
    assert_agrees(path, made(name), loops=2)


def test_export_writes_the_unrolled_form(written: Written) -> None:
    name = "universal_transformer"
    assert_agrees(written(name, form="unrolled", loops=2), made(name), loops=2)


@pytest.mark.long
@pytest.mark.parametrize("name", ["huginn", "universal_transformer"])
def test_opset_20_agrees_at_every_size(name: str, written: Written) -> None:
    """Grouped queries and norms are decomposed there."""
    assert_agrees(written(name, form="loop", loops=2, opset=20), made(name), loops=2)


@pytest.mark.parametrize("name", LOOP_FORMS)
def test_weights_are_stored_once_and_outside_the_body(name: str, written: Written) -> None:
    graph = ir.load(written(name, form="loop", loops=2))
    assert view_core(graph).form == "loop"
    assert not any(subgraph.initializers for subgraph in graph.graph.subgraphs())
    used = sum(
        parameter.numel() * parameter.element_size()
        for parameter_name, parameter in made(name).named_parameters()
        if parameter.dim() >= 2
        and not parameter_name.startswith(STRUCTURES[name].in_tables)
        and not parameter_name.endswith(STRUCTURES[name].in_tables)
    )
    assert matrix_bytes(graph, tables=False) == used
    for node in graph.graph.all_nodes():
        if node.op_type == "Transpose":
            assert node.inputs[0] is not None
            assert node.inputs[0].const_value is None, "a stored weight is transposed at run time"


@pytest.mark.parametrize("name", OTHERS)
def test_the_loop_form_is_flat_in_the_loop_count(name: str, written: Written) -> None:
    short, long = (ir.load(written(name, form="loop", loops=loops)) for loops in (2, 12))
    assert len(list(short.graph.all_nodes())) == len(list(long.graph.all_nodes()))
    (weights, tables), (weights_long, tables_long) = map(initializer_bytes, (short, long))
    assert weights == weights_long
    assert tables_long == 6 * tables
    assert_agrees(written(name, form="loop", loops=12), made(name), loops=12)


@pytest.mark.parametrize("name", LOOP_FORMS)
def test_nothing_of_the_body_waits_to_be_hoisted(name: str, written: Written) -> None:
    """No shape arithmetic and nothing that is equal in every iteration is left in the body."""
    core = view_core(ir.load(written(name, form="loop", loops=2)))
    assert isinstance(core, LoopCore)
    body = core.loop.body
    made_here = {*body.inputs, *(output for node in body for output in node.outputs)}
    for node in body:
        assert node.op_type not in {"Shape", "Size", "ConstantOfShape", "Constant"}, node.name
        assert any(value in made_here for value in node.inputs), node.name


@pytest.mark.parametrize("form", ["loop", "unrolled"])
@pytest.mark.parametrize("name", LOOP_FORMS)
def test_onnxruntime_keeps_one_copy_of_each_weight(
    name: str, form: str, written: Written, tmp_path: Path
) -> None:
    path = written(name, form="loop", loops=2)
    if form == "unrolled":
        path = unrolled(path, tmp_path)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(str(path), options)
    source, optimised = ir.load(path), ir.load(tmp_path / "optimized.onnx")
    assert matrix_bytes(optimised, tables=True) <= matrix_bytes(source, tables=True)


@pytest.mark.filterwarnings("ignore::loopedge.errors.LoopCountWarning")
@pytest.mark.long
def test_the_loop_count_can_be_an_input(tmp_path: Path) -> None:
    model = made("parcae")
    path = tmp_path / "dynamic.onnx"
    loopedge.export(model, path, example=examples_of(model), dynamic_loops=True)
    session = loopedge.Session(path, threads=1)
    tensors = inputs_of(model, 2, 6)
    feeds = {
        name: tensor.numpy()
        for name, tensor in zip(model.input_names, tensors, strict=True)  # type: ignore[arg-type]
    }
    for loops in (1, 3, 4, 9):
        with torch.no_grad():
            (expected,) = as_tuple(model(*tensors, loops=min(loops, model.loops)))
        assert relative_error(session.run(feeds, loops=loops)["logits"], expected.numpy()) < 1e-4


class PooledTwice(LoopedModule):
    """Core and coda both hold two Unsqueezes in a row, for which one constant is made in each."""

    loops = 2
    input_names = ("inputs",)
    output_names = ("outputs",)

    def prelude(self, *inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return inputs[0] * 1.5, ()

    def core(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensor:
        (x,) = as_tuple(state)
        return torch.tanh(x + x.mean((1, 2))[:, None, None])

    def coda(self, state: Tensors, context: Tensors) -> Tensor:
        (x,) = as_tuple(state)
        return x - x.mean((1, 2))[:, None, None]

    def example_inputs(self) -> tuple[Tensor, ...]:
        return (torch.randn(2, 7, 8, generator=torch.Generator().manual_seed(0)),)


def test_constants_of_body_and_graph_keep_their_names_apart(tmp_path: Path) -> None:
    model = PooledTwice().eval()
    loopedge.export(model, tmp_path / "pooled.onnx", example=model.example_inputs())
    assert_agrees(tmp_path / "pooled.onnx", model, loops=2)


def test_what_grouped_queries_give_is_not_smoothed(written: Written) -> None:
    """A value head serves two query heads there: its columns cannot take the division."""
    model = ir.load(written("huginn", form="loop", loops=2))
    named = {value.name for group in smoothable(model).values() for value, _ in group.divided}
    assert not named


@pytest.mark.long
def test_what_a_value_head_of_each_query_head_gives_is_smoothed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = huginn_like.HuginnLike(kv_heads=4, loops=2).eval()
    loopedge.export(model, tmp_path / "model.onnx")
    groups = smoothable(ir.load(tmp_path / "model.onnx")).values()
    assert {value.name for group in groups for value, _ in group.divided}


def test_the_same_noise_gives_the_same_logits_and_other_noise_others() -> None:
    model = huginn_like.make()
    ids, noise = examples_of(model)
    assert abs(float(noise.std()) / model.random_inputs["initial_state"] - 1) < 0.2
    assert all(map(torch.equal, examples_of(model), (ids, noise)))
    with torch.no_grad():
        assert torch.equal(model(ids, noise), model(ids, noise))
        assert not torch.allclose(model(ids, noise), model(ids, -noise), atol=1e-3)


def test_loopformer_rows_depend_on_the_step_size() -> None:
    model = loopformer_like.make()
    two, four = model.timestep_table(2), model.timestep_table(4)
    assert not torch.allclose(two["0.gate_mlp"][0], four["0.gate_mlp"][0])


def test_halting_positions_weigh_their_states_to_one() -> None:
    model = universal_transformer_like.make()
    ids, *_ = inputs_of(model, 3, 8)
    rows = model.timestep_table(12)["step"]
    state, context = model.prelude(ids)
    with torch.no_grad():
        for row in rows:
            state = model.core(state, context, {"step": row})
    assert torch.allclose(state[1], torch.ones(3, 8))


def _eager(name: str) -> LoopedModule:
    """Return a halting structure whose rows leave at different loops."""
    model = STRUCTURES[name].make()
    model.loops = 12
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name in {"exit_gate.weight", "ponder.weight"}:
                parameter.mul_(6)
            elif parameter_name in {"exit_gate.bias", "ponder.bias"}:
                parameter.sub_(1)
    return model


def _loops_taken(model: Any, inputs: tuple[Tensor, ...]) -> list[int]:
    """Count per row the loops until it halts, running the contract by hand."""
    rows = {name: values.unbind(0) for name, values in model.timestep_table(model.loops).items()}
    taken = [model.loops] * len(inputs[0])
    state, context = model.prelude(*inputs)
    for t in range(model.loops):
        previous = state
        state = model.core(state, context, {name: values[t] for name, values in rows.items()})
        for i, done in enumerate(model.halt(state, previous).tolist()):
            taken[i] = min(taken[i], t + 1) if done else taken[i]
    return taken


@pytest.mark.parametrize("name", HALTING)
def test_rows_halt_at_different_loops_and_as_they_would_alone(name: str) -> None:
    model = _eager(name)
    inputs = inputs_of(model, 6, 5)
    with torch.no_grad():
        taken = _loops_taken(model, inputs)
        assert len(set(taken)) > 1
        assert min(taken) < model.loops
        together = model(*inputs)
        alone = torch.cat([model(*(x[i : i + 1] for x in inputs)) for i in range(6)])
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("name", [pytest.param("ouro", marks=pytest.mark.long), HALTING[1]])
def test_the_exported_loop_halts_as_pytorch_does(name: str, tmp_path: Path) -> None:
    model = _eager(name)
    path = tmp_path / "halting.onnx"
    loopedge.export(model, path, example=examples_of(model))
    session = loopedge.Session(path, threads=1)
    for batch, sequence in [(1, 5), (6, 5), (4, 1)]:
        inputs = inputs_of(model, batch, sequence)
        with torch.no_grad():
            expected = model(*inputs).numpy()
        given = session.run({"input_ids": inputs[0].numpy()})
        assert relative_error(given["logits"], expected) < 1e-4
        with torch.no_grad():
            alone = _loops_taken(model, inputs)
        assert given["iterations"].tolist() == alone
        assert min(alone) < model.loops
        with torch.no_grad():
            never = made(name)(*inputs, loops=model.loops).numpy()
        assert not np.allclose(expected, never, atol=1e-4)
