"""Memory profiles on real models: the same outputs, and the memory that each takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import loopedge
from loopedge.artifact.artifact import open_artifact
from loopedge.graph.inputs import generate_inputs
from tests.parity.models import ROUNDING, make_model

if TYPE_CHECKING:
    from loopedge.profiler.pipeline import Run

Exporter = Callable[..., Path]
MIB = 2**20


def outputs(path: Path | str, feeds: dict[str, Any], memory: str | None = None) -> Any:
    session = loopedge.Session(path, threads=1, memory=memory)
    [value] = session.run(feeds).values()
    return value


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "form"), [("tokens", "loop"), ("tokens", "unrolled"), ("series", "loop")]
)
def test_float_outputs_are_the_same(
    exported: Exporter, tmp_path: Path, kind: str, form: str
) -> None:
    source = exported(kind, form=form)
    prepared = loopedge.prepare(source, tmp_path / "p.onnx", threads=1)
    assert prepared.max_abs_error == 0.0
    assert prepared.notes == []
    feeds = generate_inputs(open_artifact(source), batch=2, sequence=9)
    balanced = outputs(source, feeds, "balanced")
    np.testing.assert_array_equal(outputs(prepared.path, feeds), balanced)
    for path in (source, prepared.path):
        np.testing.assert_allclose(
            outputs(path, feeds, "low"), balanced, atol=ROUNDING * np.abs(balanced).max()
        )


@pytest.mark.parametrize("scheme", ["dynamic", "weight-int8", "weight-int4"])
def test_quantized_outputs_are_the_same(exported: Exporter, tmp_path: Path, scheme: str) -> None:
    source = tmp_path / "q.onnx"
    loopedge.quantize(exported("tokens"), source, scheme=scheme, min_sqnr_db=0, threads=1)
    prepared = loopedge.prepare(source, threads=1)
    assert (prepared.max_abs_error, prepared.notes) == (0.0, [])
    small = scheme == "weight-int4"  # under 1024 bytes, but for the two of the MLP
    assert prepared.packed == 7 - 5 * small
    feeds = generate_inputs(open_artifact(source), batch=2, sequence=9)
    np.testing.assert_array_equal(outputs(prepared.path, feeds), outputs(source, feeds))


@pytest.mark.filterwarnings("ignore::loopedge.errors.LoopCountWarning")
def test_a_selectable_loop_count_stays_selectable(exported: Exporter, tmp_path: Path) -> None:
    source = exported("tokens", dynamic_loops=True)
    session = loopedge.Session(loopedge.prepare(source, tmp_path / "p.onnx").path, threads=1)
    feeds = generate_inputs(open_artifact(source), batch=2, sequence=9)
    for loops in (1, 2, 99):
        expected = loopedge.Session(source, threads=1).run(
            {name: feeds[name] for name in feeds if name != "loops"}, loops=loops
        )
        given = session.run({name: feeds[name] for name in feeds if name != "loops"}, loops=loops)
        np.testing.assert_array_equal(given["logits"], expected["logits"])


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["balanced", "low", "mapped"])
def test_export_stores_the_profile(tmp_path: Path, memory: str) -> None:
    path = tmp_path / "m.onnx"
    result = loopedge.export(make_model("tokens"), path, memory=memory)
    assert loopedge.inspect(path).memory == memory
    assert any("loopedge prepare" in note for note in result.notes) == (memory == "mapped")
    session = loopedge.Session(path, threads=1)
    assert session.memory == ("low" if memory == "low" else "balanced")
    assert len(session.notes) == (memory == "mapped")


def test_an_unknown_profile_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(loopedge.errors.InputError, match="'lean' is not known"):
        loopedge.export(make_model("tokens"), tmp_path / "m.onnx", memory="lean")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Profile the three profiles of a model whose core takes 12 MiB, each in a fresh process."""
    folder = tmp_path_factory.mktemp("memory")
    paths = {name: folder / f"{name}.onnx" for name in ("balanced", "low")}
    for name, path in paths.items():
        loopedge.export(make_model("tokens", d_model=512, heads=4), path, memory=name)
    paths["mapped"] = Path(loopedge.prepare(paths["balanced"]).path)
    result = loopedge.profile(list(paths.values()), sequence=8, runs=1, processes=1, details=False)
    assert result.notes == []
    return dict(zip(paths, result.runs, strict=True))


@pytest.mark.slow
def test_low_and_mapped_keep_the_weights_in_pages_of_the_file(runs: dict[str, Run]) -> None:
    assert [run.memory for run in runs.values()] == list(runs)
    packed = 12 * 512 * 512 * 4
    for name in ("low", "mapped"):
        assert runs[name].anon_bytes < runs["balanced"].anon_bytes - 0.8 * packed
        assert runs[name].anon_bytes < 4 * MIB


@pytest.mark.slow
def test_mapped_holds_its_packed_weights_in_the_file(runs: dict[str, Run]) -> None:
    packed = 12 * 512 * 512 * 4
    assert runs["mapped"].file_bytes - runs["balanced"].file_bytes == pytest.approx(packed, rel=0.1)
    assert runs["mapped"].weight_bytes == runs["balanced"].weight_bytes
