"""A model with a selectable loop count, unrolled and untied: the count is not an input any more."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import loopedge
from loopedge.artifact.artifact import open_artifact, write_artifact
from loopedge.graph.core.unrolling import unroll
from loopedge.graph.core.untied import untie

if TYPE_CHECKING:
    import onnx_ir as ir

DYNAMIC = Path(__file__).parents[1] / "fixtures" / "tiny_dynamic.onnx"
IDS = {"input_ids": np.arange(12).reshape(2, 6)}


@pytest.mark.parametrize("loops", [1, 2, 3])
@pytest.mark.parametrize(("rewrite", "tolerance"), [(unroll, 1e-5), (untie, 1e-2)])
def test_the_count_becomes_fixed(
    tmp_path: Path, rewrite: object, tolerance: float, loops: int
) -> None:
    assert callable(rewrite)
    rewritten: ir.Model = rewrite(open_artifact(DYNAMIC), loops)
    assert [value.name for value in rewritten.graph.inputs] == ["input_ids"]
    path = tmp_path / "fixed.onnx"
    write_artifact(rewritten, path)
    given = loopedge.Session(path).run(IDS)["logits"]
    expected = loopedge.Session(DYNAMIC).run(IDS, loops=loops)["logits"]
    assert np.abs(given - expected).max() <= tolerance * np.abs(expected).max()
