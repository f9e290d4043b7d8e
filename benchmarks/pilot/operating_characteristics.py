"""How often does the pilot's rule decide rightly? Pilots are drawn from known means and judged as real ones are.

Three minutes on one core; no model is trained. docs/pilot.md shows the tables.

    python -m benchmarks.pilot.operating_characteristics
    python -m benchmarks.pilot.operating_characteristics --output benchmarks/results/pilot
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.pilot.simulated import (
    Scene,
    beaten_rates,
    choice_rates,
    error_of,
    flattery,
    former_rates,
    outcome_rates,
)
from loopedge.study.options import LOOKS

NAME = "operating_characteristics"
TABLES = {"choice": 1000, "beaten": 500, "flattery": 1000, "outcomes": 100}
"""Pilots drawn of each kind."""
TRUTHS = {
    "no difference": (0.0, 0.0, 0.0),
    "4 and 8 loops better by 1": (0.0, 1.0, 1.0),
    "4 and 8 loops better by 2": (0.0, 2.0, 2.0),
    "4 and 8 loops better by 4": (0.0, 4.0, 4.0),
    "8 loops better by 2": (0.0, 0.0, 2.0),
    "gradual: 4 loops by 1, 8 loops by 2": (0.0, 1.0, 2.0),
}
"""What is true, in deviations of a run."""
NOISES = {"normal": "normal", "t3": "Student's t, 3 degrees", "unequal": "more loops, more noise"}
MARGINS = (0.5, 2.0)
PERIODS = ((0.0, 1, 1), (1.0, 1, 1), (3.0, 1, 1), (3.0, 3, 1), (1.0, 1, 6), (3.0, 1, 6))
"""Luck of the test period, number of test periods, of baselines."""


Part = tuple[str, dict[str, Any]]
"""Group of the results, and what is drawn."""


def main() -> None:
    """Draw and judge all pilots; print the tables, and write them where a folder is named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, help="folder of the results")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    chosen = parser.parse_args()
    found = measure(chosen.jobs)
    text = f"# How often the pilot decides rightly\n\n{report(found)}"
    print(text)
    if chosen.output is not None:
        chosen.output.mkdir(parents=True, exist_ok=True)
        plain = json.dumps(found, indent=2) + "\n"
        (chosen.output / f"{NAME}.json").write_text(plain, encoding="utf-8")
        (chosen.output / f"{NAME}.md").write_text(text, encoding="utf-8")


def measure(jobs: int) -> dict[str, Any]:
    """Return all rates."""
    drawn = list(parts())
    with ProcessPoolExecutor(jobs) as pool:
        results = list(pool.map(measured, drawn))
    found: dict[str, Any] = {"tables": TABLES}
    for (group, _), result in zip(drawn, results, strict=True):
        found.setdefault(group, []).append(result)
    return found


def parts() -> Iterator[Part]:
    """Yield what is drawn, group by group."""
    for noise in NOISES:
        for truth in TRUTHS:
            for seeds in ("3", "auto") if noise == "normal" else ("auto",):
                yield "choice", {"truth": truth, "noise": noise, "margin": 1.0, "seeds": seeds}
    for margin in MARGINS:
        for truth in TRUTHS:
            yield "margins", {"truth": truth, "noise": "normal", "margin": margin, "seeds": "auto"}
    for luck, origins, baselines in PERIODS:
        yield "beaten", {"luck": luck, "origins": origins, "baselines": baselines}
    for correlation in (0.0, 0.5, 1.0):
        yield "flattery", {"correlation": correlation}
    for truth in TRUTHS:
        for lead in (0.0, 4.0):
            yield "outcomes", {"truth": truth, "lead": lead}


def measured(part: Part) -> dict[str, Any]:
    """Return the rates of one scene, beside what it is."""
    group, of = part
    tables = TABLES["choice" if group == "margins" else group]
    gains = TRUTHS[of.get("truth", "no difference")]
    if group in ("choice", "margins"):
        looks = LOOKS if of["seeds"] == "auto" else LOOKS[:1]
        scene = Scene(gains=gains, noise=of["noise"])
        rates = choice_rates(scene, margin=of["margin"], looks=looks, tables=tables)
        found = of | _rounded(rates) | {"mean_seeds": round(rates["seeds"], 2)}
        if of["seeds"] == "3":
            found["former_rule"] = _rounded(former_rates(scene, tables=tables))
        return found
    if group == "beaten":
        known = {"origins": of["origins"], "baselines": of["baselines"]}
        rates = beaten_rates(Scene(luck=of["luck"]), margin=1.0, tables=tables, **known)
    elif group == "flattery":
        rates = flattery(Scene(), correlation=of["correlation"], tables=tables)
    else:
        rates = outcome_rates(Scene(gains=gains), lead=of["lead"], margin=1.0, tables=tables)
    return of | _rounded(rates)


def _rounded(rates: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in rates.items() if name != "seeds"}


def report(found: dict[str, Any]) -> str:
    """Return all tables in Markdown."""
    parts = [
        f"Shares in percent. Drawn: {_drawn(found)}.",
        docs_table(found),
        _noise_table(found),
        _margin_table(found),
        beaten_table(found),
        flattery_table(found),
        _outcome_table(found),
    ]
    return "\n\n".join(parts) + "\n"


def docs_table(found: dict[str, Any]) -> str:
    """Return the table of docs/pilot.md: what is chosen, by what is true."""
    heads = (
        "what is true (deviations of a run)", "seeds", "one loop", "4 loops", "8 loops", "undecided", "seeds, mean", "one loop by the rule before",
    )  # fmt: skip
    rows = [
        (
            one["truth"], one["seeds"], *_shares(one), f"{one['mean_seeds']:.1f}",
            _percent(one["former_rule"]["1"]) if "former_rule" in one else "",
        )
        for one in found["choice"]
        if one["noise"] == "normal"
    ]  # fmt: skip
    return _table(heads, rows)


def beaten_table(found: dict[str, Any]) -> str:
    """Return how often a baseline is said to be beaten that is as good as every model."""
    heads = (
        "luck of the test period", "test periods", "baselines", "any model better", "any model worse", "the named model better", "the named model worse",
    )  # fmt: skip
    rows = [
        (
            f"{one['luck']:g}", str(one["origins"]), str(one["baselines"]),
            *(_percent(one[name]) for name in ("any", "worse", "chosen", "chosen_worse")),
        )
        for one in found["beaten"]
    ]  # fmt: skip
    return _table(heads, rows)


def flattery_table(found: dict[str, Any]) -> str:
    """Return by how much figures of the chosen model are better than it is."""
    heads = (
        "correlation of validation and test luck",
        "test metric of the chosen model",
        "the choice made again without each seed",
    )
    rows = [
        (f"{one['correlation']:g}", f"{one['test']:+.2f}", f"{one['honest']:+.2f}") for one in found["flattery"]
    ]  # fmt: skip
    return _table(heads, rows)


def _noise_table(found: dict[str, Any]) -> str:
    heads = ("noise", "what is true", "one loop", "4 loops", "8 loops", "undecided", "seeds, mean")
    rows = [
        (NOISES[one["noise"]], one["truth"], *_shares(one), f"{one['mean_seeds']:.1f}")
        for one in found["choice"]
        if one["noise"] != "normal" and one["seeds"] == "auto"
    ]
    return _table(heads, rows)


def _margin_table(found: dict[str, Any]) -> str:
    heads = ("margin", "what is true", "one loop", "4 loops", "8 loops", "undecided", "seeds, mean")
    rows = [
        (f"{one['margin']:g}", one["truth"], *_shares(one), f"{one['mean_seeds']:.1f}")
        for one in found["margins"]
    ]
    return _table(heads, rows)


def _outcome_table(found: dict[str, Any]) -> str:
    heads = (
        "what is true",
        "lead of one loop over the baseline",
        "what a pilot of three seeds says",
    )
    rows = [
        (
            one["truth"],
            f"{one['lead']:g}",
            ", ".join(
                f"{name} {_percent(value)}"
                for name, value in one.items()
                if name not in ("truth", "lead")
            ),
        )
        for one in found["outcomes"]
    ]
    return _table(heads, rows)


def _shares(one: dict[str, Any]) -> list[str]:
    return [_percent(one[name]) for name in ("1", "4", "8", "undecided")]


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _drawn(found: dict[str, Any]) -> str:
    return ", ".join(
        f"{count} pilots for {name} (Monte Carlo error of 5 %: {100 * error_of(0.05, count):.1f})"
        for name, count in found["tables"].items()
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


if __name__ == "__main__":
    main()
