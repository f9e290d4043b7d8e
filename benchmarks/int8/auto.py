"""`--scheme auto` on five trained models: is its choice what an independent, exhaustive measurement would take?

It chooses on samples of its own. Here every candidate that it named is made again, mixes too, with ranges of its own passes over the data, and
judged on the test part, which nothing has seen. Blocks (exit code 4): the metric of the chosen file is not worse than
float's by more than its noise and 0.5 % of it; its SQNR is within 0.3 dB of the best of its tier. Advises, as times
do: all of it takes no more than 5 times as long as one static scheme, by processor time of this process and its children, so that a busy
machine does not count. Ten minutes for one seed.

    python benchmarks/int8/auto.py [--output benchmarks/results/int8] [--models FOLDER] [--seeds 0 1 2]
"""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from judged_rows import Row, Rows
from numpy.typing import NDArray
from trained import MODELS, NAMES, Trained, trained_models

import loopedge
import loopedge_calibration
from loopedge.quantizer.held_out.significance import NEGLIGIBLE
from loopedge.quantizer.options import DEFAULT_SAMPLES as CALIBRATED
from loopedge.quantizer.recipe import Recipe
from loopedge.quantizer.source import FloatSource
from loopedge_calibration.samples import Samples

WITHIN_DB, MOST_TIMES = 0.3, 5.0
AUTO, STATIC = "auto", "static, the default"
Candidate = Mapping[str, Any]
Feeds = dict[str, NDArray[np.generic]]


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """Return what the work returns, its seconds, and those of the processor."""
    started, before = time.perf_counter(), _processor_seconds()
    done = work()
    return done, time.perf_counter() - started, _processor_seconds() - before


def _processor_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def make_again(source: FloatSource, item: Candidate, data: list[Feeds], target: Path) -> None:
    """Write a candidate without a choice: its ranges are found anew, by passes of their own."""
    table = None
    if item["scheme"] == "static":
        table = loopedge_calibration.collect(
            source.path,
            data,
            granularity=item["ranges"],
            method=item["method"],
            smoothing=item["smoothing"],
        )
    lifted = {
        level: tuple(linear for linear, found in item["lifted"].items() if found == level)
        for level in ("float", "weight-int8")
    }
    recipe = Recipe(
        scheme=item["scheme"],
        table=table,
        keep=lifted["float"],
        weight_only=lifted["weight-int8"],
    )
    graph = source.graph.clone()
    recipe.apply(graph)
    ir.save(graph, target)


def tier_of(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates of the tier that the choice was made in.

    Static candidates without lifted linears run the same operators; the best of them was timed for all.
    """

    def counted(item: Candidate) -> bool:
        verdict = str(item["verdict"])
        return verdict == "chosen" or verdict.endswith("dB less") or verdict.startswith("larger")

    static = any(counted(item) and item["scheme"] == "static" for item in candidates)
    return [
        item
        for item in candidates
        if counted(item) or (static and item["scheme"] == "static" and not item["lifted"])
    ]


def measure(model: Trained, folder: Path, rows: Rows) -> None:
    """Choose, make every candidate of the tier again, judge all."""
    target = folder / "quantized.onnx"
    data: dict[str, Any] = {"data": model.data, "force": True}

    def quantize(**options: Any) -> Callable[[], loopedge.QuantizeResult]:
        return lambda: loopedge.quantize(model.path, target, **(data | options))

    _, plain_s, plain_cpu = timed(quantize(scheme="static", min_sqnr_db=-200.0))
    rows.judged(model, STATIC, target, seconds=plain_s, more={"processor_s": plain_cpu})
    result, seconds, cpu = timed(quantize(scheme="auto"))
    choice = result.to_json()["choice"]
    tier = tier_of(choice["candidates"])
    more = {
        "chosen": choice["chosen"],
        "reason": choice["reason"],
        "tier": [item["name"] for item in tier],
        "candidates": choice["candidates"],
        "processor_s": cpu,
        "times": cpu / plain_cpu,
        "wall_times": seconds / plain_s,
    }
    print(rows.judged(model, AUTO, target, seconds=seconds, more=more).line, flush=True)
    source = FloatSource.open(model.path)
    samples = Samples(
        model.data, source.graph, samples=CALIBRATED, artifact=model.path, chooses=True
    )
    calibrating = [dict(batch.feeds) for batch in samples.calibrating]
    for item in choice["candidates"]:
        try:
            make_again(source, item, calibrating, target)
        except Exception as error:
            print(rows.failed(model, item["name"], error).line, flush=True)
            continue
        print(rows.judged(model, item["name"], target).line, flush=True)


def best_of_tier(rows: Rows, auto: Row) -> Row:
    """Return the candidate of the tier with the best SQNR on the test part, of those that lose nothing."""
    found = [rows.get(auto.model, name) for name in auto.more["tier"]]
    judged = [row for row in found if row is not None and not row.failed]
    return max([row for row in judged if not lost(row)] or judged, key=lambda row: row.sqnr_db)


def lost(row: Row) -> bool:
    """Tell whether a metric is worse than float's by more than its noise, and more than is negligible."""
    return row.lost and row.worse > NEGLIGIBLE * abs(row.float_metric)


def bounds(rows: Rows) -> list[tuple[str, bool, bool]]:
    """Return what the choice must hold, whether it does, and whether that blocks."""
    found = rows.of(AUTO)
    if not found:
        return []
    worse = [row.model for row in found if lost(row)]
    gaps = {row.model: best_of_tier(rows, row).sqnr_db - row.sqnr_db for row in found}
    far = max(gaps, key=lambda model: gaps[model])
    slow = max(found, key=lambda row: row.more["times"])
    return [
        (
            f"metrics worse than float's by more than noise and 0.5 %, of {len(found)}: "
            f"{', '.join(worse) or 'none'}",
            not worse,
            True,
        ),
        (
            f"below the best of its tier: at most {gaps[far]:.2f} dB ({far}), allowed {WITHIN_DB}",
            gaps[far] <= WITHIN_DB,
            True,
        ),
        (
            f"against one static scheme: at most {slow.more['times']:.1f} times the processor time ({slow.model}), "
            f"advised {MOST_TIMES:g}",
            slow.more["times"] <= MOST_TIMES,
            False,
        ),
    ]


def verdict(held: bool, blocks: bool) -> str:
    """Return how a bound is printed."""
    return "pass" if held else "FAIL" if blocks else "missed"


def tables(rows: Rows) -> list[str]:
    """Return Markdown."""
    lines = [f"- {text}: {verdict(held, blocks)}" for text, held, blocks in bounds(rows)]
    lines += [
        "",
        "Loss against float in the metric's unit, and how much of it may be chance; times against one static scheme, of "
        "the processor and by the clock of a busy machine.",
        "",
        "| model | metric | float | chosen | metric | loss (noise) | SQNR dB | best of the tier, dB | tier | times |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows.of(AUTO), key=lambda row: rows.stems().index(row.model)):
        best, more = best_of_tier(rows, row), row.more
        lines.append(
            f"| {row.model} | {row.metric_name} | {row.float_metric:.4f} | {more['chosen']} | {row.metric:.4f} "
            f"| {row.worse:+.4f} ({row.noise:.4f}) | {row.sqnr_db:.1f} | {best.sqnr_db:.1f}, {best.name} "
            f"| {len(more['tier'])} of {len(more['candidates'])} | {more['times']:.1f} ({more['wall_times']:.1f}) |"
        )
    return [*lines, *_candidates(rows)]


def _candidates(rows: Rows) -> Iterable[str]:
    """Return all candidates of each model on the test part."""
    for stem in rows.stems():
        auto = rows.get(stem, AUTO)
        if auto is None or auto.failed:
            continue
        yield from ("", f"### {stem}: {auto.more['reason']}", "")
        yield f"| candidate | {auto.metric_name} (SQNR dB) on the test part | what it chose by, dB | file, bytes | verdict |"
        yield "|---|---|---|---|---|"
        for item in auto.more["candidates"]:
            row = rows.get(stem, item["name"])
            if row is not None:
                yield (
                    f"| {row.name} | {row.cell} | {item['sqnr_db']:.1f} | {row.file_bytes:,} "
                    f"| {item['verdict']} |"
                )


def main() -> int:
    """Choose, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder for auto.md and auto.json")
    parser.add_argument("--models", type=Path, default=MODELS, help="where trained models are kept")
    parser.add_argument("--only", choices=NAMES, nargs="+", default=list(NAMES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--again", action="store_true", help="measure what is there already, too")
    arguments = parser.parse_args()
    rows = Rows.open(arguments.output, "auto", again=arguments.again)
    with tempfile.TemporaryDirectory() as name:
        for model in trained_models(
            arguments.models, tuple(arguments.only), tuple(arguments.seeds)
        ):
            if not rows.has(model, AUTO):
                measure(model, Path(name), rows)
                rows.save()
    lines = tables(rows)
    print("\n".join(lines))
    rows.write(lines)
    return 0 if all(held for _, held, blocks in bounds(rows) if blocks) else 4


if __name__ == "__main__":
    sys.exit(main())
