"""A writer that dies at any boundary leaves the artifact of before or the new one, whole and loadable."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import pytest

import loopedge
from loopedge.artifact.artifact import Artifact, files_beside, open_artifact, write_artifact
from loopedge.artifact.companions import companion_contents, describe_companions, read_companions
from loopedge.errors import InputError, VerificationError
from loopedge.files import staging
from loopedge.graph.metadata import read_metadata, write_metadata
from loopedge.runtime.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TINY = Path(__file__).parents[1] / "fixtures" / "tiny.onnx"
IDS = {"input_ids": np.arange(12).reshape(2, 6)}


class Killed(BaseException):
    """Stands for the end of the process."""


def model(scale: float, target: Path) -> tuple[ir.Model, dict[str, bytes]]:
    """Return a model that differs with its scale, and a companion that does too."""
    graph = open_artifact(TINY)
    table = graph.graph.initializers["embedding.weight"]
    assert table.const_value is not None
    table.const_value = ir.tensor(table.const_value.numpy() * np.float32(scale), name=table.name)
    texts = {"tokenizer.json": f"of scale {scale}"}
    metadata = read_metadata(graph.metadata_props)
    assert not metadata.foreign
    companions = describe_companions(texts, target)
    write_metadata(metadata.model_copy(update={"companions": companions}), graph.metadata_props)
    return graph, companion_contents(texts, target)


def write(target: Path, scale: float) -> None:
    """Write an artifact of three files: graph, weights, companion."""
    graph, beside = model(scale, target)
    write_artifact(graph, target, force=True, external_threshold_bytes=0, companions=beside)


def prepare(target: Path, scale: float) -> None:
    source = target.parent / "sources" / f"{scale}.onnx"
    write(source, scale)
    loopedge.prepare(source, target, force=True)


def convert(target: Path, scale: float) -> None:
    source = target.parent / "sources" / f"{scale}.onnx"
    write(source, scale)
    loopedge.convert(source, target, force=True)


def outputs(path: Path) -> np.ndarray[Any, Any]:
    logits: np.ndarray[Any, Any] = Session(path).run(IDS)["logits"]
    return logits


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path, int], None]]:
    """Kill the writer of a target before its so many-th rename, or after the last one."""
    dead: list[bool] = []

    def unless_dead(run: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *words, **more: None if dead else run(*words, **more)

    real = Path.replace
    monkeypatch.setattr(staging, "_remove_unnamed", unless_dead(staging._remove_unnamed))
    monkeypatch.setattr(
        staging,
        "shutil",
        SimpleNamespace(rmtree=unless_dead(shutil.rmtree), disk_usage=shutil.disk_usage),
    )

    def die() -> None:
        dead.append(True)
        raise Killed

    def at(target: Path, boundary: int) -> None:
        dead.clear()
        count = 0

        def replace(self: Path, place: Path) -> Path:
            nonlocal count
            if Path(place).parent != target.parent:  # of a source
                return real(self, place)
            if count == boundary:
                die()
            count += 1
            moved = real(self, place)
            if boundary < 0 and Path(place) == target:
                die()
            return moved

        monkeypatch.setattr(Path, "replace", replace)

    yield at
    dead.clear()


VERBS = [(write, "m.onnx", 3), (prepare, "m.onnx", 3), (convert, "m.ort", 3)]


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "name", "files"), VERBS)
def test_a_kill_at_any_boundary_leaves_the_old_or_the_new(
    verb: Callable[[Path, float], None],
    name: str,
    files: int,
    tmp_path: Path,
    dying: Callable[[Path, int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "sources").mkdir()
    target = tmp_path / name
    verb(target, 2.0)
    new = outputs(target)
    assert len(list(tmp_path.iterdir())) == files + 1  # and the folder of sources
    for boundary in (*range(files), -1):
        verb(target, 1.0)
        old = outputs(target)
        assert np.abs(new - old).max() > 0.1
        dying(target, boundary)
        with pytest.raises(Killed):
            verb(target, 2.0)
        dying(target, 99)
        np.testing.assert_array_equal(outputs(target), new if boundary < 0 else old)
        assert loopedge.inspect(target, verify=True).verified
        metadata = read_metadata(open_artifact(target).metadata_props)
        scale = 2.0 if boundary < 0 else 1.0
        assert read_companions(target, metadata) == {"tokenizer.json": f"of scale {scale}"}
        verb(target, 2.0)
        assert len(list(tmp_path.iterdir())) == files + 1


def test_old_pairs_load_and_are_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "m.onnx"
    ir.save(ir.load(TINY), target, external_data="m.onnx.data", size_threshold_bytes=256)
    expected = Session(TINY).run(IDS)["logits"]
    np.testing.assert_allclose(outputs(target), expected, atol=1e-6)
    write(target, 1.0)
    assert not (tmp_path / "m.onnx.data").exists()
    np.testing.assert_allclose(outputs(target), expected, atol=1e-6)


def test_a_copied_graph_keeps_its_data(tmp_path: Path) -> None:
    target, copy = tmp_path / "m.onnx", tmp_path / "copy.onnx"
    write(target, 1.0)
    before = outputs(target)
    shutil.copy(target, copy)
    write(target, 2.0)
    np.testing.assert_array_equal(outputs(copy), before)
    assert loopedge.inspect(copy, verify=True).verified


def test_names_are_of_the_content_and_plain(tmp_path: Path) -> None:
    target = tmp_path / "m.onnx"
    write(target, 1.0)
    names = sorted(files_beside(target))
    assert [name.split(".")[-1] for name in names] == ["json", "data"]
    assert all("/" not in name for name in names)
    write(target, 1.0)
    assert sorted(files_beside(target)) == names


def data_of(path: Path) -> Path:
    (data,) = Artifact.open(path).files[1:]
    return data


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 0x10
    path.write_bytes(content)


@pytest.mark.parametrize("place", [100, -100])
def test_a_flipped_bit_of_the_weights_is_found(tmp_path: Path, place: int) -> None:
    target = tmp_path / "m.onnx"
    write(target, 1.0)
    flip(data_of(target), place)
    with pytest.raises(VerificationError, match="its sha256 differs"):
        loopedge.inspect(target, verify=True)
    for verb in (loopedge.quantize, loopedge.convert, loopedge.prepare):
        suffix = ".ort" if verb is loopedge.convert else ".onnx"
        with pytest.raises(InputError, match="its sha256 differs"):
            verb(target, tmp_path / f"out{suffix}")


def test_a_flipped_bit_of_a_weight_in_the_graph_is_found(tmp_path: Path) -> None:
    target = tmp_path / "m.onnx"
    graph, _ = model(1.0, target)
    write_artifact(graph, target)
    content = target.read_bytes()
    table = graph.graph.initializers["embedding.weight"].const_value
    assert table is not None
    flip(target, content.index(table.tobytes()[:64]) + 7)
    with pytest.raises(VerificationError, match="its checksum differs"):
        loopedge.inspect(target, verify=True)
    with pytest.raises(InputError, match="its checksum differs"):
        loopedge.quantize(target, tmp_path / "q.onnx")


@pytest.mark.parametrize("verb", ["session", "inspect", "quantize"])
def test_data_of_another_size_are_refused_by_all(tmp_path: Path, verb: str) -> None:
    target = tmp_path / "m.onnx"
    write(target, 1.0)
    data = data_of(target)
    data.write_bytes(data.read_bytes() + bytes(8))
    verbs: dict[str, Callable[[], object]] = {
        "session": lambda: Session(target),
        "inspect": lambda: loopedge.inspect(target),
        "quantize": lambda: loopedge.quantize(target, tmp_path / "q.onnx"),
    }
    with pytest.raises(InputError, match="was written with"):
        verbs[verb]()


def test_a_graph_that_another_program_wrote_anew_is_taken_with_a_note(tmp_path: Path) -> None:
    import onnx

    target = tmp_path / "m.onnx"
    graph, beside = model(1.0, target)
    write_artifact(graph, target, companions=beside)
    proto = onnx.load(target)
    proto.producer_name = "a program that keeps the metadata"
    onnx.save(proto, target)
    with pytest.raises(VerificationError, match="changed by another program"):
        loopedge.inspect(target, verify=True)
    result = loopedge.quantize(target, tmp_path / "q.onnx", min_sqnr_db=0)
    assert any("changed by another program" in note for note in result.notes)
    assert loopedge.inspect(tmp_path / "q.onnx", verify=True).verified


@pytest.mark.parametrize("state", ["missing", "damaged"])
def test_a_companion_that_is_not_there_as_written_is_found(tmp_path: Path, state: str) -> None:
    target = tmp_path / "m.onnx"
    write(target, 1.0)
    (companion,) = tmp_path.glob("m.*.tokenizer.json")
    companion.write_text("garbage") if state == "damaged" else companion.unlink()
    with pytest.raises(VerificationError, match=r"tokenizer\.json, which .* needs"):
        loopedge.inspect(target, verify=True)
    for verb in (loopedge.quantize, loopedge.convert, loopedge.prepare):
        suffix = ".ort" if verb is loopedge.convert else ".onnx"
        with pytest.raises(InputError, match=r"its sha256 differs|which is missing"):
            verb(target, tmp_path / f"out{suffix}")


def test_a_list_of_operators_of_other_content_is_found(tmp_path: Path) -> None:
    target = tmp_path / "m.ort"
    loopedge.convert(TINY, target)
    (listed,) = tmp_path.glob("m.*.required_operators.config")
    other = tmp_path / f"m.x.{'0' * 16}.required_operators.config"
    other.write_text("of m.x.ort")
    assert loopedge.inspect(target, verify=True).verified
    listed.write_text("garbage")
    with pytest.raises(VerificationError, match="does not list the operators"):
        loopedge.inspect(target, verify=True)
    listed.unlink()
    with pytest.raises(VerificationError, match="holds its checksum"):
        loopedge.inspect(target, verify=True)


@pytest.mark.parametrize("verb", [loopedge.quantize, loopedge.convert, loopedge.prepare])
def test_a_source_that_is_replaced_meanwhile_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: Callable[..., Any]
) -> None:
    """What is written is of one version: the new one, of which the companion is there too."""
    from loopedge.artifact import seal

    source = tmp_path / "m.onnx"
    target = tmp_path / ("out.ort" if verb is loopedge.convert else "out.onnx")
    write(source, 1.0)
    seen: list[Path] = []
    real = seal.check_whole

    def replace(path: Path) -> list[str]:
        notes = real(path)
        if not seen:
            write(source, 2.0)
        seen.append(path)
        return notes

    for module in ("quantizer.pipeline", "deployment.conversion", "deployment.preparation"):
        monkeypatch.setattr(f"loopedge.{module}.check_whole", replace)
    verb(source, target)
    assert len(seen) == 2
    metadata = read_metadata(open_artifact(target).metadata_props)
    assert read_companions(target, metadata) == {"tokenizer.json": "of scale 2.0"}
    assert np.abs(outputs(target) - outputs(source)).max() < 0.2


def test_a_file_without_a_checksum_cannot_be_verified() -> None:
    with pytest.raises(VerificationError, match="holds no checksum"):
        loopedge.inspect(TINY, verify=True)
