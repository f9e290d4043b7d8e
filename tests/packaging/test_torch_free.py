"""The commands of the device work where torch, onnxscript, tokenizers and jinja2 cannot be imported."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.cli.tied_files import write_tied
from tests.graph.generate_files import GenerateModel, write_generate_file
from tests.table_models import TASK, repeating_model

TINY = Path(__file__).parents[1] / "fixtures" / "tiny.onnx"
BLOCKER = '''
import sys

class Blocker:
    """Refuses the packages of the extras `train` and `text`, in this process and in those it starts."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "onnxscript", "tokenizers", "jinja2"}:
            with open(__file__ + ".log", "a") as log:
                log.write(name + "\\n")
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
'''


@pytest.fixture
def room(tmp_path: Path) -> Path:
    shutil.copy(TINY, tmp_path / "tiny.onnx")
    write_tied(tmp_path / "tied.onnx")
    model = onnx.load(TINY)
    properties = {item.key: item.value for item in model.metadata_props}
    properties["loopedge.task"] = json.dumps({"name": "text", "tokenizer": "bytes"})
    onnx.helper.set_model_props(model, properties)
    onnx.save(model, tmp_path / "text.onnx")
    write_generate_file(GenerateModel(), tmp_path / "lm.onnx")
    np.savez(tmp_path / "x.npz", input_ids=np.arange(8).reshape(2, 4))
    repeating_model(tmp_path / "table.onnx", TASK)
    (tmp_path / "t.csv").write_text("y,x\n" + "1,2\n" * 4)
    (tmp_path / "blocker").mkdir()
    (tmp_path / "blocker" / "sitecustomize.py").write_text(BLOCKER)
    return tmp_path


def loopedge(room: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "loopedge", *words],
        cwd=room,
        env=os.environ | {"PYTHONPATH": str(room / "blocker")},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("inspect", "tiny.onnx"),
        ("quantize", "tiny.onnx", "-o", "q.onnx"),
        ("reroll", "tied.onnx"),
        ("convert", "tiny.onnx"),
        ("prepare", "tiny.onnx"),
        ("unroll", "tiny.onnx"),
        ("run", "tiny.onnx", "--input", "x.npz", "-o", "y.npz"),
        ("run", "table.onnx", "--input", "t.csv", "-o", "forecast.csv"),
        ("run", "text.onnx", "--text", "!#!#", "--new-tokens", "2"),  # it knows 48 bytes
        ("generate", "lm.onnx", "--prompt", "!#!#", "--new-tokens", "2"),
        pytest.param(
            (
                "profile",
                "tiny.onnx",
                "--untied",
                "--runs",
                "2",
                "--processes",
                "1",
                "--html",
                "report.html",
            ),
            marks=pytest.mark.slow,
        ),
    ],
    ids=lambda words: f"{words[0]}-{words[1]}" if words[0] == "run" else words[0],
)
def test_the_command_never_asks_for_torch(room: Path, words: tuple[str, ...]) -> None:
    done = loopedge(room, *words)
    assert done.returncode == 0, done.stderr
    assert not (room / "blocker" / "sitecustomize.py.log").exists()


def test_the_blocker_blocks(room: Path) -> None:
    done = loopedge(room, "export", "m.pt")
    assert done.returncode == 2
    assert "needs the extra 'train'" in done.stderr
    assert "torch" in (room / "blocker" / "sitecustomize.py.log").read_text()
