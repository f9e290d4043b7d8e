from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest

import loopedge
from loopedge.quantizer.held_out import measurement
from loopedge.runtime.processor import Processor
from loopedge.runtime.session import Session

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli


KEYS = {
    "files",
    "matmuls",
    "path",
    "ranges",
    "scheme",
    "seconds",
    "sqnr_db",
    "sqnr_db_per_iteration",
    "weight_bytes",
}


def test_json_holds_the_documented_keys(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    outcome = cli("quantize", tiny, "--json")
    assert outcome.code == 0
    found = outcome.json()
    assert set(found) >= KEYS
    assert found["path"] == str(tmp_path / "tiny.int8.onnx")  # beside the model
    assert found["scheme"] == "dynamic"
    assert (found["matmuls"]["quantized"], found["matmuls"]["total"]) == (7, 7)
    assert [item["name"] for item in found["matmuls"]["skipped"]] == []
    assert len(found["sqnr_db_per_iteration"]) == 3
    assert found["weight_bytes"] < 0.5 * cli("inspect", tiny, "--json").json()["weight_bytes"]


@pytest.mark.slow
def test_people_see_what_stayed_float_and_why(cli: Cli, tiny: Path) -> None:
    outcome = cli("quantize", tiny, "--keep", "core/linear_5")
    assert outcome.code == 0
    for words in ("6 of 7", "SQNR", "left in float", "core/linear_5", "on request"):
        assert words in outcome.out


def test_the_quantized_model_runs(cli: Cli, tiny_dynamic: Path, ids: Path, tmp_path: Path) -> None:
    target = tmp_path / "q.onnx"
    words = ("--reduce-range", "--quiet")  # eight bits saturate on processors without VNNI
    assert cli("quantize", tiny_dynamic, "-o", target, *words).out == f"{target}\n"
    inputs = {"input_ids": np.arange(12).reshape(2, 6)}
    for loops in (1, 3):
        given, expected = (
            Session(path).run(inputs, loops=loops)["logits"] for path in (target, tiny_dynamic)
        )
        assert not np.array_equal(given, expected)  # int8 is not float
        assert np.abs(given - expected).max() < 0.05 * np.abs(expected).max()


def test_a_missed_floor_of_sqnr_exits_3_and_leaves_nothing(
    cli: Cli, tiny: Path, tmp_path: Path
) -> None:
    outcome = cli("quantize", tiny, "--min-sqnr-db", "200")
    assert outcome.code == 3
    assert "200.0 dB" in outcome.err
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.onnx"]


@pytest.mark.parametrize(
    ("feature", "words", "hint"),
    [
        ("avx2", (), "hint: loopedge quantize --reduce-range"),
        ("avx2", ("--reduce-range",), "hint: loopedge quantize --min-sqnr-db"),
        ("avx512_vnni", (), "hint: loopedge quantize --min-sqnr-db"),
    ],
)
def test_a_missed_floor_hints_at_seven_bits_where_eight_may_overflow(
    cli: Cli,
    tiny: Path,
    monkeypatch: pytest.MonkeyPatch,
    feature: str,
    words: tuple[str, ...],
    hint: str,
) -> None:
    processor = Processor("of a test", [feature])
    monkeypatch.setattr("loopedge.quantizer.floors.this_processor", lambda: processor)
    outcome = cli("quantize", tiny, "--min-sqnr-db", "200", *words)
    assert outcome.code == 3
    assert hint in outcome.err


@pytest.mark.parametrize("share", ["-0.1", "1.5", "most"])
def test_coverage_is_a_share(cli: Cli, tiny: Path, share: str) -> None:
    assert cli("quantize", tiny, "--min-coverage", share).code == 2


def test_a_quantized_model_is_refused(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    cli("quantize", tiny)
    outcome = cli("quantize", tmp_path / "tiny.int8.onnx")
    assert outcome.code == 2
    assert "quantized already" in outcome.err


def test_the_source_is_never_the_target(cli: Cli, tiny: Path) -> None:
    before = tiny.read_bytes()
    assert cli("quantize", tiny, "-o", tiny, "--force").code == 2
    assert tiny.read_bytes() == before


@pytest.mark.parametrize("bits", ["8", "4"])
def test_weights_alone(cli: Cli, tiny: Path, tmp_path: Path, bits: str) -> None:
    outcome = cli("quantize", tiny, "--scheme", f"weight-int{bits}", "--block-size", "16", "--json")
    assert outcome.code == 0
    found = outcome.json()
    assert found["path"] == str(tmp_path / f"tiny.int{bits}.onnx")
    assert found["scheme"] == f"weight-int{bits}"
    assert (found["ranges"], found["method"], found["samples"]) == (None, None, None)
    assert (found["matmuls"]["quantized"], found["matmuls"]["total"]) == (7, 7)
    assert (found["embeddings"]["quantized"], found["embeddings"]["total"]) == (1, 1)
    inspected = cli("inspect", found["path"], "--json").json()
    assert found["matmuls"] == {**inspected["int8"], "skipped": []}
    recipe = inspected["metadata"]["quantization"]
    assert (recipe["scheme"], recipe["block_size"]) == (f"weight-int{bits}", {bits: 16})


def test_a_linear_by_its_weight_alone(cli: Cli, tiny: Path) -> None:
    outcome = cli("quantize", tiny, "--weight-only", "core/linear_5")
    assert outcome.code == 0
    for words in ("7 of 7", "8-bit weight alone", "core/linear_5", "embeddings"):
        assert words in outcome.out


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--scheme", "weight-int8", "--ranges-file", "r.json"), "no ranges"),
        (("--scheme", "weight-int8", "--save-ranges", "r.json"), "no ranges"),
        (("--scheme", "weight-int4", "--reduce-range"), "seven bits"),
        (("--scheme", "weight-int4", "--ops", "standard"), "no standard form"),
        (("--scheme", "weight-int4", "--block-size", "24"), "block size 24"),
        (("--block-size", "32"), "no blocks"),
        (("--weight-only", "core/nothing"), "no linear core/nothing"),
        (("--weight-only", "core/linear", "--keep", "core/linear"), "choose one"),
    ],
)
def test_weights_alone_refuse_what_has_no_meaning(
    cli: Cli, tiny: Path, tmp_path: Path, words: tuple[str, ...], reason: str
) -> None:
    outcome = cli("quantize", tiny, *words)
    assert outcome.code == 2
    assert reason in outcome.err.splitlines()[0]
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.onnx"]


STATIC = ("--scheme", "static")


def test_python_does_what_the_command_does(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    """The same data as a file and in memory: the same ranges, and the same file byte for byte."""
    ids = np.random.default_rng(0).integers(0, 48, (40, 9))
    np.savez(tmp_path / "x.npz", input_ids=ids)
    words = (
        *STATIC,
        "--data",
        tmp_path / "x.npz",
        *("--samples", 16, "--method", "minmax", "--threads", 1),
    )
    told = cli(
        "quantize", tiny, *words, "--save-ranges", tmp_path / "r.json", "-o", tmp_path / "c.onnx", "--json"
    ).json()  # fmt: skip
    result = loopedge.quantize(
        tiny,
        tmp_path / "p.onnx",
        data={"input_ids": ids},
        scheme="static",
        samples=16,
        method="minmax",
        threads=1,
        save_ranges=tmp_path / "p.json",
    )
    assert (tmp_path / "c.onnx").read_bytes() == (tmp_path / "p.onnx").read_bytes()
    assert (tmp_path / "r.json").read_text() == (tmp_path / "p.json").read_text()
    assert told["held_out"] == result.to_json()["held_out"]
    assert (result.samples, result.samples_of, result.held_out.samples) == (16, 30, 10)
    assert set(told) == set(result.to_json())


@pytest.mark.slow
def test_the_view_says_what_was_measured_where(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", input_ids=np.random.default_rng(0).integers(0, 48, (40, 9)))
    words = ("quantize", tiny, *STATIC, "--data", tmp_path / "x.npz", "--samples", 8, "--force")
    shown = cli(*words).out
    assert "8 of 30 samples, evenly thinned" in shown
    assert "8 samples held out of the data" in shown
    inspected = cli("inspect", tiny.with_suffix(".int8.onnx")).out
    assert "8 samples held out of the data" in inspected
    shown = cli("quantize", tiny, "--scheme", "dynamic", "--force").out
    assert "8 samples that were generated" in shown


@pytest.mark.slow
def test_a_warning_is_the_first_line(
    cli: Cli, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "x.npz", input_ids=np.random.default_rng(0).integers(0, 48, (40, 9)))
    monkeypatch.setattr(measurement, "CLIPPED", 0.0)
    data = ("--data", tmp_path / "x.npz", "--method", "percentile", "--force")
    words = ("quantize", tiny, *STATIC, *data)
    shown = cli(*words).out
    assert re.match(r"WARNING: \d+% of the values that \S+ reads", shown), shown
    told = cli(*words, "--json").json()
    assert told["notes"][0] == f"WARNING: {told['warning']}"
