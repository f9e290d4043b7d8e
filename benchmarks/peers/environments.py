"""An environment for each toolchain, from a list of pinned packages; loopedge runs in its own.

python -m benchmarks.peers.environments [NAME...]
"""

import subprocess
import sys
import venv
from pathlib import Path

__all__ = ["FOLDER", "OWN", "ROOT", "direct_versions", "environment_of", "python_path"]

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "peers"
REQUIREMENTS = Path(__file__).with_name("requirements")
OWN = "loopedge"
NAMES = tuple(sorted(path.stem for path in REQUIREMENTS.glob("*.txt")))


def environment_of(name: str) -> Path | str:
    """Return the interpreter of an environment, made where it is missing or out of date.

    Returns:
        The interpreter, or one line that says why there is none.
    """
    if name == OWN:
        return Path(sys.executable)
    home = FOLDER / "env" / name
    python, stamp = home / "bin" / "python", home / "installed.txt"
    wanted = REQUIREMENTS / f"{name}.txt"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted.read_text(encoding="utf-8"):
        return python
    print(f"installing {name}", file=sys.stderr, flush=True)
    if not python.exists():
        venv.create(home, with_pip=True)
    words = [str(python), "-m", "pip", "install", "--quiet", "--requirement", str(wanted)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        return f"not installed: {errors[-1] if errors else f'pip ended with {done.returncode}'}"
    stamp.write_bytes(wanted.read_bytes())
    return python


def python_path(name: str) -> str:
    """Return PYTHONPATH: the library and these programs; calibration only where loopedge runs."""
    return ":".join([str(ROOT), *([str(ROOT / "calibration")] if name == OWN else [])])


def direct_versions(name: str) -> dict[str, str]:
    """Return the versions of the packages that were asked for, without what they pull in."""
    versions = {}
    for line in (REQUIREMENTS / f"{name}.txt").read_text(encoding="utf-8").splitlines():
        if not line.strip():
            break
        package, _, version = line.partition("==")
        versions[package] = version
    return versions


def main() -> int:
    """Make the named environments, or all."""
    failed = 0
    for name in sys.argv[1:] or NAMES:
        made = environment_of(name)
        failed += isinstance(made, str)
        print(f"{name}: {made if isinstance(made, str) else 'ready'}")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
