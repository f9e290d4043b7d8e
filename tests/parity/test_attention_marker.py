"""`loopedge.attention`: windows, soft caps and grouped heads in PyTorch, in files of every form, and with a cache."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

import loopedge
from loopedge.errors import InputError
from loopedge.model.contract import Tensors
from tests.parity.models import ROUNDING, relative_error

WIDTH, HEADS, GROUPS, VOCABULARY = 32, 4, 2, 23


class Speaker(loopedge.LoopedModule):
    """A language model of one attention; ``inner`` lets an inner loop run it."""

    loops = 2

    def __init__(self, *, inner: int = 0, padding: bool = False, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.options, self.inner, self.padding = options, inner, padding
        if padding:
            self.input_names = ("input_ids", "attention_mask")
        size = WIDTH // HEADS
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.q, self.o = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.k, self.v = (nn.Linear(WIDTH, GROUPS * size) for _ in range(2))

    def example_inputs(self) -> tuple[Tensor, ...]:
        ids = torch.randint(0, VOCABULARY, (2, 7), generator=torch.Generator().manual_seed(0))
        return (ids, torch.ones_like(ids)) if self.padding else (ids,)

    def prelude(self, *inputs: Tensor) -> tuple[Tensors, Tensors]:
        x = self.embedding(inputs[0])
        masks = tuple(mask.bool()[:, None, None, :] for mask in inputs[1:])
        return x, (x, *masks)

    def core(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        if self.inner:
            return loopedge.inner_loop(self.attend, self.inner, state, context)
        return self.attend(state, context, row)

    def attend(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        injected, *masks = context
        assert isinstance(state, Tensor)
        x = state + injected
        q, k, v = (
            projection(x).unflatten(-1, (heads, -1)).transpose(1, 2)
            for projection, heads in ((self.q, HEADS), (self.k, GROUPS), (self.v, GROUPS))
        )
        mask = masks[0] if masks else None
        attended = loopedge.attention(q, k, v, mask=mask, **self.options)
        moved: Tensor = state + self.o(attended.transpose(1, 2).flatten(2))
        return moved

    def coda(self, state: Tensors, context: Tensors) -> Tensors:
        assert isinstance(state, Tensor)
        return state @ self.embedding.weight.T


def by_hand(q: Tensor, k: Tensor, v: Tensor, window: int | None, cap: float | None) -> Tensor:
    length, group = q.shape[2], q.shape[1] // k.shape[1]
    out = torch.zeros(*q.shape[:3], v.shape[3])
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            for i in range(length):
                first = 0 if window is None else max(0, i - window + 1)
                scores = k[b, h // group, first : i + 1] @ q[b, h, i] / math.sqrt(q.shape[3])
                if cap is not None:
                    scores = cap * torch.tanh(scores / cap)
                out[b, h, i] = torch.softmax(scores, 0) @ v[b, h // group, first : i + 1]
    return out


@pytest.mark.parametrize("window", [None, 1, 3])
@pytest.mark.parametrize("cap", [None, 1.5])
def test_what_pytorch_computes(window: int | None, cap: float | None) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(2, heads, 6, 5, generator=generator) for heads in (HEADS, GROUPS, GROUPS)
    )
    found = loopedge.attention(q, k, v, window=window, softcap=cap)
    assert torch.allclose(found, by_hand(q, k, v, window, cap), atol=1e-6)
    q.requires_grad_(True)
    (gradient,) = torch.autograd.grad(
        loopedge.attention(q, k, v, window=window, softcap=cap).sum(), [q]
    )
    assert torch.isfinite(gradient).all()


def test_what_is_masked_is_not_read() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, HEADS, 6, 5, generator=generator) for _ in range(3))
    mask = torch.tensor([False, True, True, True, True, True])[None, None, None]
    for cap in (None, 1.5):
        found = loopedge.attention(q, k, v, mask=mask, softcap=cap)
        rest = loopedge.attention(q[:, :, 1:], k[:, :, 1:], v[:, :, 1:], softcap=cap)
        assert torch.allclose(found[:, :, 1:], rest, atol=1e-6)
        assert not found[:, :, 0].any()  # it may read nothing
    whole = loopedge.attention(q, k, v, causal=False)
    assert torch.allclose(whole, torch.softmax(q @ k.mT / math.sqrt(5), -1) @ v, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"window": 0}, "window 0"),
        ({"window": 3, "causal": False}, "causal=False"),
        ({"softcap": 0.0}, "soft cap 0.0"),
        ({"scale": math.inf}, "scale inf"),
        ({"mask": torch.ones(4, 4)}, "mask of attention is torch.float32"),
    ],
)
def test_options_that_it_cannot_have(options: dict[str, Any], says: str) -> None:
    q = torch.zeros(1, HEADS, 4, 2)
    with pytest.raises(InputError, match=says):
        loopedge.attention(q, q, q, **options)


def test_shapes_that_do_not_fit() -> None:
    q = torch.zeros(1, HEADS, 4, 2)
    for k, says in (
        (torch.zeros(1, 3, 4, 2), "do not fit"),
        (torch.zeros(1, HEADS, 4, 3), "do not fit"),
        (torch.zeros(1, HEADS, 8), "four axes"),
        (torch.zeros(1, HEADS, 5, 2), "4 queries and 5 keys"),
    ):
        with pytest.raises(InputError, match=says):
            loopedge.attention(q, k, k)


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "both directions": ({"causal": False}, {}),
    "padding": ({"window": 3, "padding": True}, {}),
    "unrolled": ({"window": 3}, {"form": "unrolled"}),
    "inner": ({"window": 3, "inner": 2}, {"inner": "loop"}),
    "float16": ({"softcap": 2.0}, {"storage": "float16"}),
    "last": ({"window": 3}, {"logits": "last"}),
    "low": ({}, {"memory": "low"}),
}


def check_file(path: Path, options: dict[str, Any], export: dict[str, Any]) -> None:
    """Export, which compares with PyTorch, and count the nodes of attention."""
    result = loopedge.export(Speaker(**options).eval(), path, **export)
    assert result.max_rel_error < ROUNDING
    nodes = [node.op_type for node in ir.load(path).graph.all_nodes()]
    written_out = "softcap" in options or export.get("opset", 23) < 23
    calls = 2 if export.get("form") == "unrolled" or result.last_rows.applied else 1
    assert nodes.count("Attention") == (0 if written_out else calls)


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_files_compute_what_pytorch_does(case: str, tmp_path: Path) -> None:
    check_file(tmp_path / "model.onnx", *CASES[case])


@pytest.mark.parametrize(
    ("options", "export"),
    [
        ({"window": 3}, {}),
        pytest.param({"softcap": 2.0, "window": 4}, {}, marks=pytest.mark.long),
        pytest.param({"softcap": 2.0}, {"opset": 20}, marks=pytest.mark.long),
        pytest.param({"window": 3}, {"opset": 20, "form": "unrolled"}, marks=pytest.mark.long),
    ],
)
def test_files_and_caches_compute_what_pytorch_does(
    options: dict[str, Any], export: dict[str, Any], tmp_path: Path
) -> None:
    source = tmp_path / "model.onnx"
    check_file(source, options, export)
    result = loopedge.to_generate(source, tmp_path / "model.generate.onnx")  # compares: 1e-4
    assert {(slot.kv_heads, slot.window) for slot in result.slots} == {
        (GROUPS, options.get("window"))
    }
    assert result.max_rel_error < ROUNDING


@pytest.mark.long
def test_a_mask_of_padding_is_not_for_a_cache(tmp_path: Path) -> None:
    source = tmp_path / "model.onnx"
    loopedge.export(Speaker(padding=True).eval(), source)
    result = loopedge.to_generate(source, tmp_path / "model.generate.onnx")
    assert [slot.window for slot in result.slots] == [None]  # a text without padding


@pytest.mark.long
def test_it_is_quantized(tmp_path: Path) -> None:
    source = tmp_path / "model.onnx"
    model = Speaker(window=3).eval()
    loopedge.export(model, source)
    result = loopedge.quantize(source, tmp_path / "model.int8.onnx", scheme="weight-int8")
    assert result.matmuls["quantized"] >= 4
    (ids,) = model.example_inputs()
    session = loopedge.Session(tmp_path / "model.int8.onnx")
    with torch.no_grad():
        expected = model(ids).numpy()
    assert relative_error(session.run({"input_ids": ids.numpy()})["outputs"], expected) < 0.1
    assert np.isfinite(expected).all()
