"""What runs a model on a device imports neither onnx nor torch: memory and start-up are those of onnxruntime."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import loopedge.runtime
from tests.table_models import TASK, repeating_model

MODULES = sorted(module.name for module in pkgutil.iter_modules(loopedge.runtime.__path__))
TINY = Path(__file__).parents[1] / "fixtures" / "tiny.onnx"
HEAVY = ("onnx", "onnx_ir", "onnxscript", "ml_dtypes", "pyarrow", "torch", "scipy", "rich", "typer")
SHOW = f"import sys; print([name for name in {HEAVY} if name in sys.modules])"


def loaded_after(program: str) -> str:
    found = subprocess.run(
        [sys.executable, "-c", f"{program}\n{SHOW}"], capture_output=True, text=True, check=True
    )
    return found.stdout.strip()


def test_no_module_of_the_runtime_imports_more() -> None:
    assert {"inputs", "session", "session_options"} <= set(MODULES)
    program = "\n".join(f"import loopedge.runtime.{name}" for name in MODULES)
    assert loaded_after(program) == "[]"


@pytest.mark.parametrize("face", ["loopedge.Session", "loopedge.runtime.session.Session"])
def test_a_session_that_has_run_has_loaded_no_more(face: str) -> None:
    program = f"""
import numpy, loopedge, loopedge.runtime.session
assert {face}({str(TINY)!r}).run(numpy.array([[1, 2, 3]]))["logits"].shape == (1, 3, 48)
"""
    assert loaded_after(program) == "[]"


def test_a_forecast_of_a_table_has_loaded_no_more(tmp_path: Path) -> None:
    model, table = repeating_model(tmp_path / "m.onnx", TASK), tmp_path / "t.csv"
    table.write_text("y,x\n" + "1,2\n" * 4)
    program = f"""
import loopedge
assert loopedge.forecast({str(model)!r}, {str(table)!r}).values.shape == (1, 2, 1)
"""
    assert loaded_after(program) == "[]"
