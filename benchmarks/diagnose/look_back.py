"""Does `loopedge diagnose` find how far back a series looks?

Twelve synthetic series of 4,000 rows (`synthetic_targets.py`), drawn anew by every seed; the look-back is searched up to 80
rows, as with a context of 40. Right is the very row: 12 where the rule takes the last row and the twelfth before. Of noise the
right answer is that no number of rows explains anything. A few minutes.

    python benchmarks/diagnose/look_back.py
    python benchmarks/diagnose/look_back.py --output benchmarks/results/diagnose
"""

import argparse
import json
from pathlib import Path
from typing import Any

from synthetic_targets import TARGETS, task_of

from loopedge.diagnosis.options import DiagnoseOptions
from loopedge.diagnosis.pipeline import find_rows

SEEDS = 3
CONTEXT = 40
LEAST_RIGHT = 10
"""Of eleven targets with a look-back, in every seed."""


def measure(seeds: int) -> list[dict[str, Any]]:
    """Return what was found of each target by each seed."""
    rows = []
    for name, target in TARGETS.items():
        found = []
        for seed in range(seeds):
            searched = find_rows(task_of(name, seed, context=CONTEXT), DiagnoseOptions(seed=seed))
            assert searched is not None
            found.append(searched[0])
        rows.append(
            {
                "target": name,
                "about": target.about,
                "look_back": target.look_back,
                "found": [each.rows for each in found],
                "explained": [round(max(each.explained.values()), 3) for each in found],
                "regression": [each.regression for each in found],
            }
        )
    return rows


def right_by_seed(rows: list[dict[str, Any]]) -> list[int]:
    """Return by seed of how many targets with a look-back it was found."""
    known = [row for row in rows if row["look_back"] is not None]
    return [
        sum(row["found"][seed] == row["look_back"] for row in known)
        for seed in range(len(rows[0]["found"]))
    ]


def report(rows: list[dict[str, Any]]) -> str:
    """Return a table in Markdown."""
    right = right_by_seed(rows)
    noise = sum(each is None for row in rows if row["look_back"] is None for each in row["found"])
    lines = [
        "# How far back a series looks",
        "",
        f"`benchmarks/diagnose/look_back.py`: {len(right)} seeds, 4,000 rows, the next row from up to {2 * CONTEXT} before it. Found:",
        "the fewest rows whose ridge or boosting explains 90 % of what the best number explains, on validation rows.",
        "",
        f"Right of {len(rows) - 1} targets with a look-back: {', '.join(map(str, right))} (by seed). Noise was called noise {noise} "
        f"of {len(right)} times.",
        "",
        "| target | the next row is | look-back | found, by seed | best explained share |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        found = ", ".join("none" if each is None else str(each) for each in row["found"])
        known = "none" if row["look_back"] is None else row["look_back"]
        share = ", ".join(f"{each:.2f}" for each in row["explained"])
        lines.append(f"| {row['target']} | {row['about']} | {known} | {found} | {share} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure all targets, print the report and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="Folder for look_back.json and look_back.md.")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    options = parser.parse_args()
    rows = measure(options.seeds)
    text = report(rows)
    print(text)
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "look_back.json").write_text(json.dumps(rows, indent=1) + "\n")
        (options.output / "look_back.md").write_text(text)
    if min(right_by_seed(rows)) < LEAST_RIGHT:
        raise SystemExit(f"right of fewer than {LEAST_RIGHT} targets: {right_by_seed(rows)}")


if __name__ == "__main__":
    main()
