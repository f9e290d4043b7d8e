"""The comparison with other toolchains, as far as it goes without their environments."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from benchmarks.peers import conversion
from benchmarks.peers.convert import reason_of
from benchmarks.peers.converters.counting import count_products
from benchmarks.peers.environments import REQUIREMENTS, direct_versions
from benchmarks.peers.goals import BOUNDS, Goal, comparable, ranking, reach_goals
from benchmarks.peers.measurement import Figures
from benchmarks.peers.process import PeerError, PeerProcess
from benchmarks.peers.products import BASELINE, LOOP_COUNTS, SORTING, TMLT, Product, products
from benchmarks.peers.table import flat_table, main_table

ROOT = Path(__file__).parents[2]
MB = 10**6

RUNTIME = """
import os, signal
import numpy as np

class Model:
    def __init__(self, path, fill=0):
        if path == "missing":
            raise FileNotFoundError("there is no such artifact\\nand a second line")
        print("a runtime that talks")
        self.weights = np.ones(20_000_000 // 8)
        self.loops = 3
    def run(self, ids):
        if self.loops == 9:
            os.kill(os.getpid(), signal.SIGKILL)
        return ids * float(self.loops)
    def set_loops(self, loops):
        self.loops = loops
"""


@pytest.fixture
def request_to(tmp_path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the request of a runtime that multiplies by its loop count, and its variables."""
    runtimes = tmp_path / "benchmarks" / "peers" / "runtimes"
    runtimes.mkdir(parents=True)
    (runtimes / "fake_runtime.py").write_text(RUNTIME, encoding="utf-8")
    np.save(tmp_path / "inputs.npy", np.arange(6).reshape(2, 1, 3))
    inputs = str(tmp_path / "inputs.npy")
    request = {"runtime": "fake", "model": "model", "inputs": inputs, "options": {"fill": 1}}
    return request, {"PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}


def figures(label: str, precision: str = "float", **changes: Any) -> Figures:
    """Return figures that reach every goal."""
    ours = label.startswith("loopedge")
    return Figures(
        label=label,
        subject=TMLT,
        precision=precision,
        how="static",
        positions="all",
        ours=ours,
        quantized=7 if precision == "int8" else None,
        products=7,
        anon_bytes=10 * MB,
        peak_bytes=20 * MB if ours else 100 * MB,
        time_ratio=0.25 if ours else 1.0,
        **changes,
    )


def all_figures() -> list[Figures]:
    labels = dict.fromkeys(label for label, _, _ in BOUNDS)
    ours = [figures(label, "int8" if "int8" in label else "float") for label in labels]
    return [figures(BASELINE), *ours, figures("OpenVINO + NNCF", "int8")]


def test_the_measured_process_answers(
    request_to: tuple[dict[str, Any], dict[str, str]], tmp_path: Path
) -> None:
    with PeerProcess(Path(sys.executable), *request_to) as process:
        assert process.loaded["memory"]["anon_bytes"] == pytest.approx(20 * MB, rel=0.1)
        assert len(process.run(3)) == 3
        assert process.memory()["peak_bytes"] >= 19 * MB
        outputs = np.load(process.save_outputs(tmp_path / "outputs.npy"))
        np.testing.assert_array_equal(outputs, 3.0 * np.arange(6).reshape(2, 1, 3))
        outputs = np.load(process.save_outputs(tmp_path / "outputs.npy", loops=2))
        assert outputs.max() == 10.0
        with pytest.raises(PeerError, match="killed by SIGKILL"):
            process.save_outputs(tmp_path / "outputs.npy", loops=9)


def test_what_cannot_be_loaded_is_one_line(
    request_to: tuple[dict[str, Any], dict[str, str]],
) -> None:
    request, variables = request_to
    with pytest.raises(PeerError, match=r"^FileNotFoundError: there is no such artifact$"):
        PeerProcess(Path(sys.executable), {**request, "model": "missing"}, variables)


@pytest.mark.parametrize("subject", LOOP_COUNTS)
def test_every_product_has_a_row_of_its_own(subject: str) -> None:
    listed = products(subject)
    assert listed[0].label == BASELINE
    assert len({product.label for product in listed}) == len(listed)
    assert {product.precision for product in listed} == {"float", "int8"}
    assert all(product.options.get("loops") in (None, LOOP_COUNTS[subject]) for product in listed)


def test_who_answers_for_the_last_position_alone_is_reported() -> None:
    last = {product.label for product in products(TMLT) if product.positions == "last"}
    assert last == {product.label for product in products(TMLT) if "last position" in product.label}
    assert {"loopedge int8 balanced, last position", "OpenVINO + NNCF, last position"} <= last


def test_every_environment_is_pinned() -> None:
    for product in products(TMLT):
        if product.is_ours:
            continue
        assert direct_versions(product.environment)
        text = (REQUIREMENTS / f"{product.environment}.txt").read_text(encoding="utf-8")
        assert all("==" in line and "/" not in line for line in text.splitlines() if line)


def test_a_conversion_that_fails_or_takes_too_long_is_an_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "ARTIFACTS", tmp_path)
    monkeypatch.setattr(conversion, "environment_of", lambda name: Path(sys.executable))
    absent = Product(
        label="absent",
        environment="absent",
        variant="float32",
        subject=TMLT,
        precision="float",
        runtime="absent",
    )
    hasty = replace(absent, variant="hasty", limit_s=0)
    conversion.convert_all([absent, hasty], ())
    assert "No module named" in conversion.conversion_of(absent)["failed"]
    assert conversion.conversion_of(hasty)["failed"] == "not converted within 0 s"
    (tmp_path / absent.artifact / "made.json").write_text(json.dumps({"path": "x"}))
    conversion.convert_all([absent], ["failed"])
    assert conversion.is_made(absent)  # it did not fail, so it was kept
    conversion.convert_all([absent], ["absent"])
    assert not conversion.is_made(absent)


def test_the_first_cause_of_an_error_is_reported_without_colours() -> None:
    error = RuntimeError("Failed to export")
    error.__cause__ = ValueError("\x1b[96mno lowering\x1b[0m\nof while_loop")
    assert reason_of(error) == "ValueError: no lowering"


def test_products_are_counted_in_bodies_too() -> None:
    def product(op: str, weight: str, name: str) -> onnx.NodeProto:
        return helper.make_node(op, ["x", weight], [name])

    weight = helper.make_tensor("w", TensorProto.FLOAT, [1, 1], [1.0])
    inner = [product("MatMul", "w", "a"), product("MatMul", "x", "b")]
    body = helper.make_graph([*inner, product("MatMulIntegerToFloat", "w", "c")], "body", [], [])
    loop = helper.make_node("Loop", ["n", "go"], [], body=body)
    graph = helper.make_graph([product("MatMul", "w", "d"), loop], "main", [], [], [weight])
    assert count_products(graph) == (1, 3)  # x times x has no stored weight


def test_goals_are_reached_missed_or_fail() -> None:
    reached = reach_goals(dict.fromkeys((1, 12, 48), all_figures()))
    assert all(goal.is_reached for goal in reached)
    worse = [
        replace(one, peak_bytes=90 * MB, time_ratio=2.0) if one.ours else one
        for one in all_figures()
    ]
    failed = [goal.name for goal in reach_goals({1: worse, 12: worse, 48: worse}) if goal.blocks]
    rows = [goal.row() for goal in reach_goals({1: worse, 12: worse, 48: worse})]
    assert any("peak MB | 90.000 | <= 70.000 | FAIL" in row for row in rows)
    assert any("time against" in row and row.endswith("missed |") for row in rows)
    assert any("best other | 180.000 | <= 100.000 | missed" in row for row in rows)
    assert not any("time" in name.partition(": ")[2] for name in failed)


def test_a_product_without_figures_reaches_no_goal() -> None:
    broken = [replace(one, failed="killed") if one.ours else one for one in all_figures()]
    assert not any(goal.is_reached for goal in reach_goals(dict.fromkeys((1, 12, 48), broken)))


def test_memory_that_grows_with_the_loop_count_is_reported() -> None:
    grown = [replace(one, anon_bytes=one.anon_bytes + 3 * MB) for one in all_figures()]
    goals = reach_goals({1: all_figures(), 12: all_figures(), 48: grown})
    flat: list[Goal] = [goal for goal in goals if "most less least" in goal.name]
    assert flat
    assert all(goal.blocks and not goal.is_reached for goal in flat)


def test_only_what_is_whole_and_float32_or_int8_competes() -> None:
    found = [
        figures("exact"),
        figures("rounded", error=1e-2),
        replace(figures("silent", "int8"), quantized=0),
        figures("real", "int8"),
        replace(figures("part"), positions="last"),
        replace(figures("part", "int8"), positions="last"),
    ]
    assert [one.label for one in comparable(found, "float")] == ["exact"]
    assert [one.label for one in comparable(found, "int8")] == ["real"]
    assert ranking(found, "int8") == "Best on time x peak MB, int8: real 100.0."


def test_tables_say_what_failed_and_what_was_skipped() -> None:
    silent = replace(figures("silent", "int8"), quantized=0)
    found = [*all_figures(), figures("LiteRT", failed="not | converted"), silent]
    lines = main_table(found, {BASELINE: False, "loopedge balanced": True})
    widths = {line.count("|") for line in lines if line}
    assert len(widths) == 1
    assert any("| LiteRT | not / converted |" in line for line in lines)
    assert any("0 of 7, static silently skipped" in line for line in lines)
    assert any(line.startswith("| **loopedge balanced** ") and "| yes |" in line for line in lines)
    sorting = [replace(one, subject=SORTING, accuracy=0.5) for one in found]
    assert any("0.5000 |" in line for line in main_table(sorting, {}))


def test_the_table_by_loop_count_gives_reasons() -> None:
    late = [replace(one, failed="not converted within 480 s") for one in all_figures()]
    lines = flat_table({1: all_figures(), 12: all_figures(), 48: late})
    assert f"| {BASELINE} | 0.0 | 0.0 | - | 100.0 | 100.0 | - | 1.000 | 1.000 | - |" in lines
    assert f"- r=48, {BASELINE}: not converted within 480 s." in lines
