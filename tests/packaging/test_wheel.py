"""The base install: built, installed into a clean environment without torch, and used there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests" / "fixtures" / "tiny.onnx"
HOUSES = {"loopedge", "loopedge_calibration", "loopedge_cli"}

pytestmark = pytest.mark.long


def run(*words: object, cwd: Path | None = None, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a program outside the checkout's own environment."""
    hidden = ("PYTHONPATH", "VIRTUAL_ENV", "COV_", "PYTEST_")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", folder, ROOT)
    [path] = folder.glob("loopedge-*.whl")
    return path


def install(wheel: Path, folder: Path, constraints: Path) -> Path:
    """Make an environment of the base install and nothing else; return its programs' folder."""
    venv.create(folder, with_pip=True)
    programs = folder / "bin"
    run(programs / "python", "-m", "pip", "install", "--constraint", constraints, wheel)
    return programs


@pytest.fixture(scope="module")
def base(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(wheel, tmp_path_factory.mktemp("base"), ROOT / "constraints.txt")


@pytest.fixture(scope="module")
def oldest(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The oldest versions that pyproject.toml allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    floors = [f"{wanted.replace('>=', '==')}.*" for wanted in project["dependencies"]]
    folder = tmp_path_factory.mktemp("oldest")
    (folder / "floors.txt").write_text("\n".join(floors))
    return install(wheel, folder / "venv", folder / "floors.txt")


@pytest.fixture
def room(tmp_path: Path) -> Path:
    shutil.copy(TINY, tmp_path / "tiny.onnx")
    np.savez(tmp_path / "x.npz", input_ids=np.arange(8).reshape(2, 4))
    return tmp_path


def test_the_wheel_holds_our_packages_and_no_others(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [entry] = [name for name in names if name.endswith("entry_points.txt")]
        assert "loopedge = loopedge_cli.main:main" in archive.read(entry).decode()
    info = {name.split("/")[0] for name in names if ".dist-info/" in name}
    assert {name.split("/")[0] for name in names} == HOUSES | info
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert "loopedge/py.typed" in names
    assert not [name for name in names if name.endswith((".onnx", ".pt", ".pyc"))]
    parts = ROOT / "loopedge" / "packager" / "files"
    held = {
        path.relative_to(ROOT).as_posix()
        for path in parts.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held <= set(names)  # what bundles are made of
    assert {path.split("/")[3] for path in held} == {"c", "javascript", "node", "python", "web"}


def test_the_base_install_has_no_torch(base: Path) -> None:
    listed = json.loads(run(base / "python", "-m", "pip", "list", "--format", "json").stdout)
    names = {package["name"].lower() for package in listed}
    assert {"loopedge", "onnxruntime", "onnx-ir"} <= names
    assert not names & {"torch", "onnxscript", "onnxruntime-tools", "pytest"}
    run(base / "python", "-m", "pip", "check")


def test_the_torch_free_commands_work_there(base: Path, room: Path) -> None:
    use_the_torch_free_commands(base / "loopedge", room)


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="numpy 1.26 has no wheel for this Python")
def test_they_work_with_the_oldest_dependencies(oldest: Path, room: Path) -> None:
    use_the_torch_free_commands(oldest / "loopedge", room)


def use_the_torch_free_commands(program: Path, room: Path) -> None:
    inspection = json.loads(run(program, "inspect", "tiny.onnx", "--json", cwd=room).stdout)
    assert (inspection["form"], inspection["loops"]) == ("loop", 3)
    run(program, "quantize", "tiny.onnx", "-o", "q.onnx", cwd=room)
    run(program, "prepare", "q.onnx", cwd=room)
    for model in ("tiny.onnx", "q.onnx", "q.prepared.onnx"):
        run(program, "run", model, "--input", "x.npz", "-o", f"{model}.npz", cwd=room)
        with np.load(room / f"{model}.npz") as outputs:
            assert np.isfinite(outputs["logits"]).all()
    words = ("profile", "tiny.onnx", "q.onnx", "--untied", "--runs", "2", "--json")
    runs = json.loads(run(program, *words, "--html", "report.html", cwd=room).stdout)["runs"]
    assert sorted(str(each["twin"]) for each in runs) == ["None", "None", "untied", "untied"]
    assert (room / "report.html").stat().st_size > 0


@pytest.mark.parametrize("words", [("export", "m.pt"), ("train", "edit-distance", "-o", "m.pt")])
def test_a_command_that_needs_torch_says_so(base: Path, room: Path, words: tuple[str, ...]) -> None:
    ended = run(base / "loopedge", *words, cwd=room, code=2)
    first, second = ended.stderr.splitlines()
    assert "needs the extra 'train'" in first
    assert second == "hint: in a clone of loopedge: pip install -c constraints.txt -e '.[train]'"
    assert not list(room.glob("m.*"))


def test_a_verb_that_needs_torch_says_so(base: Path) -> None:
    program = (
        "import loopedge\n"
        "try:\n"
        "    loopedge.LoopedTransformer\n"
        "except loopedge.errors.MissingExtraError as error:\n"
        "    print(error, error.hint)\n"
    )
    said = run(base / "python", "-c", program).stdout
    assert (
        said
        == "loopedge.LoopedTransformer needs the extra 'train' in a clone of loopedge: pip install -c constraints.txt -e '.[train]'\n"
    )
