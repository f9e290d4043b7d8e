"""Build the C client of a bundle, and run its programs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["DTYPES", "Programs", "build", "runtime_folder"]

PROBE = Path(__file__).parent / "c" / "probe.c"
DTYPES = {1: np.float32, 6: np.int32, 7: np.int64, 11: np.float64}
"""By the numbers of `loopedge_dtype`."""

QUICK = "-O0 -g"
"""Of the compiler: the programs run once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """The programs of a bundle.

    Args:
        bundle: Its folder.
        folder: Where they are.
        prefix: Words in front of each: an emulator.
        environment: Variables of each.
    """

    bundle: Path
    folder: Path
    prefix: tuple[str, ...] = ()
    environment: Mapping[str, str] | None = None

    def run(self, program: str, *words: object) -> subprocess.CompletedProcess[str]:
        """Run one of them; its output is text."""
        return subprocess.run(
            [*self.prefix, self.folder / program, *map(str, words)],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            env={**os.environ, **(self.environment or {})},
        )

    def verify(self, bundle: Path | None = None) -> list[dict[str, Any]]:
        """Return what the program that checks vectors prints, where all of them pass."""
        done = self.run("verify", bundle or self.bundle)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert done.returncode == 0, done.stdout + done.stderr
        return lines

    def refused(self, program: str, *words: object) -> str:
        """Return the one line with which a program refuses something."""
        done = self.run(program, *words)
        assert done.returncode == 1, (done.stdout, done.stderr)
        [line] = done.stderr.splitlines()
        return line

    def outputs(self, arrays: Mapping[str, Any], work: Path, *options: str) -> dict[str, Any]:
        """Return what the bundle computes from arrays."""
        words = self.words(arrays, work, *options)
        done = self.run("probe", *words)
        assert done.returncode == 0, done.stderr
        found = {}
        for line in done.stdout.splitlines():
            name, dtype, *shape = line.split()
            content = np.fromfile(work / f"{name}.bin", DTYPES[int(dtype)])
            found[name] = content.reshape([int(size) for size in shape])
        return found

    def words(self, arrays: Mapping[str, Any], work: Path, *options: str) -> list[object]:
        """Write arrays for the probe; return what it is called with."""
        words: list[object] = [self.bundle, *options, "run", work]
        for name, array in arrays.items():
            path = work / f"{name}.in"
            path.write_bytes(np.ascontiguousarray(array).tobytes())
            words.append(f"{name}:{array.dtype}:{','.join(map(str, array.shape))}:{path}")
        return words


def runtime_folder() -> Path:
    """Return the folder of the library of ONNX Runtime: wheels of recent releases hold it."""
    folder = Path(onnxruntime.__file__).parent / "capi"
    assert list(folder.glob("libonnxruntime.so*")) + list(folder.glob("libonnxruntime*.dylib")), (
        f"onnxruntime {onnxruntime.__version__} brings no library for C: run make test-clients in a clone"
    )
    return folder


def build(
    bundle: Path, *, probe: bool = False, name: str = "build", flags: str = QUICK,
    runtime: Path | None = None, compiler: str = "cc", programs: Sequence[str] = (), **others: Any,
) -> Programs:  # fmt: skip
    """Build programs of a bundle with its own Makefile, all unless some are named, and the probe with them."""
    for tool, package in (("make", "make"), (compiler, "gcc")):
        assert shutil.which(tool), f"there is no {tool}: apt-get install {package}"
    folder = bundle / "c"
    settings = [
        f"ORT={runtime or runtime_folder()}",
        f"OUT={name}",
        f"CFLAGS={flags}",
        f"CC={compiler}",
    ]
    _run(
        [
            "make",
            "--silent",
            f"--directory={folder}",
            *settings,
            *(f"{name}/{one}" for one in programs),
        ]
    )
    if probe:
        words = [
            compiler, "-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror", *flags.split(), f"-I{folder}", "-o",
            folder / name / "probe", PROBE, *(folder / name).glob("loopedge*.o"), f"-L{folder / name / 'lib'}",
            "-lonnxruntime", "-lm", f"-Wl,-rpath,{folder / name / 'lib'}",
        ]  # fmt: skip
        _run(words)
    return Programs(bundle=bundle, folder=folder / name, **others)


def _run(words: list[Any]) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
