"""The client for C by other compilers, from C++, with ONNX Runtime 1.17, and on an emulated ARM64."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import loopedge
from tests.clients.all.parts import OLDEST
from tests.clients.c_programs import build, runtime_folder
from tests.clients.test_oldest import write_old

if TYPE_CHECKING:
    from collections.abc import Callable

CORE = "neoverse-n1"
"""The processor that qemu emulates: of ``max`` dynamic int8 is wrong, for its SME is."""

FROM_CPP = """\
#include <cstdio>
#include "loopedge.h"
#include "loopedge_model.h"

int main(int, char **words) {
  loopedge_error error;
  loopedge_model *model = loopedge_open(&LOOPEDGE_MODEL, words[1], nullptr, &error);
  std::puts(model ? LOOPEDGE_MODEL.name : error.text);
  loopedge_close(model);
  return model ? 0 : 1;
}
"""


@pytest.fixture(scope="session")
def parts() -> Path:
    """Return the folder that `tests.clients.all.parts` fills."""
    folder = Path(os.environ.get("ALL_CLIENTS", "")).absolute()
    assert (folder / "root").is_dir(), "there is nothing to run on: run make test-clients-all"
    return folder


@pytest.fixture(scope="session")
def bundle_for_c(
    written_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Make the bundle of a kind of model for C when it is first asked for; ``dynamic`` and ``oldest`` are made here."""
    folder = tmp_path_factory.mktemp("elsewhere")

    def bundle(kind: str) -> Path:
        target = folder / kind
        if not target.exists():
            source = folder / f"{kind}.onnx"
            if kind == "dynamic":
                options = {"scheme": "dynamic", "reduce_range": True, "min_sqnr_db": 0.0}
                loopedge.quantize(written_model("large"), source, threads=1, **options)  # type: ignore[arg-type]
            elif kind == "oldest":
                source = write_old("int8", written_model, folder)
            else:
                source = written_model(kind)
            loopedge.package(source, target, clients=("c",), threads=1)
        return target

    return bundle


def names(bundle: Path) -> list[str]:
    return [one["name"] for one in json.loads((bundle / "manifest.json").read_text())["vectors"]]


@pytest.mark.parametrize("kind", ["forecast", "gaps", "int8", "dynamic", "large", "text", "oldest"])
def test_a_bundle_passes_its_vectors_on_an_emulated_arm64(
    kind: str, parts: Path, bundle_for_c: Callable[[str], Path]
) -> None:
    bundle = bundle_for_c(kind)
    programs = build(
        bundle, name="arm64", flags="-O2", compiler="aarch64-linux-gnu-gcc", runtime=parts / "arm64",
        programs=("verify",), prefix=("qemu-aarch64", "-cpu", CORE, "-L", str(parts / "root")),
    )  # fmt: skip
    assert [one["vector"] for one in programs.verify()] == names(bundle)


@pytest.mark.parametrize("flags", ["-O3", "-Os", "-O2 -Wconversion -Wshadow"])
@pytest.mark.parametrize("compiler", ["cc", "clang"])
def test_no_compiler_warns(compiler: str, flags: str, bundle_for_c: Callable[[str], Path]) -> None:
    bundle = bundle_for_c("forecast")
    name = f"{compiler}{flags.replace(' ', '')}"
    programs = build(bundle, name=name, flags=flags, compiler=compiler)
    assert [one["vector"] for one in programs.verify()] == names(bundle)


def test_a_program_in_cpp_opens_a_bundle(
    bundle_for_c: Callable[[str], Path], tmp_path: Path
) -> None:
    bundle = bundle_for_c("gaps")
    folder = build(bundle, programs=("verify",)).folder
    (tmp_path / "opens.cpp").write_text(FROM_CPP)
    words = ["g++", "-std=c++17", "-Wall", "-Wextra", "-pedantic", "-Werror", f"-I{bundle / 'c'}"]
    words += [
        "-o",
        str(tmp_path / "opens"),
        str(tmp_path / "opens.cpp"),
        *map(str, folder.glob("loopedge*.o")),
    ]
    words += [f"-L{folder / 'lib'}", "-lonnxruntime", "-lm", f"-Wl,-rpath,{folder / 'lib'}"]
    subprocess.run(words, check=True, timeout=300)
    done = subprocess.run(
        [tmp_path / "opens", bundle], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "gaps\n", "")


def test_a_bundle_of_opset_18_passes_its_vectors_with_1_17(
    parts: Path, bundle_for_c: Callable[[str], Path]
) -> None:
    bundle = bundle_for_c("oldest")
    for runtime in (parts / "oldest", runtime_folder()):
        programs = build(bundle, name=runtime.name, runtime=runtime, programs=("verify",))
        assert [one["vector"] for one in programs.verify()] == names(bundle)


def test_a_bundle_of_a_newer_opset_is_refused_by_1_17_in_one_line(
    parts: Path, bundle_for_c: Callable[[str], Path]
) -> None:
    bundle = bundle_for_c("forecast")
    programs = build(bundle, name="oldest", runtime=parts / "oldest", programs=("verify",))
    line = programs.refused("verify", bundle)
    assert line.endswith(f"needs ONNX Runtime 1.23 or later, this is {OLDEST}")
