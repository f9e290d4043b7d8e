"""Does `loopedge reroll` give the files of other tools their loops back? Models x exporters x optimizers.

Writes the files in an environment of its own (`requirements.txt`, `processes/write_files.py`), which knows nothing of loopedge, and
keeps them in ``build/reroll``. Each is re-rolled by the command in a process of its own, then both files are computed on two
sizes of inputs. What blocks (exit code 4): a wrong result, and a file that is rolled less than
`benchmarks/results/reroll/matrix.json` says: fewer or other loops, more nodes, more bytes. What ONNX Runtime writes with all its
optimizers hangs on the processor: such rows advise. Twenty minutes, 3 GB of disk and a package index.

    python -m benchmarks.reroll.matrix [--output benchmarks/results/reroll] [--subject NAME]...

With a choice of subjects, exporters or optimizers, the other rows of ``--output`` stay as they are.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import venv
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.reroll.outcomes import RIGHT, Outcome, reroll
from loopedge.profiler.machine import describe_machine

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "reroll"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
COMMITTED = ROOT / "benchmarks" / "results" / "reroll" / "matrix.json"
BY_PROCESSOR = "ort-all"
MORE_BYTES = 64
"""A file may be larger than the committed one by so much: names and versions in its metadata."""

RANKS = {"whole": 3, "peeled": 2, "other": 1, "unchanged": 1}
"""Kinds of outcome: a row that goes down is worse."""

Rows = dict[str, Outcome]


def environment() -> Path:
    """Return the interpreter of the exporters' environment, made where it is missing or out of date."""
    home = FOLDER / "env"
    python, stamp = home / "bin" / "python", home / "installed.txt"
    wanted = REQUIREMENTS.read_text(encoding="utf-8")
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        venv.create(home, with_pip=True)
        words = [str(python), "-m", "pip", "install", "--quiet", "--requirement", str(REQUIREMENTS)]
        subprocess.run(words, check=True)
        stamp.write_text(wanted, encoding="utf-8")
    return python


def write_files(
    python: Path, folder: Path, choices: list[str]
) -> tuple[dict[str, str | None], Any]:
    """Write the files; return why each could not be written, or None, and the loops of each subject."""
    ask = "from benchmarks.reroll.subjects import SUBJECTS as s; import json; "
    ask += "print(json.dumps({n: [list(x.loops), x.known] for n, x in s.items()}))"
    known = json.loads(_ask(python, ["-c", ask])[-1])
    lines = _ask(python, ["-m", "benchmarks.reroll.processes.write_files", str(folder), *choices])
    rows = [json.loads(line) for line in lines if line.startswith("{")]
    return {row["file"]: row["reason"] for row in rows}, known


def _ask(python: Path, words: list[str]) -> list[str]:
    quiet = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [python, *words],
        env=quiet,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def measure(files: Mapping[str, str | None], known: Mapping[str, Any], folder: Path) -> Rows:
    """Re-roll every file that there is, two at a time."""

    def one(name: str) -> Outcome:
        subject = name.split(".")[0]
        references = [folder / f"{subject}.{i}.npz" for i in range(2)]
        found = reroll(folder / f"{name}.onnx", tuple(known[subject][0]), references)
        print(f"{name}: {found.kind} {found.loops or found.reason}", file=sys.stderr, flush=True)
        return found

    names = [name for name, reason in files.items() if reason is None]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as workers:
        return dict(zip(names, workers.map(one, names), strict=True))


def changes(rows: Rows, before: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, bool]]:
    """Yield what differs from the committed figures, and whether it blocks."""
    for name, row in rows.items():
        blocks = BY_PROCESSOR not in name
        if row.kind in ("wrong", "failed"):
            yield f"{name}: {row.kind}: {row.reason or f'error {row.error:.1e}'}", True
        old = before.get(name)
        if old is None:
            continue
        if (row.kind, row.loops) != (old["kind"], old.get("loops", [])):
            was, now = (f"{one['kind']} {one.get('loops', '')}" for one in (old, row.to_json()))
            worse = RANKS.get(row.kind, 0) < RANKS.get(old["kind"], 0)
            yield f"{name}: {was} -> {now}", blocks and worse
        elif row.loops and row.nodes[1] != old["nodes"][1]:
            more = row.nodes[1] > old["nodes"][1]
            yield f"{name}: {old['nodes'][1]} -> {row.nodes[1]} nodes", blocks and more
        elif row.loops and row.bytes[1] > old["bytes"][1] + MORE_BYTES:
            yield f"{name}: {old['bytes'][1]} -> {row.bytes[1]} bytes", blocks


def lines_of(
    rows: Rows, files: Mapping[str, str | None], known: Mapping[str, Any]
) -> Iterator[str]:
    """Yield the lines of the page."""
    machine = describe_machine()
    counts = Counter(row.kind for row in rows.values())
    missing = sum(reason is not None for reason in files.values())
    kinds = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
    yield f"ONNX Runtime {machine['onnxruntime']}. {len(rows)} files: {kinds}. {missing} more their tools could not write."
    yield ""
    yield "Whole: the loops that the model is written with. Peeled: those, less a first or last iteration. Other: other"
    yield "loops, rightly computed. Unchanged: no loop, and there is none. Cells: iterations (`+1` peeled), nodes before -> after."
    optimizers = list(dict.fromkeys(name.split(".")[2] for name in files))
    yield ""
    yield f"| model | as written | exporter | {' | '.join(optimizers)} |"
    yield "|" + "---|" * (3 + len(optimizers))
    pairs = dict.fromkeys(tuple(name.split(".")[:2]) for name in files)
    for subject, exporter in pairs:
        cells = [
            _cell(f"{subject}.{exporter}.{optimizer}", rows, files) for optimizer in optimizers
        ]
        written = ", ".join(map(str, known[subject][0])) or "none"
        yield f"| {subject} | {written} | {exporter} | {' | '.join(cells)} |"
    yield ""
    rolled = {name: row.reason for name, row in rows.items()}
    for title, reasons in (("not rolled", rolled), ("not written", files)):
        yield ""
        yield f"| {title} because | files |"
        yield "|---|---|"
        yield from _by_reason(reasons)


def _cell(name: str, rows: Rows, files: Mapping[str, str | None]) -> str:
    if name not in files:
        return ""
    if name not in rows:
        return "not written"
    row = rows[name]
    if not row.loops:
        return row.kind if row.kind in RIGHT else f"**{row.kind}**"
    ends = row.peeled or [[0, 0]] * len(row.loops)
    counts = [
        f"{'1+' * first}{count}{'+1' * last}"
        for count, (first, last) in zip(row.loops, ends, strict=True)
    ]
    text = f"{', '.join(counts)}: {row.nodes[0]} -> {row.nodes[1]}"
    return f"**{row.kind}** {text}" if row.kind == "wrong" else text


def _by_reason(reasons: Mapping[str, str | None]) -> Iterator[str]:
    """Yield a row for each reason, with the files that it holds for."""
    found: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        if reason is not None:
            text = reason.replace("|", "/").replace(f"{name}.onnx cannot be rerolled: ", "")
            found.setdefault(text, []).append(name)
    for reason, names in found.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        yield f"| {reason} | {', '.join(names[:3])}{more} |"


def read_committed(path: Path) -> dict[str, Any]:
    """Return what a run wrote, or nothing where there was none."""
    if not path.exists():
        return {"files": {}, "not_written": {}}
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return report


def write_results(folder: Path, text: str, rows: Rows, files: Mapping[str, str | None]) -> None:
    """Write the page and the figures."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "matrix.md").write_text(text, encoding="utf-8")
    report = {
        "machine": describe_machine(),
        "files": {name: row.to_json() for name, row in rows.items()},
        "not_written": {name: reason for name, reason in files.items() if reason is not None},
    }
    text = json.dumps(report, indent=1) + "\n"
    (folder / "matrix.json").write_text(text, encoding="utf-8")


def main() -> int:
    """Write the files, re-roll them, print the table and what changed, and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder for matrix.json and matrix.md")
    parser.add_argument(
        "--python", type=Path, help="interpreter with the packages of requirements.txt"
    )
    for name in ("subject", "exporter", "optimizer"):
        parser.add_argument(f"--{name}", action="append", default=[])
    arguments = parser.parse_args()
    choices = [
        word
        for name in ("subject", "exporter", "optimizer")
        for value in getattr(arguments, name)
        for word in (f"--{name}", value)
    ]
    begun = time.perf_counter()
    folder = FOLDER / "files"
    files, known = write_files(arguments.python or environment(), folder, choices)
    print(f"{len(files)} files after {time.perf_counter() - begun:.0f} s", file=sys.stderr)
    before = read_committed(COMMITTED)
    rows = measure(files, known, folder)
    found = list(changes(rows, before["files"]))
    if arguments.output and choices:  # the rest stays as it was
        rest = read_committed(arguments.output / COMMITTED.name)
        rows = {name: Outcome(**row) for name, row in rest["files"].items()} | rows
        everything = dict.fromkeys(rows) | rest["not_written"] | files
        order = list(known)
        files = dict(
            sorted(everything.items(), key=lambda item: order.index(item[0].split(".")[0]))
        )
    text = "\n".join(lines_of(rows, files, known)) + "\n"
    print(text)
    for change, blocks in found:
        print(f"{'FAIL' if blocks else 'changed'}: {change}")
    print(f"{time.perf_counter() - begun:.0f} s, {len(found)} changes against {COMMITTED.name}")
    if arguments.output:
        write_results(arguments.output, text, rows, files)
    return 4 if any(blocks for _, blocks in found) else 0


if __name__ == "__main__":
    sys.exit(main())
