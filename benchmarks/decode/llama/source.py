"""llama.cpp from the pinned source of llama-cpp-python: libllama alone, built for this processor.

Flags are set one by one from what the processor has, never by `GGML_NATIVE`: the build for AMX crashes on q4_0 and q8_0
(ggml-org/llama.cpp#20824).

    python -m benchmarks.decode.llama.source
"""

import platform
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

__all__ = ["SOURCE", "LlamaMissingError", "build_flags", "build_library"]

FOLDER = Path(__file__).parents[3] / "build" / "decode"
REQUIREMENTS = Path(__file__).parent / "requirements"
SOURCE = FOLDER / "source" / "vendor" / "llama.cpp"
BUILD = FOLDER / "llama"
FLAGS = {
    "sse4_2": "SSE42",
    "avx": "AVX",
    "avx2": "AVX2",
    "bmi2": "BMI2",
    "fma": "FMA",
    "f16c": "F16C",
    "avx_vnni": "AVX_VNNI",
    "avx512f": "AVX512",
    "avx512_vbmi": "AVX512_VBMI",
    "avx512vbmi": "AVX512_VBMI",
    "avx512_vnni": "AVX512_VNNI",
    "avx512_bf16": "AVX512_BF16",
}
"""Options of ggml by what /proc/cpuinfo calls the instructions."""

OFF = (
    "GGML_NATIVE",
    "GGML_AMX_TILE",
    "GGML_AMX_INT8",
    "GGML_AMX_BF16",
    "GGML_CCACHE",
    "LLAMA_BUILD_COMMON",
    "LLAMA_BUILD_TESTS",
    "LLAMA_BUILD_TOOLS",
    "LLAMA_BUILD_EXAMPLES",
    "LLAMA_BUILD_SERVER",
    "LLAMA_BUILD_APP",
    "LLAMA_USE_PREBUILT_UI",
)


class LlamaMissingError(RuntimeError):
    """The library cannot be had; the message says in one line why."""


def build_flags() -> list[str]:
    """Return the flags of cmake for this processor."""
    flags = [f"-D{name}=OFF" for name in OFF]
    flags += ["-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=ON"]
    if platform.machine() not in ("x86_64", "AMD64"):
        return [*(flag for flag in flags if "NATIVE" not in flag), "-DGGML_NATIVE=ON"]
    words = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").split()
    options = dict.fromkeys(FLAGS.values(), False)
    for word, option in FLAGS.items():
        options[option] |= word in words
    return flags + [f"-DGGML_{name}={'ON' if has else 'OFF'}" for name, has in options.items()]


def build_library(jobs: int = 1) -> Path:
    """Return libllama, built where it is missing; five minutes with one job.

    Args:
        jobs: Compilers at a time.

    Raises:
        LlamaMissingError: The source or the tools cannot be installed, or the build failed.
    """
    library, stamp = BUILD / "bin" / "libllama.so", BUILD / "flags.txt"
    flags = build_flags()
    if library.exists() and stamp.exists() and stamp.read_text() == "\n".join(flags):
        return library
    tools = _tools()
    _unpack(tools)
    configure = [str(tools / "cmake"), "-S", str(SOURCE), "-B", str(BUILD), "-G", "Ninja", *flags]
    _run([*configure, f"-DCMAKE_MAKE_PROGRAM={tools / 'ninja'}"])
    print("building llama.cpp", file=sys.stderr, flush=True)
    _run([str(tools / "cmake"), "--build", str(BUILD), "--target", "llama", f"-j{jobs}"])
    stamp.write_text("\n".join(flags))
    return library


def _tools() -> Path:
    """Return the folder that holds cmake and ninja, installed where they are missing."""
    home = FOLDER / "env"
    folder = home / "bin"
    if not (folder / "ninja").exists():
        venv.create(home, with_pip=True)
        _run([str(folder / "pip"), "install", "--quiet", "-r", str(REQUIREMENTS / "build.txt")])
    return folder


def _unpack(tools: Path) -> None:
    if (SOURCE / "CMakeLists.txt").exists():
        return
    fetched = FOLDER / "fetched"
    words = [str(tools / "pip"), "download", "--quiet", "--no-deps", "--no-build-isolation"]
    words += ["--no-binary", ":all:", "--require-hashes", "--dest", str(fetched)]
    _run([*words, "--requirement", str(REQUIREMENTS / "llama.txt")])
    (archive,) = fetched.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(FOLDER, filter="data")
    (FOLDER / archive.name.removesuffix(".tar.gz")).rename(FOLDER / "source")


def _run(words: list[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise LlamaMissingError(f"{Path(words[0]).name}: {lines[-1]}")


if __name__ == "__main__":
    print(build_library())
