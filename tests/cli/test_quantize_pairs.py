"""``loopedge quantize --ops qdq``: what it takes, what it says, what it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from benchmarks.reach.kinds import KINDS, write_kind
from loopedge.runtime.session import Session

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli

pytestmark = pytest.mark.slow

PAIRS = ("--ops", "qdq", "--reduce-range")


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    path = tmp_path / "samples.npz"
    generator = np.random.default_rng(0)
    np.savez(path, input_ids=generator.integers(0, 48, (48, 9)))
    return path


def test_a_loop_is_written_out_and_every_linear_quantized(
    cli: Cli, tiny: Path, samples: Path, tmp_path: Path
) -> None:
    target = tmp_path / "q.onnx"
    outcome = cli("quantize", tiny, "-o", target, "--data", samples, *PAIRS, "--json")
    assert outcome.code == 0, outcome.err
    found = outcome.json()
    assert found["scheme"] == "static"  # without --scheme too
    assert (found["matmuls"]["quantized"], found["matmuls"]["total"]) == (19, 19)
    assert any("3 RMSNormalization" in note or "Attention" in note for note in found["notes"])
    seen = cli("inspect", target, "--json").json()
    assert (seen["form"], seen["loops"]) == ("unrolled", 3)
    assert seen["int8"]["quantized"] == seen["int8"]["total"] == 19
    recipe = seen["metadata"]["quantization"]["recipe"]
    assert recipe["ops"] == "qdq"


def test_a_recipe_repeats_the_pairs_and_their_target(
    cli: Cli, tiny: Path, samples: Path, tmp_path: Path
) -> None:
    first, again = tmp_path / "first.onnx", tmp_path / "again.onnx"
    words = ("--target", "qnn", "--keep", "core/linear_5")
    outcome = cli("quantize", tiny, "-o", first, "--data", samples, *PAIRS, *words)
    assert outcome.code == 0, outcome.err
    assert "QNN takes fixed sizes alone" in outcome.err
    outcome = cli("quantize", tiny, "-o", again, "--data", samples, "--recipe", first)
    assert outcome.code == 0, outcome.err
    recipes = [
        cli("inspect", path, "--json").json()["metadata"]["quantization"]["recipe"]
        for path in (first, again)
    ]
    assert recipes[0] == recipes[1]
    assert (recipes[0]["target"], recipes[0]["keep"]) == ("qnn", ["core/linear_5"])


def test_ranges_of_a_file_serve_the_loop_and_the_pairs(
    cli: Cli, tiny: Path, samples: Path, tmp_path: Path
) -> None:
    ranges, target = tmp_path / "ranges.json", tmp_path / "q.onnx"
    words = ("--scheme", "static", "--save-ranges", ranges, "--reduce-range")
    outcome = cli("quantize", tiny, "-o", tmp_path / "loop.onnx", "--data", samples, *words)
    assert outcome.code == 0, outcome.err
    outcome = cli("quantize", tiny, "-o", target, "--ranges-file", ranges, *PAIRS)
    assert outcome.code == 0, outcome.err
    assert Session(target).metadata.form == "unrolled"


def test_a_selectable_loop_count_is_fixed_by_name(
    cli: Cli, tiny_dynamic: Path, samples: Path, tmp_path: Path
) -> None:
    target = tmp_path / "q.onnx"
    words = ("quantize", tiny_dynamic, "-o", target, "--data", samples, *PAIRS)
    outcome = cli(*words)
    assert outcome.code == 2
    assert "chooses the loop count" in outcome.err
    assert "--loops" in outcome.err
    outcome = cli(*words, "--loops", "2")
    assert outcome.code == 0, outcome.err
    inputs = {"input_ids": np.arange(12).reshape(2, 6)}
    given = Session(target).run(inputs)["logits"]
    expected = Session(tiny_dynamic).run(inputs, loops=2)["logits"]
    assert np.abs(given - expected).max() < 0.1 * np.abs(expected).max()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--ops", "qdq", "--scheme", "dynamic"), "dynamic finds its ranges while it runs"),
        (("--ops", "qdq", "--scheme", "weight-int4"), "weight-int4 rounds no activations"),
        (("--ops", "qdq", "--scheme", "auto"), "auto chooses among other files"),
        (("--ops", "qdq", "--block-size", "32"), "weights in blocks"),
        (("--target", "qnn"), "--target is for pairs"),
        (("--ops", "qdq", "--refine", "9", "--module", "model.pt"), "pairs round otherwise"),
    ],
)
def test_what_pairs_cannot_hold_is_one_line(
    words: tuple[str, ...], says: str, cli: Cli, tiny: Path, samples: Path, tmp_path: Path
) -> None:
    before = sorted(tmp_path.iterdir())
    outcome = cli("quantize", tiny, "--data", samples, *words)
    assert outcome.code == 2
    assert says in " ".join(outcome.err.split())
    assert sorted(tmp_path.iterdir()) == before


def test_an_unknown_target_is_refused(cli: Cli, tiny: Path, samples: Path) -> None:
    outcome = cli("quantize", tiny, "--data", samples, "--ops", "qdq", "--target", "npu")
    assert outcome.code == 2
    assert "openvino" in outcome.err


def test_a_loop_that_ends_itself_is_refused(cli: Cli, samples: Path, tmp_path: Path) -> None:
    model = write_kind(KINDS["float, early exit"], tmp_path).path
    outcome = cli("quantize", model, "--data", samples, *PAIRS)
    assert outcome.code == 2
    assert "ends its loop early, by what it computes" in outcome.err
    assert not model.with_suffix(".int8.onnx").exists()


def test_a_budget_holds_for_pairs_too(cli: Cli, tiny: Path, samples: Path, tmp_path: Path) -> None:
    target = tmp_path / "q.onnx"
    words = ("-o", target, "--data", samples, *PAIRS, "--max-drop")
    outcome = cli("quantize", tiny, *words, "100", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json()["budget"]["max_drop"] == 100
    missed = cli("quantize", tiny, *words, "0.000000001", "--force")
    assert missed.code == 2
    assert "rounding in float32 alone moves" in missed.err
