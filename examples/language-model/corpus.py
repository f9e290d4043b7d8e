"""Text that is on any machine: the Python standard library, cut into three files.

    python examples/language-model/corpus.py build/language-model

writes ``train.txt``, ``validation.txt`` and ``test.txt`` there. Whole files are held out, chosen by a hash of their
names: the text that judges is of modules that the model has never seen. Each Python release has its own text, so
figures differ a little between them.
"""

import argparse
import hashlib
import sysconfig
from collections.abc import Iterator
from pathlib import Path

HELD_OUT = {0: "validation", 1: "test"}
PARTS = 20
"""Two of twenty files, by their hash, do not train."""

LEFT_OUT = {
    "__pycache__",
    "dist-packages",
    "encodings",  # tables
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "site-packages",
    "test",
    "tests",
    "turtledemo",
}


def sources() -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each module of the standard library."""
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        name = path.relative_to(library)
        if LEFT_OUT.isdisjoint(name.parts):
            try:
                yield name.as_posix(), path.read_text(encoding="utf-8")
            except (UnicodeDecodeError, OSError):
                continue


def main() -> None:
    """Write the three files."""
    parser = argparse.ArgumentParser(description="Write text to train, validate and test on.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--modules", type=int, help="Take so many modules alone, for a try.")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    texts: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for count, (name, text) in enumerate(sources()):
        if arguments.modules is not None and count >= arguments.modules:
            break
        place = int(hashlib.sha256(name.encode()).hexdigest(), 16) % PARTS
        texts[HELD_OUT.get(place, "train")].append(text)
    for part, found in texts.items():
        target = arguments.folder / f"{part}.txt"
        target.write_text("".join(found), encoding="utf-8", newline="\n")
        print(f"{target}: {len(found)} modules, {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
