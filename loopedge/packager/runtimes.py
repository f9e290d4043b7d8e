"""The runtime of each client inside the bundle, its licence beside it: for devices without a network.

It comes out of packages: a folder that holds them (``--packages``), else npm and pip are asked for them.
"""

import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import onnxruntime as ort

from loopedge.errors import InputError
from loopedge.options import option
from loopedge.packager.manifest import ClientName, Manifest
from loopedge.packager.static_files import npm_package

__all__ = ["FOLDER", "vendor_runtimes"]

FOLDER = "runtime"
WEB, NODE, COMMON, TOKENIZERS = (
    "onnxruntime-web",
    "onnxruntime-node",
    "onnxruntime-common",
    "@huggingface/tokenizers",
)
WEB_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
WEBGPU_FILES = (
    "ort.webgpu.min.mjs",
    "ort-wasm-simd-threaded.asyncify.mjs",
    "ort-wasm-simd-threaded.asyncify.wasm",
)
LICENCES = ("LICENSE", "ThirdPartyNotices.txt")
"""Of ONNX Runtime, as its package for Python holds them; those of npm hold none."""

BOARD = ("linux", "arm64")
NODE_NAMES = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64"}
SECONDS = 600


def vendor_runtimes(
    manifest: Manifest,
    folder: Path,
    scratch: Path,
    *,
    packages: Path | None,
    provider: str | None,
) -> dict[ClientName, list[str]]:
    """Put the runtimes of a bundle's clients into it.

    Args:
        manifest: Of the bundle.
        folder: The bundle.
        scratch: Where packages may be put that are dropped afterwards.
        packages: Folder with ``node_modules`` or its packages, and with wheels; None: npm and pip are asked.
        provider: Execution provider that was asked for: WebGPU has files of its own.

    Returns:
        The files by client, as paths inside the bundle.

    Raises:
        InputError: A package is missing, or npm or pip is.
    """
    target = folder / FOLDER
    target.mkdir()
    own = Path(ort.__file__).parent
    for name in LICENCES:
        if (own / name).is_file():
            shutil.copyfile(own / name, target / f"onnxruntime.{Path(name).stem}.txt")
    source = _Packages(packages, scratch)
    found: dict[ClientName, list[str]] = {}
    tokenizer = manifest.tokenizer is not None and manifest.tokenizer.kind == "tokenizers"
    for client in manifest.clients:
        if client == "web":
            paths = _vendor_web(
                source, target / "web", webgpu=provider == "webgpu", tokenizer=tokenizer
            )
        elif client == "node":
            paths = _vendor_node(source, target / "node_modules", tokenizer=tokenizer)
        elif client == "c":
            paths = _vendor_c(source, target)
        else:
            paths = _vendor_python(source, target / "python", tokenizer=tokenizer)
        found[client] = sorted(path.relative_to(folder).as_posix() for path in paths)
    return found


class _Packages:
    """Where packages come from."""

    def __init__(self, given: Path | None, scratch: Path) -> None:
        self.given, self.scratch = given, scratch
        if given is not None and not given.is_dir():
            raise InputError(f"{given} is not a folder of packages", hint=option("packages", "DIR"))

    def npm(self, name: str) -> Path:
        """Return the folder of an npm package."""
        if self.given is None:
            return self._installed(name)
        for place in (self.given / "node_modules", self.given, self.given.parent):
            if (place / name / "package.json").is_file():
                return place / name
        raise InputError(
            f"{self.given} holds no package {name}: a folder is needed in which it was installed",
            hint=f"npm install --ignore-scripts --prefix {self.given} {npm_package(name)}",
        )

    def _installed(self, name: str) -> Path:
        room = self.scratch / "npm"
        place = room / "node_modules" / name
        if place.is_dir():
            return place
        program = shutil.which("npm")
        if program is None:
            raise InputError(
                f"npm is not installed here, it brings {name}",
                hint=f"{option('packages', 'DIR')} of a machine that has it, after: npm install --ignore-scripts "
                f"--prefix DIR {npm_package(name)}",
            )
        room.mkdir(exist_ok=True)
        words = [
            program,
            "install",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--prefix",
            str(room),
        ]
        _run([*words, npm_package(name)], name)
        return place

    def wheels(self, names: list[str], target: Path) -> list[Path]:
        """Bring wheels into a folder."""
        target.mkdir()
        if self.given is None:
            words = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary", ":all:"]
            _run([*words, "--dest", str(target), *names], names[0])
            return sorted(target.glob("*.whl"))
        known = sorted(self.given.glob("*.whl"))
        if not any(path.name.startswith("onnxruntime-") for path in known):
            raise InputError(
                f"{self.given} holds no wheel of onnxruntime",
                hint=f"python -m pip download --dest {self.given} {' '.join(names)}",
            )
        return [Path(shutil.copyfile(path, target / path.name)) for path in known]


def _run(words: list[str], what: str) -> None:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise _refused(what, f"no answer for {SECONDS} s") from None
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise _refused(what, lines[0] if lines else f"exit status {done.returncode}")


def _refused(what: str, reason: str) -> InputError:
    return InputError(
        f"the package {what} cannot be fetched: {reason}",
        hint=f"{option('packages', 'DIR')} with the packages, or leave out {option('with_runtime')}",
    )


def _copy(source: Path, names: Iterable[str], target: Path) -> list[Path]:
    target.mkdir(exist_ok=True)
    copied = []
    for name in names:
        if not (source / name).is_file():
            raise InputError(
                f"{source} lacks {name}: it is another version of the package",
                hint="install it anew",
            )
        copied.append(Path(shutil.copyfile(source / name, target / name)))
    return copied


def _vendor_web(packages: _Packages, target: Path, *, webgpu: bool, tokenizer: bool) -> list[Path]:
    dist = packages.npm(WEB) / "dist"
    copied = _copy(dist, (*WEB_FILES, *(WEBGPU_FILES if webgpu else ())), target)
    if tokenizer:
        package = packages.npm(TOKENIZERS)
        copied += _copy(package / "dist", ["tokenizers.min.mjs"], target)
        copied += _licence(package, target / "tokenizers.LICENSE.txt")
    return copied


def _licence(package: Path, target: Path) -> list[Path]:
    found = next(
        (path for path in sorted(package.iterdir()) if path.name.lower().startswith("licen")), None
    )
    return [] if found is None else [Path(shutil.copyfile(found, target))]


def _vendor_node(packages: _Packages, target: Path, *, tokenizer: bool) -> list[Path]:
    """Copy the packages that Node finds; of the libraries those of this machine and of boards."""
    node = packages.npm(NODE)
    for name in (NODE, COMMON, *([TOKENIZERS] if tokenizer else [])):
        shutil.copytree(packages.npm(name), target / name, ignore=_left_out)
    binaries = next(iter(sorted((node / "bin").glob("napi-*"))), None)
    if binaries is None:
        raise InputError(
            f"{node} holds no library: it was not installed whole", hint="install it anew"
        )
    for system, machine in _machines():
        place = Path(system) / machine
        if (binaries / place).is_dir():
            shutil.copytree(binaries / place, target / NODE / "bin" / binaries.name / place)
    return [path for path in target.rglob("*") if path.is_file()]


def _left_out(folder: str, names: list[str]) -> list[str]:
    """Leave out the libraries of all machines, what installs, and sources with their maps."""
    dropped = {"node_modules", "lib"}
    if Path(folder).name == NODE:
        dropped |= {"bin", "script"}
    return [name for name in names if name in dropped or name.endswith(".map")]


def _vendor_c(packages: _Packages, target: Path) -> list[Path]:
    """Take the library out of the package for Node: of this machine into ``c``, of boards beside it."""
    binaries = next(iter(sorted((packages.npm(NODE) / "bin").glob("napi-*"))), None)
    copied: list[Path] = []
    for number, (system, machine) in enumerate(_machines()):
        place = None if binaries is None else binaries / system / machine
        found = (
            []
            if place is None
            else [*place.glob("libonnxruntime.*1*"), *place.glob("onnxruntime.dll")]
        )
        names = sorted({path.name for path in found}, key=len)[:1]
        if place is not None and names:
            folder = target / ("c" if number == 0 else f"c-{system}-{machine}")
            copied += _copy(place, names, folder)
    if not copied:
        raise InputError(
            f"the package {NODE} holds no library for this machine: {platform.system()} {platform.machine()}",
            hint=f"leave out {option('with_runtime')}",
        )
    return copied


def _machines() -> list[tuple[str, str]]:
    """Return the system and processor of this machine, and of boards, as Node calls them."""
    system = {"Windows": "win32"}.get(platform.system(), platform.system().lower())
    name = platform.machine().lower()
    return list(dict.fromkeys([(system, NODE_NAMES.get(name, name)), BOARD]))


def _vendor_python(packages: _Packages, target: Path, *, tokenizer: bool) -> list[Path]:
    names = [f"onnxruntime=={ort.__version__}", "numpy", *(["tokenizers"] if tokenizer else [])]
    return packages.wheels(names, target)
