"""Low bits: what rounding on data, and refining through the loop, are worth on five trained models, three seeds each.

Each model is quantized to weights in eight, four and two bits: rounded to nearest (no data), on data (`--data`), and
refined (`--refine`); static int8 with and without refining beside it. Judged on the test part, which neither training
nor quantization has seen: the metric with its noise, SQNR of the outputs. The library's defaults were chosen on sorting and
sunspots (`trained.CHOSEN_ON`); the other models are reported once.

Blocks (exit code 4), in four bits: on data at least 4 dB above nearest on the median and never below it; refined at
least 8 dB on the median, no metric worse than without refining by more than noise, sorting within 0.3 points of float. Half an hour; the
first time as long again for the training. Rows of an earlier run into the same folder stay, unless `--again`.

    python benchmarks/int8/low_bits.py [--output benchmarks/results/int8] [--models FOLDER] [--seeds 0]
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from judged_rows import Row, Rows
from trained import CHOSEN_ON, MODELS, NAMES, SEEDS, Trained, trained_models

import loopedge

STEPS = 100
GAIN_DB, REFINED_DB, POINTS = 4.0, 8.0, 0.003
NEAREST, DATA, REFINED = "nearest", "on data", "refined"


@dataclass(frozen=True, slots=True)
class Variant:
    """A scheme, and how its weights are rounded."""

    scheme: str
    rounding: str

    @property
    def name(self) -> str:
        """What its rows are called."""
        return f"{self.scheme}, {self.rounding}"

    def options(self, model: Trained) -> dict[str, Any]:
        """Return the options of `loopedge.quantize`."""
        options: dict[str, Any] = {"scheme": self.scheme, "min_sqnr_db": -200.0, "force": True}
        if self.rounding != NEAREST or self.scheme == "static":
            options["data"] = model.data
        if self.rounding == REFINED:
            options |= {"refine": STEPS, "module": model.checkpoint}
        return options


VARIANTS = [
    *(
        Variant(scheme, rounding)
        for scheme in ("weight-int4", "weight-int8", "weight-int2")
        for rounding in (NEAREST, DATA, REFINED)
    ),
    *(Variant("static", rounding) for rounding in (NEAREST, REFINED)),
]


def measure(model: Trained, variant: Variant, folder: Path, rows: Rows) -> Row:
    """Quantize and judge; what fails is a row with its reason."""
    target, started = folder / "quantized.onnx", time.perf_counter()
    try:
        result = loopedge.quantize(model.path, target, **variant.options(model))
    except Exception as error:
        return rows.failed(model, variant.name, error)
    seconds = time.perf_counter() - started
    return rows.judged(model, variant.name, target, seconds=seconds, result=result.to_json())


def bounds(rows: Rows) -> list[tuple[str, bool]]:
    """Return what four bits must hold, and whether they do."""
    gained = rows.gains("weight-int4, nearest", "weight-int4, on data")
    refined = rows.gains("weight-int4, nearest", "weight-int4, refined")
    found = []
    if gained:
        least, middle = min(gained.values()), median(gained.values())
        found += [
            (
                f"four bits on data: {middle:+.1f} dB against nearest on the median of {len(gained)} models, at least "
                f"{GAIN_DB:g}",
                middle >= GAIN_DB,
            ),
            (f"four bits on data, never below nearest: {least:+.1f} dB at least", least >= 0),
        ]
    if refined:
        middle = median(refined.values())
        text = f"four bits refined: {middle:+.1f} dB on the median of {len(refined)}, at least {REFINED_DB:g}"
        found.append((text, middle >= REFINED_DB))
        worse = [
            row.model
            for row in rows.of("weight-int4, refined")
            if row.worse_than_unrefined is not None and row.worse_than_unrefined > 0
        ]
        named = ", ".join(worse) or "none"
        found.append((f"metrics that refining made worse beyond noise: {named}", not worse))
        lost = [
            row.worse for row in rows.of("weight-int4, refined") if row.model.startswith("sorting")
        ]
        text = f"four bits refined, sorting: at most {100 * max(lost, default=0.0):.2f} points below float, allowed 0.3"
        found.append((text, max(lost, default=0.0) <= POINTS))
    return found


def summary(rows: Rows) -> list[str]:
    """Return medians over models: those that defaults were chosen on, and those that are reported once."""
    groups: dict[str, Callable[[str], bool]] = {
        "chosen on": lambda name: name in CHOSEN_ON,
        "reported once": lambda name: name not in CHOSEN_ON,
        "all": lambda name: True,
    }
    lines = [
        "| dB above nearest, median (least) | " + " | ".join(groups) + " |",
        "|---" * (1 + len(groups)) + "|",
    ]
    for variant in VARIANTS:
        if variant.rounding == NEAREST or not rows.of(variant.name):
            continue
        cells = []
        for takes in groups.values():
            gains = rows.gains(f"{variant.scheme}, {NEAREST}", variant.name)
            taken = [gain for stem, gain in gains.items() if takes(rows.subject_of(stem))]
            cells.append(f"{median(taken):+.1f} ({min(taken):+.1f})" if taken else "")
        lines.append(f"| {variant.name} | " + " | ".join(cells) + " |")
    return lines


def tables(rows: Rows) -> list[str]:
    """Return Markdown: one table for each scheme, a row for each model."""
    lines = ["## dB above rounding to nearest", "", *summary(rows), ""]
    lines += [f"- {text}: {'pass' if held else 'FAIL'}" for text, held in bounds(rows)]
    for scheme in dict.fromkeys(variant.scheme for variant in VARIANTS):
        names = [variant.name for variant in VARIANTS if variant.scheme == scheme]
        short = [name.partition(", ")[2] for name in names]
        if not any(rows.of(name) for name in names):
            continue
        lines += [
            "",
            f"## {scheme}",
            "",
            "Metric (SQNR in dB); **bold**: worse than float by more than its noise.",
            "",
            f"| model | defaults | metric | float | {' | '.join(short)} | chosen on data | file KiB |",
            "|---" * (6 + len(names)) + "|",
        ]
        measured = [stem for stem in rows.stems() if any(rows.get(stem, name) for name in names)]
        lines += [_line(rows, stem, names) for stem in measured]
    return lines


def _line(rows: Rows, stem: str, names: list[str]) -> str:
    found = [rows.get(stem, name) for name in names]
    first = next(row for row in found if row is not None)
    role = "chosen on" if rows.subject_of(stem) in CHOSEN_ON else "once"
    chosen = next((row.chosen for row in found[1:] if row is not None and row.chosen), "")
    cells = " | ".join("" if row is None else row.cell for row in found)
    sizes = [f"{row.file_bytes / 1024:.0f}" for row in found if row is not None and row.file_bytes]
    size = ", ".join(dict.fromkeys(sizes))
    return f"| {stem} | {role} | {first.metric_name} | {first.float_metric:.4f} | {cells} | {chosen} | {size} |"


def compare_refined(rows: Rows, model: Trained, variant: Variant) -> None:
    """Note by how much refining made the metric worse, beyond noise."""
    without = DATA if variant.scheme != "static" else NEAREST
    refined = rows.get(model.stem, variant.name)
    plain = rows.get(model.stem, f"{variant.scheme}, {without}")
    if variant.rounding == REFINED and refined is not None and plain is not None:
        rows.compare(model, plain, refined)


def run(models: Iterable[Trained], variants: list[Variant], rows: Rows) -> None:
    """Measure what is not measured yet."""
    with tempfile.TemporaryDirectory() as name:
        for model in models:
            for variant in variants:
                if rows.has(model, variant.name):
                    continue
                print(measure(model, variant, Path(name), rows).line, flush=True)
            for variant in variants:
                compare_refined(rows, model, variant)
            rows.save()


def main() -> int:
    """Quantize, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder for low_bits.md and low_bits.json")
    parser.add_argument("--models", type=Path, default=MODELS, help="where trained models are kept")
    parser.add_argument("--only", choices=NAMES, nargs="+", default=list(NAMES))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--schemes", nargs="+", help="these alone")
    parser.add_argument("--roundings", nargs="+", help="these alone")
    parser.add_argument("--again", action="store_true", help="measure what is there already, too")
    arguments = parser.parse_args()
    rows = Rows.open(arguments.output, "low_bits", again=arguments.again)
    variants = [
        item
        for item in VARIANTS
        if item.scheme in (arguments.schemes or [item.scheme])
        and item.rounding in (arguments.roundings or [item.rounding])
    ]
    run(
        trained_models(arguments.models, tuple(arguments.only), tuple(arguments.seeds)),
        variants,
        rows,
    )
    lines = tables(rows)
    print("\n".join(lines))
    rows.write(lines)
    return 0 if all(held for _, held in bounds(rows)) else 4


if __name__ == "__main__":
    sys.exit(main())
