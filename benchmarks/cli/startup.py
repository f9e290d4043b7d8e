"""How long does the command line take to answer, and which packages does that import?

Each command runs in fresh processes, in turns; the least processor time of them is printed, since a busy machine
only adds to it. tests/cli/test_startup.py holds that nothing heavy is imported; the time itself stands here,
where a slow or busy machine reads `missed` and fails nothing. A quarter of a minute.

    python benchmarks/cli/startup.py
"""

import argparse
import os
import subprocess
import sys
import time

ROUNDS = 9
ALLOWED_S = 0.3
COMMANDS = {
    "import nothing": ("-c", ""),
    "loopedge --help": ("-m", "loopedge", "--help"),
    "loopedge --version": ("-m", "loopedge", "--version"),
    "loopedge profile --help": ("-m", "loopedge", "profile", "--help"),
}
LARGEST = 5


def processor_seconds(words: tuple[str, ...]) -> tuple[float, float]:
    """Run Python once; return seconds of processor time and of the clock."""
    before, start = os.times(), time.perf_counter()
    subprocess.run([sys.executable, *words], capture_output=True, check=True)
    took, after = time.perf_counter() - start, os.times()
    user = after.children_user - before.children_user
    return user + after.children_system - before.children_system, took


def slowest_imports() -> list[tuple[str, float]]:
    """Return the packages of ``--help`` that take longest, each with what it imports, in ms."""
    words = [sys.executable, "-X", "importtime", *COMMANDS["loopedge --help"]]
    imports = subprocess.run(words, capture_output=True, text=True, check=True).stderr
    rows = [line.removeprefix("import time:").split("|") for line in imports.splitlines()[1:]]
    found = [(name.strip(), int(whole) / 1e3) for _, whole, name in rows]
    return sorted(found, key=lambda one: -one[1])[:LARGEST]


def main() -> int:
    """Measure, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, words in COMMANDS.items():
            taken[name].append(processor_seconds(words))
    print(
        f"Least of {rounds} processes, ms; allowed are {1e3 * ALLOWED_S:.0f} of processor time.\n"
    )
    print("| command | processor | clock | |\n|---|---|---|---|")
    for name, times in taken.items():
        processor, clock = (min(column) for column in zip(*times, strict=True))
        verdict = "pass" if processor < ALLOWED_S else "missed"
        print(f"| `{name}` | {1e3 * processor:.0f} | {1e3 * clock:.0f} | {verdict} |")
    print(f"\nOf `--help`, the {LARGEST} imports that take longest, with what they import:\n")
    for package, ms in slowest_imports():
        print(f"- `{package}` {ms:.0f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
