"""examples/language-model/run.sh at a tiny size: from text to generation, every file judged."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.docs.pages import ROOT, write_program

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("torch", reason="training needs the extra 'train'")
pytestmark = pytest.mark.long


def test_the_script_goes_from_text_to_generation(tmp_path: Path) -> None:
    programs, out = tmp_path / "bin", tmp_path / "out"
    programs.mkdir()
    write_program(programs)
    sizes = {"STEPS": "3", "MODULES": "60", "SAMPLES": "2", "CONTEXT": "32", "D_MODEL": "32"}
    places = os.pathsep.join(map(str, (ROOT, ROOT / "cli", ROOT / "calibration")))
    known = os.environ | sizes | {"OUT": str(out), "PYTHONPATH": places}
    known["PATH"] = f"{programs}{os.pathsep}{known['PATH']}"
    done = subprocess.run(
        ["bash", str(ROOT / "examples/language-model/run.sh")],
        env=known,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    found = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert [row["loops"] for row in found["whole"]] == [1, 2, 3, 4] * 3
    assert len(found["cached"]) == 5
    assert len(found["tokens"]) == 2
    exact = found["cached"][0]
    assert exact["name"] == "float32, cache of float32"
    assert abs(exact["change"]) < 1e-4  # as whole windows
    assert (out / "perplexity.svg").read_text(encoding="utf-8").startswith("<svg ")
    assert (out / "table.md").read_text(encoding="utf-8").count("\n") > 20
