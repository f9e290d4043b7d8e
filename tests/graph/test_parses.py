"""How often each verb parses a file: data does not turn back to a file that was opened."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import loopedge
from loopedge.artifact.artifact import Artifact, open_artifact, write_artifact
from loopedge.artifact.reading import onnx_file, ort_format
from loopedge.inference.run import run_file
from loopedge.profiler.options import ProfileOptions
from loopedge.profiler.subjects.building import build_models, open_models
from loopedge.profiler.subjects.variants import add_variants

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests" / "fixtures" / "tiny.onnx"


@pytest.fixture
def parses(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the graphs that are read from files, by the name of the file."""
    seen: Counter[str] = Counter()
    parse, flat = onnx_file._parse, ort_format._model

    def counted_parse(path: Path) -> object:
        seen[path.name] += 1
        return parse(path)

    def counted_flat(stored: object) -> object:
        seen["an .ort file"] += 1
        return flat(stored)  # type: ignore[arg-type]

    monkeypatch.setattr(onnx_file, "_parse", counted_parse)
    monkeypatch.setattr(ort_format, "_model", counted_flat)
    return seen


@pytest.fixture
def source(tmp_path: Path, parses: Counter[str]) -> Path:
    """Return an artifact whose weights stand in a file of their own."""
    path = tmp_path / "m.onnx"
    write_artifact(open_artifact(TINY), path, external_threshold_bytes=0)
    parses.clear()
    return path


def test_the_format_is_parsed_in_one_place() -> None:
    """Only there it can be counted, and only there a damaged file becomes one line."""
    parsers = re.compile(
        r"onnx\.load\(|onnx\.load_model|ir\.load\(|ParseFromString|load_from_string"
    )
    found = {
        str(path.relative_to(ROOT))
        for folder in ("loopedge", "calibration", "cli")
        for path in (ROOT / folder).rglob("*.py")
        if parsers.search(path.read_text(encoding="utf-8"))
    }
    assert found == {"loopedge/artifact/reading/onnx_file.py"}


def test_opening_parses_once_whatever_is_asked_of_it(source: Path, parses: Counter[str]) -> None:
    artifact = Artifact.open(source)
    assert artifact.needed_files()
    assert artifact.file_bytes
    artifact.fresh_graph()
    artifact.float32_graph()
    artifact.check_unchanged()
    assert parses == {"m.onnx": 1}


def test_writing_parses_nothing(source: Path, parses: Counter[str], tmp_path: Path) -> None:
    graph = open_artifact(source)
    parses.clear()
    staged: list[bytes] = []
    metadata = Artifact.open(source).metadata
    parses.clear()

    def verify(path: Path) -> object:
        staged.append(path.read_bytes())
        return metadata.model_copy(update={"max_rel_error": 0.5})

    files = write_artifact(graph, tmp_path / "new.onnx", verify=verify, external_threshold_bytes=0)  # type: ignore[arg-type]
    assert parses == {}
    assert len(staged) == 1
    artifact = Artifact.open(tmp_path / "new.onnx")
    assert artifact.files == files
    assert artifact.metadata.max_rel_error == 0.5
    assert loopedge.inspect(tmp_path / "new.onnx", verify=True).verified


def test_what_is_replaced_is_opened_once_to_know_its_files(
    source: Path, parses: Counter[str]
) -> None:
    write_artifact(open_artifact(TINY), source, force=True)
    assert parses == {"tiny.onnx": 1, "m.onnx": 1}


@pytest.mark.parametrize("verify", [False, True])
def test_inspect_parses_once(source: Path, parses: Counter[str], verify: bool) -> None:
    loopedge.inspect(source, verify=verify)
    assert parses == {"m.onnx": 1}


def test_run_parses_once_and_a_session_never(
    source: Path, parses: Counter[str], tmp_path: Path
) -> None:
    inputs = tmp_path / "x.npz"
    np.savez(inputs, input_ids=np.arange(12).reshape(2, 6))
    run_file(source, inputs, tmp_path / "y.npz")
    assert parses == {"m.onnx": 1}
    run_file(source, inputs, tmp_path / "y.npz", force=True)
    assert parses == {"m.onnx": 2}
    parses.clear()
    loopedge.Session(source)
    assert parses == {}


def test_convert_parses_its_source_once_and_reads_what_it_wrote_once(
    source: Path, parses: Counter[str], tmp_path: Path
) -> None:
    loopedge.convert(source, tmp_path / "m.ort")
    assert parses == {"m.onnx": 1, "an .ort file": 1}


def test_prepare_parses_its_source_once_and_what_was_written_twice(
    source: Path, parses: Counter[str], tmp_path: Path
) -> None:
    """As ONNX Runtime wrote it, to give it its metadata, and as it is then, to verify it."""
    loopedge.prepare(source, tmp_path / "p.onnx")
    assert parses == {"m.onnx": 1, "p.onnx": 2}


def test_a_profile_parses_each_file_once_before_it_measures(
    source: Path, parses: Counter[str], tmp_path: Path
) -> None:
    """Twins are opened once after they were written, and variants are made of what is open already."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    options = ProfileOptions(unrolled=True, untied=True, sequence=8, threads=[1, 2])
    models, _ = build_models([source], open_models([source]), options, scratch)
    assert parses == {"m.onnx": 1, "unrolled0.onnx": 2, "untied1.onnx": 2}  # of two configurations
    parses.clear()
    add_variants(models[:1], scratch, float16=True, cuda_graphs=True)
    assert parses == {"float16.0.onnx": 1}
