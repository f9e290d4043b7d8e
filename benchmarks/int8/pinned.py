"""What it costs to pin a process to one core before it imports onnxruntime, on a processor with AMX.

A fresh process multiplies 128 positions by twelve int8 weights of 768 x 768 in turn, pinned to a core before or after the
import. By the thread's own time, the best of 200 runs. Seconds.

    python benchmarks/int8/pinned.py [--output benchmarks/results/int8]
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from loopedge.runtime.processor import this_processor

CHILD = """
import os, sys
sys.path.insert(0, sys.argv[1])
def pin():
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
if sys.argv[2] == "before":
    pin()
import time
import onnxruntime
if sys.argv[2] == "after":
    pin()
from cold_products import WEIGHTS, mlas
run, found = mlas(("uint8", "int8"), WEIGHTS, packed=True), []
for _ in range(200):
    started = time.thread_time()
    run()
    found.append((time.thread_time() - started) * 1e6 / WEIGHTS)
print(min(found))
"""
ROUNDS = 3


def main() -> int:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder for pinned.md")
    arguments = parser.parse_args()
    if not hasattr(os, "sched_setaffinity"):
        print("this system pins no process")
        return 0
    best = dict.fromkeys(("before", "after", "never"), float("inf"))
    for _ in range(ROUNDS):
        for when in best:
            command = [sys.executable, "-c", CHILD, str(Path(__file__).parent), when]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            best[when] = min(best[when], float(said))
    lines = [
        f"{this_processor().name}; a product of uint8 by int8, 128 x 768 by 768 x 768, microseconds, the best of {ROUNDS} processes.",
        "",
        "| pinned to one core | us |",
        "|---|---|",
        f"| before onnxruntime is imported | {best['before']:.0f} |",
        f"| after | {best['after']:.0f} |",
        f"| never | {best['never']:.0f} |",
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "pinned.md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
