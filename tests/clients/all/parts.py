"""What make test-clients-all needs beside Python: looks for its tools, and fetches libraries of ONNX Runtime.

    python -m tests.clients.all.parts FOLDER

FOLDER/arm64 gets the library for ARM64, of the release that is installed here; FOLDER/oldest the one of 1.17 for this machine;
FOLDER/root what programs for ARM64 find under qemu-user: the C library, and no caches of a processor.
"""

import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import onnxruntime

__all__ = ["OLDEST", "SYSROOT", "TOOLS", "fetch_parts", "missing_tools"]

OLDEST = "1.17.3"
SYSROOT = Path("/usr/aarch64-linux-gnu")
TOOLS = {
    "cc": "gcc",
    "clang": "clang",
    "g++": "g++",
    "make": "make",
    "npm": "npm",
    "qemu-aarch64": "qemu-user",
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu",
    "chromium": "chromium",
}
"""What is looked for, and the Debian package that brings it."""

LIBRARIES = {"libc.so.6": "libc6-arm64-cross", "libstdc++.so.6": "libstdc++6-arm64-cross"}
CACHES, FILES = 8, (
    "level", "size", "type", "id", "shared_cpu_list", "shared_cpu_map", "coherency_line_size", "ways_of_associativity",
    "number_of_sets",
)  # fmt: skip


def missing_tools() -> list[str]:
    """Return the Debian packages that are not installed."""
    tools = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
    libraries = [
        package for name, package in LIBRARIES.items() if not (SYSROOT / "lib" / name).exists()
    ]
    return tools + libraries


def fetch_parts(folder: Path) -> None:
    """Fill a folder."""
    _fetch_arm64(folder / "arm64")
    _fetch_oldest(folder / "oldest")
    _make_root(folder / "root")


def _fetch_arm64(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    platforms = [f"--platform=manylinux_2_{glibc}_aarch64" for glibc in (27, 28)]
    version = f"onnxruntime=={onnxruntime.__version__}"
    words = [
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        *platforms,
        f"--dest={folder}",
    ]
    subprocess.run([sys.executable, "-m", "pip", *words, version], check=True)
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if Path(name).name.startswith("libonnxruntime.so"):
                (folder / Path(name).name).write_bytes(archive.read(name))
    wheel.unlink()


def _fetch_oldest(folder: Path) -> None:
    """Take the library out of the package for Node: wheels of that release hold none."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package.json").write_text("{}\n")
    words = [
        "npm",
        "install",
        "--ignore-scripts",
        "--no-package-lock",
        "--no-audit",
        "--no-fund",
        "--loglevel=error",
    ]
    subprocess.run([*words, f"onnxruntime-node@{OLDEST}"], cwd=folder, check=True)
    kind = {"x86_64": "x64", "aarch64": "arm64"}[platform.machine()]
    for library in folder.glob(
        f"node_modules/onnxruntime-node/bin/*/linux/{kind}/libonnxruntime.so*"
    ):
        shutil.copy(library, folder)
    shutil.rmtree(folder / "node_modules")


def _make_root(folder: Path) -> None:
    """Programs look for the processor's caches; files that are empty keep them from those of this machine."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "lib").exists():
        (folder / "lib").symlink_to(SYSROOT / "lib")
    for core in Path("/sys/devices/system/cpu").glob("cpu[0-9]*"):
        for cache in range(CACHES):
            place = folder / core.relative_to("/") / "cache" / f"index{cache}"
            place.mkdir(parents=True, exist_ok=True)
            for name in FILES:
                (place / name).touch()


def main() -> None:
    """Say what is missing, in one line, or fetch."""
    missing = missing_tools()
    if missing:
        sys.exit(f"error: make test-clients-all needs more: apt-get install {' '.join(missing)}")
    fetch_parts(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
