"""What convert and prepare share: how ONNX Runtime writes a graph, and how a written file is verified."""

from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from loopedge.artifact.artifact import Artifact, open_artifact, write_artifact
from loopedge.deployment.verification import Tolerance, compare_with_source, described_files
from loopedge.errors import InputError, LoopedgeError, VerificationError
from loopedge.files.targets import FileSize
from loopedge.runtime.graph_file import data_entries, write_graph
from loopedge.runtime.session_options import session_options

TINY = Path(__file__).parents[1] / "fixtures" / "tiny.onnx"
TOLERANCE = Tolerance(relative=1e-6, file="the copy", hint="loopedge inspect copy.onnx")


def scaled(folder: Path, scale: float) -> Path:
    """Write a copy whose head weighs ``scale`` times as much."""
    graph = open_artifact(TINY)
    value = next(
        value
        for value in graph.graph.initializers.values()
        if value.name == "embedding.weight" and value.const_value is not None
    )
    assert value.const_value is not None
    value.const_value = ir.tensor(value.const_value.numpy() * scale, name=value.name)
    write_artifact(graph, folder / "copy.onnx")
    return folder / "copy.onnx"


def test_a_file_that_computes_the_same_has_no_difference(tmp_path: Path) -> None:
    found = compare_with_source(
        Artifact.open(TINY), scaled(tmp_path, 1.0), TOLERANCE, longest=4, threads=1
    )
    assert (found.max_abs_error, found.max_rel_error) == (0.0, 0.0)
    assert found.cases >= 4


def test_a_file_that_computes_something_else_is_refused(tmp_path: Path) -> None:
    copy = scaled(tmp_path, 1.5)
    with pytest.raises(
        VerificationError, match=r"the copy differs from .*tiny\.onnx \(batch 1"
    ) as e:
        compare_with_source(Artifact.open(TINY), copy, TOLERANCE, longest=4, threads=1)
    assert e.value.allowed == TOLERANCE.relative
    assert e.value.measured is not None
    assert e.value.measured > 0.01
    assert e.value.hint == TOLERANCE.hint


def test_both_files_run_in_the_profile_that_is_asked(tmp_path: Path) -> None:
    source = Artifact.open(TINY)
    with pytest.raises(VerificationError, match=r"does not run: .*mapped needs a prepared file"):
        compare_with_source(
            source,
            scaled(tmp_path, 1.0),
            TOLERANCE,
            longest=4,
            memory=("balanced", "mapped"),
            threads=1,
        )


def test_the_graph_that_runs_is_written_with_its_weights_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "g.onnx"
    write_graph(
        TINY, target, session_options(1), data_entries(target, least_bytes=1), purpose="optimized"
    )
    stored = onnx.load(target, load_external_data=False).graph.initializer
    named = {entry.value for tensor in stored for entry in tensor.external_data}
    assert "g.onnx.data" in named
    assert (tmp_path / "g.onnx.data").is_file()


def test_a_source_that_cannot_be_loaded_is_named_with_what_was_meant(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"no model")
    with pytest.raises(InputError, match=r"m\.onnx cannot be converted: ") as error:
        write_graph(
            tmp_path / "m.onnx", tmp_path / "m.ort", session_options(1), {}, purpose="converted"
        )
    assert error.value.hint == f"loopedge inspect {tmp_path / 'm.onnx'}"


def test_a_runtime_that_writes_nothing_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxruntime.InferenceSession", lambda *words, **options: None)
    with pytest.raises(LoopedgeError, match="wrote no file for"):
        write_graph(TINY, tmp_path / "m.onnx", session_options(1), {}, purpose="prepared")


def test_files_are_named_where_they_come_to_stand(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"four")
    files = described_files([tmp_path / "a"], Path("there"))
    assert files == [FileSize(path=str(Path("there") / "a"), bytes=4)]
