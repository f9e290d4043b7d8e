"""How long does a table of 130 MB take to read, and how much memory, beside pyarrow's own CSV reader?

A CSV of numbers, and one with a column of text that is not read. Each row is a fresh process: processor seconds, and by how much
its memory grew at most. The task is read as `loopedge train series` reads it, with its times, judged column by column. Blocks
(exit code 4): a task of the file with text grows by less than 100 MB. A minute.

    python benchmarks/series/reading.py [--output benchmarks/results/series]
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

LEAST_BYTES = 130_000_000
ALLOWED_BYTES = 100_000_000
EXIT_BOUND = 4
NUMBERS, TEXT = "numbers alone", "with a column of text"
SETUP = """
import sys, time
from pathlib import Path

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

path, names = sys.argv[1], ["a", "b", "c"]
"""
READERS = {
    "loopedge, the columns": (
        "from loopedge.data.tables.reading import Selection, read_table",
        'held = read_table(path, Selection(numbers=("a", "b", "c"))).values.nbytes',
    ),
    "loopedge, the task": (
        "from loopedge.tasks.series import SeriesTask",
        'held = SeriesTask.from_file(path, targets=["a", "b"], covariates=["c"], time_column="t", context=48, '
        "horizon=12).columns.values.nbytes",
    ),
    "pyarrow's CSV reader": (
        "import numpy, pyarrow.csv as pc; from array import array",
        """
values = array("d")
options = pc.ConvertOptions(include_columns=names)
for batch in pc.open_csv(path, read_options=pc.ReadOptions(use_threads=False), convert_options=options):
    values.frombytes(numpy.column_stack([batch.column(name).to_numpy() for name in names]).tobytes())
held = len(values) * 8
""",
    ),
}


def main() -> int:
    """Measure, print a Markdown table, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--output", type=Path, help="folder for reading.md and .json")
    arguments = parser.parse_args()
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in (NUMBERS, TEXT):
            path = _write(Path(folder) / "table.csv", kind)
            size = path.stat().st_size
            found += [
                {"file": kind, "bytes": size, "reader": reader, **_read(path, reader)}
                for reader in READERS
            ]
    lines = [
        "| file | MB | read by | processor seconds | grew by, MB | of it values |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one['file']} | {one['bytes'] / 1e6:.0f} | {one['reader']} | {one['seconds']:.1f} | {one['grown'] / 1e6:.0f} | "
        f"{one['held'] / 1e6:.0f} |"
        for one in found
    ]
    [task] = [one for one in found if (one["file"], one["reader"]) == (TEXT, "loopedge, the task")]
    lines += [
        "",
        f"The task of the file with text: {task['grown'] / 1e6:.0f} MB of {ALLOWED_BYTES / 1e6:.0f} allowed.",
    ]
    print("\n".join(lines))
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "reading.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
        text = json.dumps(found, indent=1) + "\n"
        (arguments.output / "reading.json").write_text(text, encoding="utf-8")
    return EXIT_BOUND if task["grown"] >= ALLOWED_BYTES else 0


def _write(path: Path, kind: str) -> Path:
    """Write a table of `LEAST_BYTES` at least."""
    note = ",a note of the row that is not read " * 2 if kind == TEXT else ""
    with path.open("w", encoding="utf-8") as file:
        file.write("t,a,b,c" + (",note,more" if note else "") + "\n")
        row = 0
        while file.tell() < LEAST_BYTES:
            rows = range(row, row + 10_000)
            file.writelines(f"{r},{r % 97}.25,{r % 89}.5,{r % 83}.75{note}\n" for r in rows)
            row += 10_000
    return path


def _read(path: Path, reader: str) -> dict[str, float]:
    """Read a table in a process of its own."""
    imports, read = READERS[reader]
    program = (
        f"{SETUP}\n{imports}\nbefore, started = peak(), time.process_time()\n{read}\n"
        "print(time.process_time() - started, peak() - before, held)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True
    )
    seconds, grown, held = map(float, done.stdout.split())
    return {"seconds": seconds, "grown": grown, "held": held}


if __name__ == "__main__":
    sys.exit(main())
