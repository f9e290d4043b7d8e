"""The plug-in of OpenVINO for ONNX Runtime, in the environment `.venv-clients`: sessions, placement, outputs against the CPU."""

import os
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import loopedge
from benchmarks.reach.kinds import KINDS, write_kind
from loopedge.artifact.artifact import open_artifact, write_artifact
from loopedge.errors import LoopedgeError, ProviderError, VerificationError
from loopedge.graph.editing import initializer
from loopedge.profiler import provider_check
from loopedge.profiler.options import ProfileOptions
from loopedge.profiler.processes.measured_process import MeasuredProcess
from loopedge.profiler.provider_check import CheckedModel, check_providers
from loopedge.profiler.subjects.building import build_models, open_models

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests" / "fixtures" / "tiny.onnx"
OPENVINO, CPU = "OpenVINOExecutionProvider", "CPUExecutionProvider"
IDS = np.arange(8).reshape(1, 8)


@pytest.fixture(scope="session")
def clients() -> Path:
    """Return the interpreter of the environment that make test-clients sets up."""
    python = Path(os.environ.get("CLIENTS_PYTHON", "")).absolute()
    assert python.is_file(), "there is no environment of other engines: run make test-clients"
    return python


@pytest.fixture(scope="session")
def unrolled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("unrolled") / "tiny.unrolled.onnx"
    loopedge.unroll(TINY, target)
    return target


def ran(clients: Path, program: str) -> str:
    """Run a program with loopedge's own sources in the other environment; return what it printed."""
    ended = subprocess.run(
        [clients, "-c", program],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def test_a_session_runs_on_the_plug_in_and_agrees_with_the_cpu(
    clients: Path, unrolled: Path, tmp_path: Path
) -> None:
    given = tmp_path / "given.npy"
    shown = ran(
        clients,
        f"""
import numpy, loopedge
session = loopedge.Session({str(unrolled)!r}, provider="openvino", threads=1,
                           provider_options={{"INFERENCE_PRECISION_HINT": "f32"}})
numpy.save({str(given)!r}, session.run(numpy.arange(8).reshape(1, 8))["logits"])
print(session.provider, len(session.notes))
""",
    )
    assert shown.split()[0] == OPENVINO
    expected = loopedge.Session(unrolled).run({"input_ids": IDS})["logits"]
    assert np.abs(np.load(given) - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ('provider="openvino"', f"{OPENVINO} was asked for and does not run the Loop"),
        ('provider="webgpu"', "has no execution provider 'webgpu', it has azure, cpu, openvino"),
        (
            'provider="openvino", provider_options={"device_type": "npu"}',
            "finds no device of type 'npu' here",
        ),
    ],
)
def test_what_the_plug_in_does_not_run_is_one_line(clients: Path, asked: str, said: str) -> None:
    program = f"""
import loopedge
from loopedge.errors import ProviderError
try:
    loopedge.Session({str(TINY)!r}, {asked})
except ProviderError as error:
    print(error.message)
"""
    shown = ran(clients, program)
    assert said in shown
    assert "\n" not in shown


def checked(
    clients: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, *paths: Path
) -> Mapping[str, CheckedModel | LoopedgeError]:
    """Check models as a profile does, its processes in the other environment."""
    monkeypatch.setattr(provider_check, "MeasuredProcess", partial(MeasuredProcess, python=clients))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    options = ProfileOptions(provider="openvino", runs=3)
    folder.mkdir()
    models, _ = build_models(paths, open_models(paths), options, folder)
    found = check_providers(models, options, folder, lambda text: None)
    return {path.name: one for path, one in zip(paths, found, strict=True)}


KNOWN = {
    "float, unrolled": None,
    "float, loop, opset 18": None,
    "static, microsoft, unrolled": None,
    "static, standard, unrolled": None,
    "float, loop": "does not run the Loop",
    "dynamic, microsoft, unrolled": "runs none of the matrix products",
}
"""Kinds of files, and why OpenVINO does not run them; None: it does."""


def test_a_profile_compares_files_with_the_cpu_before_it_takes_a_time(
    clients: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {name: write_kind(KINDS[name], tmp_path).path for name in KNOWN}
    found = checked(clients, tmp_path / "scratch", monkeypatch, *files.values())
    for name, reason in KNOWN.items():
        one = found[files[name].name]
        if reason is not None:
            assert isinstance(one, ProviderError), name
            assert reason in one.message
            continue
        assert isinstance(one, CheckedModel), f"{name}: {one}"
        against = one.against_cpu
        assert against is not None
        assert one.assigned[OPENVINO][
            "MatMul" if "microsoft" not in name else "MatMulIntegerToFloat"
        ]
        assert against.limit_db is None or against.sqnr_db >= against.limit_db
        assert against.compared_with == ("float" if "static" in name else "cpu")


def test_a_file_that_means_something_else_there_is_found(
    clients: Path, unrolled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process of the provider gets a file whose head is scaled, as an engine that computes it wrongly would."""
    wrong = tmp_path / "wrong.onnx"
    graph = open_artifact(unrolled)
    norm = next(value for name, value in graph.graph.initializers.items() if name == "norm.weight")
    assert norm.const_value is not None
    scaled = initializer("norm.weight", norm.const_value.numpy() * np.float32(0.5))
    norm.const_value = scaled.const_value
    write_artifact(graph, wrong)

    def elsewhere(setup: Any, **keywords: Any) -> MeasuredProcess:
        there = replace(setup, model=wrong) if setup.provider == OPENVINO else setup
        return MeasuredProcess(there, python=clients, **keywords)

    monkeypatch.setattr(provider_check, "MeasuredProcess", elsewhere)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    options = ProfileOptions(provider="openvino", runs=3)
    folder = tmp_path / "scratch"
    folder.mkdir()
    models, _ = build_models([unrolled], open_models([unrolled]), options, folder)
    (found,) = check_providers(models, options, folder, lambda text: None)
    assert isinstance(found, VerificationError)
    assert found.measured == pytest.approx(6.0, abs=0.5)


@pytest.mark.parametrize("form", ["loop", "unrolled"])
def test_the_loader_of_a_bundle_says_what_stays_on_the_cpu(
    clients: Path, unrolled: Path, tmp_path: Path, form: str
) -> None:
    """The plug-in leaves operators of opset 23 to the CPU, and a Loop that holds them."""
    bundle = tmp_path / "bundle"
    loopedge.package(unrolled if form == "unrolled" else TINY, bundle, clients=("python",))
    shown = ran(
        clients,
        f"""
import sys, warnings
sys.path.insert(0, {str(bundle / "python")!r})
import loopedge_bundle
with warnings.catch_warnings(record=True) as found:
    warnings.simplefilter("always")
    loopedge_bundle.load(provider="openvino", model={form!r}, threads=1)
[warning] = found
print(warning.message, "in", warning.filename)
""",
    )
    assert "run on openvino, the others on the CPU in <string>" in shown
    there, together = (int(word) for word in shown.split() if word.isdigit())
    assert 0 < there < together
