"""Export and quantize with a last iteration that computes only what is read, against PyTorch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import loopedge
from examples.models import hrm_like, huginn_like
from loopedge.artifact.artifact import Artifact
from loopedge.errors import InputError, VerificationError
from loopedge.files.arrays import write_arrays
from loopedge.graph.positions import selection
from loopedge.model.contract import LoopedModule
from loopedge.quantizer.source import FloatSource
from loopedge_calibration.losses import choose_loss
from tests.parity.models import FLIPS_DB, ROUNDING, SEVEN_BITS, Sizes, make_inputs, make_model

pytestmark = pytest.mark.long

Array = np.ndarray[Any, Any]


class FirstAndContext(LoopedModule):
    """A classifier that reads the first position, with a skip from the prelude; causal attention."""

    def __init__(self, rows: tuple[int, ...] = (0,)) -> None:
        super().__init__()
        self.loops, self.rows = 3, rows
        self.embedding = nn.Embedding(20, 16)
        self.qkv = nn.Linear(16, 48)
        self.mlp = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 32), nn.SiLU(), nn.Linear(32, 16))
        self.head = nn.Linear(16, 5)

    input_names = ("input_ids",)
    output_names = ("logits",)

    def prelude(self, ids: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        x = self.embedding(ids)
        return x, x

    def core(self, state: Tensor, context: Tensor, row: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        q, k, v = self.qkv(state + context).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (2, 8)).transpose(1, 2) for part in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        state = state + mixed.transpose(1, 2).flatten(2)
        changed: Tensor = state + self.mlp(state)
        return changed

    def coda(self, state: Tensor, context: Tensor) -> Tensor:  # type: ignore[override]
        last = torch.stack([(state + context)[:, row] for row in self.rows], dim=1)
        logits: Tensor = self.head(last)
        return logits

    def timestep_table(self, loops: int) -> dict[str, Tensor]:
        return {}

    def example_inputs(self) -> tuple[Tensor, ...]:
        return (torch.randint(0, 20, (2, 7), generator=torch.Generator().manual_seed(0)),)


@pytest.mark.parametrize("rows", [(0,), (0, -1), (2, -1)])
def test_positions_are_read_through_the_context(rows: tuple[int, ...], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = FirstAndContext(rows).eval()
    result = loopedge.export(model, tmp_path / "m.onnx")
    assert result.last_rows.applied
    assert result.last_rows.positions == ", ".join(map(str, rows))
    assert result.max_rel_error < ROUNDING
    whole = loopedge.export(model, tmp_path / "whole.onnx", last_rows=False)
    assert whole.last_rows.reason == "it was switched off"
    fixed = 2 in rows  # lengths below 3 have no such position, so export fixes the length
    for batch, sequence in ((1, 7), (3, 7)) if fixed else ((1, 1), (3, 12)):
        feeds = {"input_ids": np.random.default_rng(0).integers(0, 20, (batch, sequence))}
        one, two = (
            loopedge.Session(tmp_path / name, threads=1).run(feeds)["logits"]
            for name in ("m.onnx", "whole.onnx")
        )
        assert np.abs(one - two).max() <= ROUNDING * np.abs(two).max()


@pytest.mark.parametrize("kind", ["series", "padded", "bidirectional", "plain"])
def test_int8_loses_nothing_by_it(kind: str, tmp_path: Path) -> None:
    logits: Any = "all" if kind == "series" else "last"
    model = make_model(kind)
    feeds = make_inputs(model, Sizes(16, 12))[1]
    write_arrays(tmp_path / "data.npz", feeds)
    found = {}
    for name, wish in (("last", None), ("whole", False)):
        source = tmp_path / f"{name}.onnx"
        loopedge.export(model, source, logits=logits, last_rows=wish)
        options = {"scheme": "static", "data": tmp_path / "data.npz", **SEVEN_BITS}
        found[name] = loopedge.quantize(source, tmp_path / f"{name}.int8.onnx", **options)
    last, whole = found["last"], found["whole"]
    assert last.last_rows is not None
    assert last.last_rows.applied
    assert whole.last_rows is None
    assert last.sqnr_db == pytest.approx(whole.sqnr_db, abs=FLIPS_DB)
    assert last.sqnr_db_per_iteration == pytest.approx(whole.sqnr_db_per_iteration, abs=FLIPS_DB)
    assert last.matmuls == whole.matmuls
    assert last.weight_bytes == whole.weight_bytes
    assert loopedge.inspect(last.path).last_rows == "-1"


def test_a_range_over_all_positions_keeps_them(tmp_path: Path) -> None:
    source = tmp_path / "m.onnx"
    assert loopedge.export(make_model("series"), source).last_rows.applied
    result = loopedge.quantize(source, tmp_path / "q.onnx", scheme="dynamic")
    assert result.last_rows is not None
    assert not result.last_rows.applied
    assert any("takes its range over all positions" in note for note in result.notes)
    weights = loopedge.quantize(source, tmp_path / "w.onnx", scheme="weight-int8")
    assert weights.last_rows is not None
    assert weights.last_rows.applied


def test_a_wrong_last_iteration_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without its mask a query in the midst would read keys behind it.
    monkeypatch.setattr(selection.PositionSelection, "is_last", property(lambda self: True))
    with pytest.raises(VerificationError):
        loopedge.export(FirstAndContext().eval(), tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.parametrize(
    ("options", "applied", "reason"),
    [
        ({"dynamic_loops": True}, True, None),
        ({"opset": 18}, True, None),
        ({"storage": "float16"}, True, None),
        ({"format": "ort"}, True, None),
        ({"exit": "tolerance=1e-3"}, False, "early exit"),
        ({"form": "unrolled"}, False, "loop form"),
    ],
)
def test_language_models_give_the_last_logits(
    options: dict[str, Any], applied: bool, reason: str | None, tmp_path: Path
) -> None:
    suffix = "ort" if options.get("format") == "ort" else "onnx"
    model = make_model("padded")
    result = loopedge.export(
        model, tmp_path / f"m.{suffix}", logits="last", last_rows=True, **options
    )
    assert result.logits == "last"
    assert result.last_rows.applied is applied
    notes = [note for note in result.notes if "computes all positions" in note]
    assert bool(notes) is not applied
    assert reason is None or reason in notes[0]
    session = loopedge.Session(tmp_path / f"m.{suffix}")
    feeds = make_inputs(model, Sizes(3, 9))[1]
    assert session.run(feeds)["logits"].shape == (3, 1, 50)


@pytest.mark.parametrize("inner", ["unrolled", "loop"])
def test_several_states_and_inner_loops(inner: Any, tmp_path: Path) -> None:
    result = loopedge.export(
        hrm_like.make(), tmp_path / "m.onnx", logits="last", inner=inner, exit="none"
    )
    assert result.last_rows.applied
    assert 0 < result.last_rows.narrowed < result.last_rows.products


def test_a_coda_that_attends_computes_the_last_queries(tmp_path: Path) -> None:
    result = loopedge.export(huginn_like.make(), tmp_path / "m.onnx", logits="last", last_rows=True)
    assert not result.last_rows.applied
    assert result.last_rows.reason is not None
    assert result.last_rows.reason.startswith("the coda reads all positions: ")
    attention = [
        node
        for node in Artifact.open(tmp_path / "m.onnx").float32_graph().graph
        if node.op_type == "Attention" and (node.name or "").startswith("coda/")
    ]
    assert [node.attributes["is_causal"].as_int() for node in attention] == [0]


def test_a_model_without_positions_in_its_output_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no output has a value per position"):
        loopedge.export(make_model("series"), tmp_path / "m.onnx", logits="last")
    with pytest.raises(InputError, match="logits 'first' is not known"):
        loopedge.export(make_model("tokens"), tmp_path / "m.onnx", logits="first")  # type: ignore[arg-type]


def test_a_budget_of_last_logits_is_the_relative_error(tmp_path: Path) -> None:
    loopedge.export(make_model("tokens"), tmp_path / "m.onnx", logits="last")
    assert choose_loss(FloatSource.open(tmp_path / "m.onnx"), None).name == "relative-error"
    with pytest.raises(InputError, match="the last position alone"):
        choose_loss(FloatSource.open(tmp_path / "m.onnx"), "task")


def test_prepared_and_converted_files_keep_it(tmp_path: Path) -> None:
    source = tmp_path / "m.onnx"
    model = make_model("series", d_model=64)
    loopedge.export(model, source)
    loopedge.convert(source, tmp_path / "m.ort")
    loopedge.prepare(source, tmp_path / "m.prepared.onnx")
    feeds = make_inputs(model, Sizes(2, 9))[1]
    expected = loopedge.Session(source, threads=1).run(feeds)["outputs"]
    for name in ("m.ort", "m.prepared.onnx"):
        assert loopedge.inspect(tmp_path / name).last_rows == "-1"
        given = loopedge.Session(tmp_path / name, threads=1).run(feeds)["outputs"]
        assert np.abs(given - expected).max() <= ROUNDING * np.abs(expected).max()
