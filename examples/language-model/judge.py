"""Judge the files of ``run.sh`` on one text: ``results.json``, a table and a figure.

python examples/language-model/judge.py build/language-model
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import loopedge
from loopedge.report.svg.axes import Axis
from loopedge.report.svg.chart import Mark, Series, chart

LOOPS = (1, 2, 3, 4)
WHOLE = {"lm.onnx": "float32", "lm.int8.onnx": "int8", "lm.int4.onnx": "weights in 4 bits"}
CACHED = {
    "lm.generate.onnx": "float32, cache of float32",
    "lm.cache-int8.onnx": "float32, cache of int8",
    "lm.cache-int4.onnx": "float32, cache of int4",
    "lm.small.onnx": "weights in 4 bits, cache of int8",
    "lm.last-loop.onnx": "float32, cache of the last loop",
}
TOLERANCES = (0.2, 0.3, 0.4, 0.5, 0.7)
"""Of the early exit: the relative change of the state below which a window is done."""
COLOURS = ("tied", "int8", "untied")
STYLE = """
svg { font-family: system-ui, sans-serif; background: #ffffff; }
text { fill: #667080; font-size: 13px; } .name { fill: #1b1f24; font-weight: 600; paint-order: stroke; stroke: #ffffff; stroke-width: 4px; }
.end { text-anchor: end; } .middle { text-anchor: middle; } .grid { stroke: #e2e6eb; }
polyline { fill: none; stroke-width: 2.5; } .dashed { stroke: #8a4fb8; stroke-dasharray: 6 5; }
.tied { stroke: #2563c9; fill: #2563c9; } .int8 { stroke: #0f8a6a; fill: #0f8a6a; }
.untied { stroke: #c2702a; fill: #c2702a; } .op3 { stroke: #8a4fb8; fill: #8a4fb8; }
polyline.tied, polyline.int8, polyline.untied { fill: none; }
"""


def judge(folder: Path, samples: int) -> dict[str, Any]:
    """Evaluate every file on the test text, the first of each list being what the others are compared with."""
    text = folder / "test.txt"
    files = {name: folder / name for name in (*WHOLE, *CACHED, "lm.exit.onnx")}
    whole = loopedge.evaluate([files[name] for name in WHOLE], text, loops=LOOPS, samples=samples)
    # The first is the file without a cache: what a cache changes is seen against it.
    cached = loopedge.evaluate(
        [files["lm.onnx"], *(files[name] for name in CACHED)], text, samples=samples
    )
    exits = [
        loopedge.evaluate(files["lm.exit.onnx"], text, samples=samples, tolerance=tolerance)
        for tolerance in TOLERANCES
    ]
    return {
        "text_bytes": whole.text_bytes,
        "windows": whole.windows,
        "context": whole.context,
        "whole": [each | {"name": WHOLE[name_of(each)]} for each in rows_of(whole)],
        "cached": [each | {"name": CACHED[name_of(each)]} for each in rows_of(cached)[1:]],
        "exits": [
            rows_of(found)[-1] | {"tolerance": tolerance}
            for found, tolerance in zip(exits, TOLERANCES, strict=True)
        ],
        "bytes": {name: size_of(path) for name, path in files.items()},
    }


def rows_of(found: loopedge.EvaluateResult) -> list[dict[str, Any]]:
    """Return the evaluations as plain values."""
    rows: list[dict[str, Any]] = found.to_json()["evaluations"]
    return rows


def name_of(row: dict[str, Any]) -> str:
    """Return the name of the file that a row is of."""
    return Path(row["model"]).name


def size_of(path: Path) -> int:
    """Return the bytes of a file and of its data."""
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))


def table(found: dict[str, Any]) -> list[str]:
    """Return the lines of the table, in Markdown."""
    lines = [
        "| model | loops | bits per byte | perplexity | against float32 | file, MB |",
        "|---|---|---|---|---|---|",
    ]
    for row in [*found["whole"], *found["cached"]]:
        loops = row["loops"] or LOOPS[-1]
        megabytes = found["bytes"][name_of(row)] / 1e6
        lines.append(
            f"| {row['name']} | {loops} | {row['bits_per_byte']:.3f} | {row['perplexity']:.3f} | "
            f"{change_text(row)} | {megabytes:.2f} |"
        )
    lines += [
        f"| float32, exit at tolerance {row['tolerance']:g} | {row['iterations']:.2f} in the mean | "
        f"{row['bits_per_byte']:.3f} | {row['perplexity']:.3f} | "
        f"{row['perplexity'] / full(found) - 1:+.2%} | {found['bytes']['lm.exit.onnx'] / 1e6:.2f} |"
        for row in found["exits"]
    ]
    return lines


def full(found: dict[str, Any]) -> float:
    """Return the perplexity of the float model with all loops."""
    row = next(row for row in found["whole"] if row["loops"] == LOOPS[-1])
    perplexity: float = row["perplexity"]
    return perplexity


def change_text(row: dict[str, Any]) -> str:
    """Return ``+0.11% (0.04%)``: the change of the perplexity and its standard error."""
    if row["change"] is None:
        return ""
    error = "" if row["change_error"] is None else f" ({row['change_error']:.2%})"
    return f"{row['change']:+.2%}{error}"


def figure(found: dict[str, Any]) -> str:
    """Return an SVG: bits per byte against loops."""
    series = [
        line(name, [row for row in found["whole"] if row["name"] == name], colour, place)
        for place, (name, colour) in enumerate(zip(WHOLE.values(), COLOURS, strict=True))
    ]
    points = [
        Mark(x=row["iterations"], y=row["bits_per_byte"], title=f"tolerance {row['tolerance']:g}")
        for row in sorted(found["exits"], key=lambda row: float(row["iterations"]))
    ]
    points[0] = Mark(x=points[0].x, y=points[0].y, label="early exit")
    series.append(Series(name="", colour="op3", marks=points, dashed=True))
    lines = chart(
        series,
        across=Axis(name="loops (of an early exit, in the mean)", from_zero=False, ticks=LOOPS),
        upward=Axis(name="bits per byte", from_zero=False),
        wide=True,
    )
    drawn = lines[: lines.index("</svg>") + 1]
    head = drawn[0].replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return "\n".join([head, f"<style>{STYLE}</style>", *drawn[1:]]) + "\n"


def line(name: str, rows: Sequence[dict[str, Any]], colour: str, named: int) -> Series:
    """Return the line of a model, its name at one of the points: models may lie on each other."""
    marks = [
        Mark(x=row["loops"], y=row["bits_per_byte"], label=name if place == named else "")
        for place, row in enumerate(rows)
    ]
    return Series(name="", colour=colour, marks=marks)


def main() -> None:
    """Judge, and write what was found."""
    parser = argparse.ArgumentParser(description="Judge the files of run.sh.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--samples", type=int, default=64, help="Windows of the test text.")
    arguments = parser.parse_args()
    found = judge(arguments.folder, arguments.samples)
    (arguments.folder / "results.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    lines = table(found)
    (arguments.folder / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (arguments.folder / "perplexity.svg").write_text(figure(found), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
