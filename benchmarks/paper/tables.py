"""Tables and curves of the studies, drawn from their lines."""

import math
from pathlib import Path
from typing import Any

from studies import STUDIES, Study

from loopedge.report.svg.axes import Axis
from loopedge.report.svg.chart import HEIGHT, WIDTH, Level, Mark, Series, chart
from loopedge.study.judging.statistics import Interval, OverSeeds, interval_of, over_seeds
from loopedge.study.words.figures import quality_text

__all__ = ["write_curve", "write_tables"]

COLOURS = ("#2563c9", "#0f8a6a", "#c2702a", "#8a3ea8", "#5b6472", "#b3262e")
STYLE = "\n".join(
    [
        "<style>",
        "text { font: 13px system-ui, sans-serif; fill: #667080; }",
        ".end { text-anchor: end; } .middle { text-anchor: middle; } .grid { stroke: #dfe3e8; }",
        ".level { stroke: #667080; stroke-width: 2; stroke-dasharray: 6 5; }",
        *(f".op{i} {{ stroke: {colour}; fill: {colour}; }}" for i, colour in enumerate(COLOURS)),
        "polyline { fill: none !important; stroke-width: 2.5; } .whisker { stroke-width: 1.5; }",
        "</style>",
    ]
)
Lines = list[dict[str, Any]]


def write_tables(found: dict[str, Lines], folder: Path) -> str:
    """Write ``results.md`` and a curve per study; return the tables."""
    parts = ["# The paper's finding in the small\n"]
    for name, lines in found.items():
        if not lines:
            continue
        parts.append(study_table(STUDIES[name], lines))
        write_curve(STUDIES[name], lines, folder / f"{name}.svg")
    text = "\n".join(parts)
    (folder / "results.md").write_text(text, encoding="utf-8")
    return text


def study_table(study: Study, lines: Lines) -> str:
    """Return the table of one study, and what its differences are worth."""
    metric, baseline = lines[0]["metric"], best_baseline(study, lines)
    seeds = len({line["seed"] for line in lines})
    known = f"; {baseline[0].replace('_', ' ')}: {baseline[1]:.4g}" if baseline else ""
    heads = "".join(f" {loops} loop{'s' if loops > 1 else ''} |" for loops in study.loops)
    rows = [
        f"| {arm} |"
        + "".join(f" {quality_text(spread(lines, arm, loops))} |" for loops in study.loops)
        for arm in study.arms
    ]
    most, fewest = study.loops[-1], study.loops[0]
    changes = [
        (f"{most} loops against {fewest} ({arm})", change(lines, (arm, most), (arm, fewest)))
        for arm in study.arms
        if most > fewest
    ] + [
        (f"{one} against {other}, {most} loops", change(lines, (one, most), (other, most)))
        for one, other in study.pairs
    ]
    for score in study.scores:
        heads += "".join(f" {score.replace('_', ' ')}, {loops} loops |" for loops in study.loops)
        rows = [
            row + "".join(f" {quality_text(spread(lines, arm, n, score))} |" for n in study.loops)
            for row, arm in zip(rows, study.arms, strict=True)
        ]
    if len(study.loops) == 1:
        heads += " norm of the state |"
        rows = [
            f"{row} {growth_text(lines, arm)} |" for row, arm in zip(rows, study.arms, strict=True)
        ]
    return "\n".join(
        [
            f"## {study.title}\n",
            f"{metric}, {seeds} seed{'s' if seeds > 1 else ''}, {study.steps} steps{known}. The paper: {study.paper}.\n",
            f"| arm |{heads}",
            "|---|" + "---|" * (heads.count("|")),
            *rows,
            "",
            *(f"- {what}: {interval_text(interval)}" for what, interval in changes),
            *diverged_text(lines),
            "",
        ]
    )


def write_curve(study: Study, lines: Lines, path: Path) -> None:
    """Draw the metric against the loop count, one line per arm, as an SVG that stands alone.

    Of a study at one loop count the norm of the state after each iteration is drawn instead.
    """
    arms = [arm for arm in study.arms if any(spread(lines, arm, loops) for loops in study.loops)]
    if len(study.loops) == 1:
        norms = {arm: state_norms(lines, arm) for arm in arms}
        marks = {
            arm: [Mark(x=t, y=norm) for t, norm in enumerate(values, 1)]
            for arm, values in norms.items()
        }
        across = Axis(name="iteration", even=True)
        upward, level = Axis(name="norm of the state", logarithmic=True), None
    else:
        marks = {
            arm: [
                Mark(x=loops, y=of.mean, low=of.mean - (of.sd or 0), high=of.mean + (of.sd or 0))
                for loops in study.loops
                if (of := spread(lines, arm, loops)) is not None
            ]
            for arm in arms
        }
        baseline = best_baseline(study, lines)
        across = Axis(name="loops", even=True)
        upward = Axis(name=lines[0]["metric"], from_zero=False)
        level = Level(name=baseline[0], value=baseline[1]) if baseline else None
    series = [Series(name=arm, colour=f"op{i}", marks=marks[arm]) for i, arm in enumerate(arms)]
    first, *parts = chart(series, across=across, upward=upward, level=level)
    drawn = parts[: parts.index("</svg>")]
    legend = [
        f'<circle class="op{i}" cx="{60 + x}" cy="{HEIGHT + 12 + y}" r="4"/>'
        f'<text x="{70 + x}" y="{HEIGHT + 16 + y}">{arm}</text>'
        for i, (arm, (x, y)) in enumerate(zip(arms, legend_places(len(arms)), strict=True))
    ]
    below = 24 + max(y for _, y in legend_places(len(arms)))
    opening = first.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ')
    opening = opening.replace(f" {HEIGHT}", f" {HEIGHT + below}")
    back = f'<rect width="{WIDTH}" height="{HEIGHT + below}" fill="#ffffff"/>'
    path.write_text("\n".join([opening, STYLE, back, *drawn, *legend, "</svg>", ""]), "utf-8")


def state_norms(lines: Lines, arm: str) -> list[float]:
    """Return the norm of the state after each iteration, the geometric mean over the seeds."""
    runs = [line["stability"]["residual_norm"] for line in lines if line["arm"] == arm]
    return [math.exp(sum(map(math.log, of)) / len(of)) for of in zip(*runs, strict=True)]


def growth_text(lines: Lines, arm: str) -> str:
    """Say the norm of the state after the first and the last iteration, and its growth in the last one."""
    norms = state_norms(lines, arm)
    if len(norms) < 2:
        return "-"
    return f"{norms[0]:.3g} to {norms[-1]:.3g}, last iteration x {norms[-1] / norms[-2]:.2f}"


def legend_places(arms: int) -> list[tuple[int, int]]:
    """Return where the names of the arms stand: three in a line, or two where there are more, for theirs are long."""
    columns, width = (3, 170) if arms <= 3 else (2, 260)
    return [(width * (i % columns), 20 * (i // columns)) for i in range(arms)]


def values(lines: Lines, arm: str, loops: int, score: str | None = None) -> dict[int, float]:
    """Return a metric on the test split by seed: the one that decides, unless another is named."""
    return {
        line["seed"]: line["test"][score or line["metric"]]
        for line in lines
        if (line["arm"], line["loops"]) == (arm, loops) and "test" in line
    }


def spread(lines: Lines, arm: str, loops: int, score: str | None = None) -> OverSeeds | None:
    """Return mean and standard deviation over the seeds."""
    return over_seeds(list(values(lines, arm, loops, score).values()))


def change(lines: Lines, mine: tuple[str, int], other: tuple[str, int]) -> Interval | None:
    """Return the difference paired by seed, with its interval."""
    one, two = values(lines, *mine), values(lines, *other)
    return interval_of([one[seed] - two[seed] for seed in sorted(one) if seed in two])


def interval_text(interval: Interval | None) -> str:
    """Say a difference and whether it counts."""
    if interval is None:
        return "-"
    if interval.low is None or interval.high is None:
        return f"{interval.mean:+.3g}"
    counts = "counts" if interval.excludes_zero else "within the noise of the seeds"
    return f"{interval.mean:+.3g} (95 % interval {interval.low:+.3g} to {interval.high:+.3g}: {counts})"


def best_baseline(study: Study, lines: Lines) -> tuple[str, float] | None:
    """Return the best baseline of the first seed, and its value."""
    scores: dict[str, Any] = next(
        (line["baselines"] for line in lines if line.get("baselines")), {}
    )
    metric = lines[0]["metric"]
    known = {
        name: of[metric] for name, of in scores.items() if math.isfinite(of.get(metric, math.nan))
    }
    if not known:
        return None
    choose = max if study.task(0).higher_is_better else min
    name = choose(known, key=known.__getitem__)
    return name, known[name]


def diverged_text(lines: Lines) -> list[str]:
    """Say which runs diverged."""
    lost = [f"{x['arm']}, {x['loops']} loops, seed {x['seed']}" for x in lines if "diverged" in x]
    return [f"- diverged: {'; '.join(lost)}"] if lost else []
