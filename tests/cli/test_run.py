from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from loopedge.runtime.session import Session

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli


def test_outputs_are_those_of_the_session(cli: Cli, tiny: Path, ids: Path, tmp_path: Path) -> None:
    target = tmp_path / "y.npz"
    outcome = cli("run", tiny, "--input", ids, "-o", target, "--threads", "1")
    assert outcome.code == 0
    assert str(target) in outcome.out
    expected = Session(tiny, threads=1).run({"input_ids": np.arange(12).reshape(2, 6)})
    with np.load(target) as written:
        assert set(written) == set(expected)
        np.testing.assert_array_equal(written["logits"], expected["logits"])


def test_without_a_target_the_outputs_are_summarized(cli: Cli, tiny: Path, ids: Path) -> None:
    outcome = cli("run", tiny, "--input", ids)
    assert outcome.code == 0
    for words in ("logits", "float32", "(2, 6, 48)", "3 loops"):
        assert words in outcome.out


def test_json(cli: Cli, tiny: Path, ids: Path) -> None:
    found = cli("run", tiny, "--input", ids, "--json").json()
    [output] = found["outputs"]
    assert (output["name"], output["shape"], output["not_finite"]) == ("logits", [2, 6, 48], 0)
    assert output["min"] < output["mean"] < output["max"]
    assert (found["loops"], found["path"], found["provider"]) == (3, None, "CPUExecutionProvider")


@pytest.mark.parametrize(("asked", "ran"), [(1, 1), (2, 2), (3, 3), (99, 3)])
def test_loops_are_selectable_and_clamped(
    cli: Cli, tiny_dynamic: Path, ids: Path, asked: int, ran: int
) -> None:
    found = cli("run", tiny_dynamic, "--input", ids, "--loops", asked, "--json").json()
    assert found["loops"] == ran
    expected = Session(tiny_dynamic).run({"input_ids": np.arange(12).reshape(2, 6)}, loops=ran)
    assert found["outputs"][0]["max"] == pytest.approx(float(expected["logits"].max()), rel=1e-5)


@pytest.mark.parametrize("header", ["", "t1,t2,t3\n"])
def test_a_csv_of_token_ids(cli: Cli, tiny: Path, tmp_path: Path, header: str) -> None:
    source = tmp_path / "x.csv"
    source.write_text(f"{header}1,2,3\n4,5,6\n")
    target = tmp_path / "y.npy"
    assert cli("run", tiny, "--input", source, "-o", target).code == 0
    expected = Session(tiny).run({"input_ids": np.array([[1, 2, 3], [4, 5, 6]])})
    np.testing.assert_allclose(np.load(target), expected["logits"], rtol=1e-5, atol=1e-6)


def test_quiet_prints_the_path_alone(cli: Cli, tiny: Path, ids: Path, tmp_path: Path) -> None:
    target = tmp_path / "y.npz"
    outcome = cli("run", tiny, "--input", ids, "-o", target, "--quiet")
    assert (outcome.out, outcome.err) == (f"{target}\n", "")


def write_bad_inputs(folder: Path) -> None:
    np.savez(folder / "other.npz", ids=np.zeros((1, 4), np.int64), mask=np.ones(3))
    np.savez(folder / "extra.npz", input_ids=np.zeros((1, 4), np.int64), mask=np.ones(3))
    np.savez(folder / "rank.npz", input_ids=np.zeros(4, np.int64))
    np.savez(folder / "empty.npz", input_ids=np.zeros((1, 0), np.int64))
    np.savez(folder / "float.npz", input_ids=np.zeros((1, 4), np.float32))
    np.savez(folder / "code.npz", input_ids=np.array([{}], dtype=object))
    np.savez(folder / "range.npz", input_ids=np.full((1, 4), 48))
    np.savez(folder / "long.npz", input_ids=np.zeros((1, 17), np.int64))
    (folder / "torn.npz").write_bytes((folder / "rank.npz").read_bytes()[:100])
    (folder / "text.npy").write_text("no array")
    (folder / "text.csv").write_text("1,2\n3,four\n")
    (folder / "ragged.csv").write_text("1,2\n3\n")
    (folder / "nothing.csv").write_text("a,b\n")
    (folder / "x.txt").write_text("1 2 3")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("absent.npz", "does not exist"),
        ("other.npz", "input input_ids is missing"),
        ("extra.npz", "no input mask"),
        ("rank.npz", "shape (4,)"),
        ("empty.npz", "empty"),
        ("float.npz", "float32"),
        ("code.npz", "Python objects"),
        ("range.npz", "input_ids: position 1 is 48, the model takes ids from 0 to 47"),
        ("long.npz", "17"),
        ("torn.npz", "is not an .npz file"),
        ("text.npy", "is not an .npy file"),
        ("text.csv", "row 2 (line 2), column 2: 'four' is not a number"),
        ("ragged.csv", "row 2 (line 2) has 1 values, the first row has 2"),
        ("nothing.csv", "holds no rows"),
        ("x.txt", "unknown kind"),
    ],
)
def test_bad_inputs_are_reported_in_one_line(
    cli: Cli, tiny: Path, tmp_path: Path, name: str, words: str
) -> None:
    write_bad_inputs(tmp_path)
    target = tmp_path / "y.npz"
    outcome = cli("run", tiny, "--input", tmp_path / name, "-o", target)
    assert outcome.code == 2
    assert words in outcome.err
    assert len(outcome.err.splitlines()) <= 2
    assert not target.exists()


def test_the_one_array_of_a_file_may_have_any_name(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    ids = np.arange(8).reshape(2, 4)
    np.savez(tmp_path / "x.npz", ids)
    np.save(tmp_path / "x.npy", ids)
    found = []
    for name in ("x.npz", "x.npy"):
        target = tmp_path / f"{name}.out.npz"
        outcome = cli("run", tiny, "--input", tmp_path / name, "-o", target, "--json")
        assert outcome.code == 0, outcome.err
        found.append((outcome.json()["notes"], np.load(target)["logits"]))
    assert found[0][0] == ["the array arr_0 is taken as the input input_ids"]
    assert found[1][0] == []
    np.testing.assert_array_equal(found[0][1], found[1][1])


def test_a_csv_cannot_feed_two_inputs(cli: Cli, tmp_path: Path) -> None:
    from onnx import TensorProto, helper, save

    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1,)) for name in "aby"]
    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["y"])], "g", ports[:2], ports[2:]
    )
    save(helper.make_model(graph, ir_version=10), tmp_path / "add.onnx")
    (tmp_path / "x.csv").write_text("1\n")
    outcome = cli("run", tmp_path / "add.onnx", "--input", tmp_path / "x.csv")
    assert outcome.code == 2
    assert "the model takes a, b" in outcome.err
