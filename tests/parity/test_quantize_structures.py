"""Quantization of cores that are built otherwise: shared weights, linears of the context, foreign Loops."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import loopedge
from loopedge.errors import BudgetError, InputError
from loopedge.graph.weights import linears
from loopedge.model.contract import LoopedModule, Tensors, as_tuple
from tests.parity.models import SEVEN_BITS, make_model, seven_bits

pytestmark = pytest.mark.long

Exporter = Callable[..., Path]
SCHEMES = ("static", "dynamic", "weight-int8", "weight-int4")
FORMS: tuple[Literal["loop", "unrolled"], ...] = ("loop", "unrolled")
D = 32


class Injected(LoopedModule):
    """Applies one linear twice and reads the context through another, in every iteration."""

    loops = 3
    input_names = ("inputs",)
    output_names = ("outputs",)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.input, self.head = nn.Linear(8, D), nn.Linear(D, 4)
        self.twice, self.injected = (nn.Linear(D, D, bias=False) for _ in range(2))

    def prelude(self, *inputs: Tensor) -> tuple[Tensors, Tensors]:
        embedded = torch.tanh(self.input(inputs[0]))
        return embedded, 1.5 * torch.sin(embedded)

    def core(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        (x,), (given,) = as_tuple(state), as_tuple(context)
        y = torch.tanh(self.twice(torch.tanh(self.twice(x)) * row["scale"]))
        return torch.tanh(x + y + self.injected(given))

    def coda(self, state: Tensors, context: Tensors) -> Tensors:
        outputs: Tensor = self.head(as_tuple(state)[0])
        return outputs

    def timestep_table(self, loops: int) -> dict[str, Tensor]:
        return {"scale": torch.linspace(0.5, 1.5, loops)[:, None].expand(loops, D).contiguous()}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).normal(size=(24, 6, 8)).astype(np.float32)
    np.savez(tmp_path / "x.npz", inputs=values)
    return tmp_path / "x.npz"


@pytest.fixture
def injected(tmp_path: Path) -> Callable[[Literal["loop", "unrolled"]], Path]:
    def export(form: Literal["loop", "unrolled"]) -> Path:
        path = tmp_path / f"{form}.onnx"
        loopedge.export(Injected().eval(), path, form=form, example=(torch.randn(2, 6, 8),))
        return path

    return export


def outputs(path: Path, data: Path) -> NDArray[Any]:
    with np.load(data) as arrays:
        (found,) = loopedge.Session(path).run(dict(arrays)).values()
    return found


@pytest.mark.long
@pytest.mark.parametrize("form", FORMS)
def test_shared_weights_and_linears_of_the_context(
    form: Literal["loop", "unrolled"],
    injected: Callable[[Literal["loop", "unrolled"]], Path],
    data: Path,
    tmp_path: Path,
) -> None:
    source, target = injected(form), tmp_path / "q.onnx"
    exact = outputs(source, data)
    for scheme in SCHEMES:
        result = loopedge.quantize(
            source, target, data=data, scheme=scheme, force=True, **seven_bits(scheme)
        )
        assert result.matmuls["skipped"] == []
        error = np.linalg.norm(outputs(target, data) - exact) / np.linalg.norm(exact)
        assert error < (0.2 if scheme == "weight-int4" else 0.03)
        # A linear of the context runs once, outside the core; the shared one stands there twice.
        assert len(result.sqnr_db_linears) == 2
    stored = [item.weight.name for item in linears(ir.load(source))]
    twice = next(name for name in stored if stored.count(name) > 1)
    node = next(item.node.name for item in linears(ir.load(source)) if item.weight.name == twice)
    kept = loopedge.quantize(
        source, target, data=data, scheme="static", keep=[node or ""], force=True, **SEVEN_BITS
    )
    assert len(kept.matmuls["skipped"]) == stored.count(twice)
    whole = loopedge.quantize(
        source, target, data=data, scheme="dynamic", max_drop=1.0, force=True, **SEVEN_BITS
    )
    assert whole.budget is not None
    tight = loopedge.quantize(
        source,
        target,
        data=data,
        scheme="dynamic",
        max_drop=0.4 * whole.budget.loss,
        keep=[node or ""],
        force=True,
        **SEVEN_BITS,
    )
    assert tight.budget is not None
    assert tight.budget.loss <= 0.4 * whole.budget.loss


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_loop_that_another_tool_wrote(scheme: str, tmp_path: Path) -> None:
    """Names of its own, no names of nodes at all, a weight of zeros behind the loop."""
    generator = np.random.default_rng(0)
    weights = {
        name: (generator.normal(size=(D, D)) / np.sqrt(D)).astype(np.float32) for name in ("a", "b")
    }
    weights["b"][:, : D // 2] = 0
    text = f"""<ir_version: 10, opset_import: ["": 21]>
    other (float[B, S, {D}] x, float[{D}, {D}] a, float[{D}, {D}] b) => (float[B, S, {D}] y)
    <int64 n = {{4}}, bool go = {{1}}> {{
      z = Loop (n, go, x) <body = step (int64 i, bool c, float[B, S, {D}] before)
        => (bool d, float[B, S, {D}] after) {{
          d = Identity (c)
          p = MatMul (before, a)
          after = Tanh (p)
      }}>
      y = MatMul (z, b)
    }}"""
    model = ir.from_onnx_text(text)
    for value in [model.graph.inputs.pop() for _ in weights]:
        value.const_value = ir.tensor(weights[value.name or ""], name=value.name)
        model.graph.register_initializer(value)
    ir.save(model, tmp_path / "other.onnx")
    np.savez(tmp_path / "x.npz", x=generator.normal(size=(16, 5, D)).astype(np.float32))
    result = loopedge.quantize(
        tmp_path / "other.onnx",
        tmp_path / "q.onnx",
        data=tmp_path / "x.npz",
        scheme=scheme,
        **seven_bits(scheme),
    )
    assert result.matmuls["quantized"] == 2
    assert len(result.sqnr_db_linears) == 1
    assert len(result.sqnr_db_per_iteration) == 4
    assert result.sqnr_db > (12 if scheme == "weight-int4" else 28)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["tokens", "plain"])
def test_budgets_of_models_with_selectable_loops(kind: str, tmp_path: Path) -> None:
    source, target = tmp_path / "dynamic.onnx", tmp_path / "q.onnx"
    loopedge.export(make_model(kind), source, dynamic_loops=True)
    np.savez(tmp_path / "x.npz", input_ids=np.random.default_rng(0).integers(0, 50, (24, 12)))
    for scheme, data in (("dynamic", None), ("static", tmp_path / "x.npz")):
        options: dict[str, Any] = {"data": data, "scheme": scheme, "force": True, **SEVEN_BITS}
        options["metric"] = "relative-error"
        whole = loopedge.quantize(source, target, max_drop=1.0, **options)
        assert whole.budget is not None
        drop = 0.7 * whole.budget.loss
        result = loopedge.quantize(source, target, max_drop=drop, **options)
        assert result.budget is not None
        assert result.budget.lifted
        assert result.budget.loss <= drop


def test_an_embedding_table_is_lifted_where_it_takes_that(
    exported: Exporter, tmp_path: Path
) -> None:
    source, target = exported("plain"), tmp_path / "q.onnx"
    np.savez(tmp_path / "x.npz", input_ids=np.random.default_rng(0).integers(0, 50, (24, 12)))
    options: dict[str, Any] = {"data": tmp_path / "x.npz", "scheme": "static", "force": True}
    options |= SEVEN_BITS
    whole = loopedge.quantize(source, target, max_drop=1.0, **options)
    assert whole.budget is not None
    result = loopedge.quantize(source, target, max_drop=0.1 * whole.budget.loss, **options)
    assert result.budget is not None
    assert ("embedding.weight", "float") in [(i.name, i.level) for i in result.budget.lifted]
    assert result.embeddings["quantized"] == 0


def test_what_is_weight_only_already_is_not_lifted(exported: Exporter, tmp_path: Path) -> None:
    source, target = exported("tokens", form="unrolled"), tmp_path / "q.onnx"
    options: dict[str, Any] = {
        "scheme": "dynamic",
        "weight_only": ["core.0/linear_5"],
        **SEVEN_BITS,
    }
    whole = loopedge.quantize(source, target, max_drop=1.0, **options)
    assert whole.budget is not None
    drop = 0.5 * whole.budget.loss
    result = loopedge.quantize(source, target, max_drop=drop, force=True, **options)
    assert result.budget is not None
    assert "core/linear_5" not in [item.name for item in result.budget.lifted]


def test_files_and_data_that_cannot_be_used(exported: Exporter, tmp_path: Path) -> None:
    source, target = exported("tokens"), tmp_path / "q.onnx"
    ids = np.random.default_rng(0).integers(0, 50, (24, 12))
    data = tmp_path / "x.npz"
    np.savez(data, input_ids=ids)
    np.savez(tmp_path / "none.npz", input_ids=ids[:0])
    before = source.read_bytes()
    cases: list[tuple[dict[str, Any], str]] = [
        ({"data": data, "save_ranges": source, "force": True}, "is also a file of MODEL"),
        ({"data": data, "save_ranges": target}, "is also a file of path"),
        ({"scheme": "weight-int8", "data": tmp_path / "none.npz"}, "no sample"),
        ({"scheme": "dynamic", "data": tmp_path / "missing.npz"}, "does not exist"),
        ({"scheme": "dynamic", "save_ranges": tmp_path / "r.json"}, "takes and gives no ranges"),
        ({"scheme": "weight-int8", "block_size": 0}, "block size 0"),
        ({"min_sqnr_db": float("nan")}, "not a number"),
    ]
    for options, words in cases:
        with pytest.raises(InputError, match=words):
            loopedge.quantize(source, target, **options)
        assert not target.exists()
    assert source.read_bytes() == before


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("budget", [{}, {"max_drop": 0.5, "metric": "relative-error"}])
def test_values_that_are_not_finite_are_named(
    scheme: str, budget: dict[str, Any], exported: Exporter, tmp_path: Path
) -> None:
    values = np.random.default_rng(0).normal(size=(24, 12, 2)).astype(np.float32)
    values[10, 3] = np.nan
    np.savez(tmp_path / "x.npz", inputs=values)
    with pytest.raises(InputError, match=r"inputs: sample 11, position 4, column 1 is nan"):
        loopedge.quantize(
            exported("series"),
            tmp_path / "q.onnx",
            data=tmp_path / "x.npz",
            scheme=scheme,
            **budget,
        )
    assert not (tmp_path / "q.onnx").exists()


def test_a_budget_looks_at_as_many_samples_as_asked(exported: Exporter, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", input_ids=np.random.default_rng(0).integers(0, 50, (60, 12)))
    result = loopedge.quantize(
        exported("tokens"),
        tmp_path / "q.onnx",
        data=tmp_path / "x.npz",
        scheme="static",
        samples=20,
        max_drop=0.5,
    )
    assert result.budget is not None
    assert (result.budget.samples, result.samples) == (
        15,
        20,
    )  # every fourth of 60 judges, 20 of 45 calibrate


class Products(LoopedModule):
    """Multiplies by weights in ways that are not linears; the convolution and the gated weight become some."""

    loops = 2
    input_names = ("inputs",)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.plain = nn.Linear(D, D)
        self.heads = nn.Parameter(torch.randn(D, 4, D // 4) / 8)
        self.experts = nn.Parameter(torch.randn(2, D, D) / 8)
        self.gated, self.gate = nn.Parameter(torch.randn(D, D) / 8), nn.Parameter(torch.rand(D))
        self.mixed = nn.Conv1d(D, D, 3, padding=1)
        self.recurrent = nn.GRU(D, D, batch_first=True)

    def example_inputs(self) -> tuple[Tensor, ...]:
        return (torch.randn(2, 7, D, generator=torch.Generator().manual_seed(0)),)

    def prelude(self, *inputs: Tensor) -> tuple[Tensors, Tensors]:
        return inputs[0], ()

    def core(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        (x,) = as_tuple(state)
        y = torch.einsum("bsd,dhk->bshk", x, self.heads).flatten(2)
        y = y + (x[:, None] @ self.experts).sum(1) + x @ (self.gated * self.gate)
        return torch.tanh(self.plain(y) + self.mixed(x.transpose(1, 2)).transpose(1, 2))

    def coda(self, state: Tensors, context: Tensors) -> Tensors:
        outputs: Tensor = self.recurrent(as_tuple(state)[0])[0]
        return outputs


def test_products_that_stay_in_float_are_reported(tmp_path: Path) -> None:
    source = loopedge.export(Products().eval(), tmp_path / "model.onnx").path
    with pytest.raises(
        BudgetError, match=r"3 of 5 linears of the core .* first skipped: core/einsum"
    ):
        loopedge.quantize(source, tmp_path / "int8.onnx", **SEVEN_BITS)
    result = loopedge.quantize(source, tmp_path / "int8.onnx", min_coverage=0, **SEVEN_BITS)
    reasons = {item["name"].partition("_")[0]: item["reason"] for item in result.matmuls["skipped"]}
    assert (result.matmuls["quantized"], result.matmuls["total"]) == (3, 6)
    assert any("Einsum has no int8 form" in reason for reason in reasons.values())
    assert any("GRU has no int8 form" in reason for reason in reasons.values())
    assert any("more than two dimensions" in reason for reason in reasons.values())
    shown = loopedge.inspect(result.path).int8
    assert (shown.quantized, shown.total) == (3, 6)
