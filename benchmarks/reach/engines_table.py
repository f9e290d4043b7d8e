"""Which engine takes which kind of file: releases of ONNX Runtime, OpenVINO and tract, each in an environment of its own.

Writes every kind of one tiny model (`benchmarks/reach/kinds.py`), and its ORT format, and lets every engine compute it. An
engine is right where it computes what the current ONNX Runtime does. What blocks (exit code 4): a wrong
result without a word in any engine, a file that the current release of docs/reach.md's table refuses, an ``.ort`` that
needs a later release than its ``.onnx``. Five minutes, 3 GB of disk and a package index to install the engines from.

    python -m benchmarks.reach.engines_table [--output benchmarks/results/reach] [--venvs build/reach]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import onnxruntime as ort

import loopedge
from benchmarks.reach.computing import Answer, answers
from benchmarks.reach.kinds import KINDS, Written, run, write_kind

ROOT = Path(__file__).parents[2]
RELEASES = {
    "1.17.3": "numpy<2",
    **dict.fromkeys(
        ("1.20.1", "1.22.1", "1.23.2", "1.24.1", "1.26.0", "1.28.0", "1.30.0"), "numpy<3"
    ),
}
"""Of ONNX Runtime, each with the numpy that it was built for."""

CLIENTS = ROOT / "tests" / "clients" / "requirements.txt"
FIRST_WHOLE = "1.24.1"
"""The oldest release of ONNX Runtime that loads every kind."""

Table = dict[str, dict[str, Answer]]
"""By kind, or kind and ``.ort``, and by engine."""


def interpreters(folder: Path) -> Iterator[tuple[str, str, Path]]:
    """Yield a column, its engine and its interpreter, installing what is not there."""
    for release, numpy in RELEASES.items():
        words = [f"onnxruntime=={release}", numpy]
        yield (
            f"onnxruntime {release}",
            "onnxruntime",
            _made(folder / f"onnxruntime-{release}", words),
        )
    yield f"onnxruntime {ort.__version__}", "onnxruntime", Path(sys.executable)
    clients = _made(folder / "clients", ["--requirement", str(CLIENTS)])
    for engine in ("openvino", "tract"):
        yield engine, engine, clients


def _made(home: Path, words: list[str]) -> Path:
    python, stamp = home / "bin" / "python", home / "installed.txt"
    if not stamp.exists():
        venv.create(home, with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *words], check=True)
        stamp.write_text("\n".join(words), encoding="utf-8")
    return python


def write_all(folder: Path) -> tuple[list[Written], list[Written]]:
    """Return every kind, and every kind in ORT format."""
    files = [write_kind(kind, folder) for kind in KINDS.values()]
    converted = []
    for file in files:
        path = file.path.with_suffix(".ort")
        loopedge.convert(file.path, path, threads=1)
        converted.append(replace(file, path=path, expected=run(path, file.feeds)))
    return files, converted


def measure(folder: Path, venvs: Path) -> tuple[Table, list[str]]:
    """Let every engine compute every file; return the answers and the columns with their versions."""
    files, converted = write_all(folder)
    table: Table = {}
    columns = []
    for column, engine, python in interpreters(venvs):
        tried = files + (converted if engine == "onnxruntime" else [])
        version, given = answers(engine, python, tried)
        columns.append(version)
        for file, answer in zip(tried, given, strict=True):
            kind = f"{file.kind.name}{', .ort' if file.path.suffix == '.ort' else ''}"
            table.setdefault(kind, {})[version] = answer
        print(f"{column}: {version}", file=sys.stderr, flush=True)
    return table, columns


def judge(table: Table, columns: list[str]) -> list[tuple[str, bool]]:
    """Hold what docs/reach.md and docs/on_your_board.md promise."""
    wrong = [
        f"{kind} in {column}"
        for kind, row in table.items()
        for column, answer in row.items()
        if answer.refused is None and not answer.right
    ]
    bounds = [(f"computed wrongly without a word: {', '.join(wrong) or 'nowhere'}", not wrong)]
    whole = [c for c in columns if c.startswith("ONNX Runtime")]
    whole = whole[whole.index(f"ONNX Runtime {FIRST_WHOLE}") :]
    refused = [
        f"{kind} in {column}"
        for kind, row in table.items()
        for column in whole
        if not row[column].right
    ]
    text = f"refused by ONNX Runtime {FIRST_WHOLE} or later: {', '.join(refused) or 'nothing'}"
    bounds.append((text, not refused))
    late = [
        kind
        for kind in KINDS
        for column, answer in table[f"{kind}, .ort"].items()
        if not answer.right and table[kind][column].right and column not in LATER
    ]
    text = f".ort needs a later release than .onnx, after 1.17: {', '.join(late) or 'nowhere'}"
    bounds.append((text, not late))
    return bounds


LATER = ("ONNX Runtime 1.17.3",)
"""1.17 computes Gelu of opset 20 in parts; an ``.ort`` holds it whole."""


def lines_of(table: Table, columns: list[str], bounds: list[tuple[str, bool]]) -> Iterator[str]:
    """Yield the lines of the page."""
    yield "Yes: computes what the current ONNX Runtime does (float within 1e-4 of the largest, quantized with at"
    yield "most 1 dB less of signal to noise). No: refuses the file. One tiny model, one thread."
    yield ""
    short = [column.replace("ONNX Runtime ", "") for column in columns]
    yield f"| kind of file | {' | '.join(short)} |"
    yield "|" + "---|" * (1 + len(columns))
    for kind, row in table.items():
        cells = [_cell(row.get(column)) for column in columns]
        yield f"| {kind} | {' | '.join(cells)} |"
    yield ""
    yield "| engine | kind | what it says |"
    yield "|---|---|---|"
    for column in columns:
        said: dict[str, list[str]] = {}
        for kind, row in table.items():
            if column in row and row[column].refused is not None:
                said.setdefault(_reason(row[column]), []).append(kind)
        for reason, kinds in said.items():
            more = f" and {len(kinds) - 1} more" if len(kinds) > 1 else ""
            yield f"| {column} | {kinds[0]}{more} | {reason} |"
    yield ""
    yield "| bound | |"
    yield "|---|---|"
    yield from (f"| {text} | {'pass' if passed else 'FAIL'} |" for text, passed in bounds)


def _cell(answer: Answer | None) -> str:
    if answer is None:
        return ""
    return "yes" if answer.right else "no" if answer.refused is not None else "**wrong**"


def _reason(answer: Answer) -> str:
    text = (answer.refused or "").replace("|", "/")
    for mark in (
        "Unsupported model IR",
        "Could not find an implementation",
        "No Op registered",
        "Unimplemented",
    ):
        if mark in text:
            return text[text.index(mark) :].split(" with node name")[0].split(" ToTyped")[0]
    return text[-110:]


def main() -> int:
    """Install, write, compute, print one table, and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder for engines.json and engines.md")
    parser.add_argument("--venvs", type=Path, default=ROOT / "build" / "reach")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        table, columns = measure(Path(name), arguments.venvs)
    bounds = judge(table, columns)
    text = "\n".join(lines_of(table, columns, bounds)) + "\n"
    print(text)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "engines.md").write_text(text, encoding="utf-8")
        report = {
            "kinds": {kind: {c: asdict(a) for c, a in row.items()} for kind, row in table.items()},
            "bounds": [{"name": text, "passed": passed} for text, passed in bounds],
        }
        text = json.dumps(report, indent=2) + "\n"
        (arguments.output / "engines.json").write_text(text, encoding="utf-8")
    return 0 if all(passed for _, passed in bounds) else 4


if __name__ == "__main__":
    sys.exit(main())
