"""What people see of a model that was trained: its scores beside what needs no training, and its intervals."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopedge.units import score_text
from loopedge_cli.page import count_text, page, plain, rows_list

if TYPE_CHECKING:
    from rich.console import RenderableType

    from loopedge_cli.output import Result

__all__ = ["train_view"]

Scores = Mapping[str, float | None]


def train_view(result: "Result") -> "RenderableType":
    """Show a `TrainResult`, or a `RollingResult`: the model beside what needs no training."""
    fields = result.to_json()
    names = [name for name in fields["test"] if "." not in name]
    scored = [
        (f"{fields['task']} (validation)", fields["validation"]),
        (f"{fields['task']} (test)", fields["test"]),
        *((f"{_spaced(name)} (test)", scores) for name, scores in fields["baselines"].items()),
    ]
    rows = [
        ("model", f"{fields['parameters']:,} parameters, {count_text(fields['loops'], 'loop')}"),
        (
            "trained",
            f"{count_text(fields['steps'], 'step')} in {fields['seconds']:.0f} s, "
            f"{fields['tokens_per_second']:,.0f} tokens/s, best at step {fields['best_step']}",
        ),
        *_mase_rows(fields),
        *_interval_rows(fields),
        ("metrics", plain(fields["metrics_path"])),
        ("file", plain(fields["path"])),
    ]
    title = "scores of the last origin" if "origins" in fields else "scores"
    lists = [
        rows_list(title, names, [(head, *_cells(scores, names)) for head, scores in scored]),
        _target_list(scored[1:]),
    ]
    if "origins" in fields:
        lists.append(rows_list("origins", names, _origin_rows(fields, names)))
    return page(Path(fields["path"]).name, rows, *lists)


def _target_list(scored: Sequence[tuple[str, Scores]]) -> Any:
    """Show the scores of each of several targets, named ``metric.target``, a row per target and what was scored."""
    parts = [name.partition(".") for name in scored[0][1] if "." in name]
    metrics = list(dict.fromkeys(metric for metric, _, _ in parts))
    targets = list(dict.fromkeys(target for _, _, target in parts))
    rows = [
        (f"{target}: {head}", *_cells(scores, [f"{metric}.{target}" for metric in metrics]))
        for target in targets
        for head, scores in scored
    ]
    return rows_list("scores of each target", metrics, rows)


def _mase_rows(fields: dict[str, Any]) -> list[tuple[str, str]]:
    """Say what an absolute error of 1 in mase is."""
    season, scale = fields["mase_season"], fields["mase_scale"]
    if season is None:
        return []
    over = "one table row" if season == 1 else f"a season of {season} table rows"
    units = ", ".join(map(score_text, scale))
    return [("mase", f"1 is the mean change over {over} in training: {units}")]


def _interval_rows(fields: dict[str, Any]) -> list[tuple[str, str]]:
    """Say which prediction intervals there are, and how often each held what came."""
    if fields["intervals"] is None:
        return []
    return [("intervals", _level_text(level, fields)) for level in fields["intervals"]["levels"]]


def _level_text(level: dict[str, Any], fields: dict[str, Any]) -> str:
    """Say ``80 %: holds 78.4 % of test, mean width 3.2``, and where it holds least."""
    percent, share = level["level"], level["coverage"]
    if share is None:
        return f"{percent} %: not measured, the test split holds no value"
    style = "green" if share >= percent / 100 - 0.1 else "red"
    widths = ", ".join(map(score_text, level["width"]))
    text = f"{percent} %: [{style}]{share:.1%} of test[/{style}], mean width {widths}"
    steps = [step for step in map(_mean, level["step_coverage"]) if step is not None]
    if len(steps) > 1:
        text += f"; step 1 {steps[0]:.1%}, step {len(steps)} {steps[-1]:.1%}"
    if level["worst_series"] is not None:
        text += f"; least in {plain(level['worst_series'])}, {level['worst_coverage']:.1%}"
    return text + _origins_text(percent, fields)


def _origins_text(percent: int, fields: dict[str, Any]) -> str:
    """Say how the coverage differs from origin to origin."""
    shares = [
        level["coverage"]
        for origin in fields.get("origins", ())
        for level in (origin["intervals"] or {"levels": []})["levels"]
        if level["level"] == percent and level["coverage"] is not None
    ]
    return f"; over the origins {min(shares):.1%} to {max(shares):.1%}" if len(shares) > 1 else ""


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _origin_rows(fields: dict[str, Any], names: Sequence[str]) -> list[tuple[Any, ...]]:
    """Show the test scores of each origin, their mean and deviation, and those of the baselines."""
    each = [
        (f"origin {number} (test)", *_cells(origin["test"], names))
        for number, origin in enumerate(fields["origins"], start=1)
    ]
    summed = [
        ("mean", *_cells(fields["mean"], names)),
        ("standard deviation", *_cells(fields["deviation"], names)),
    ]
    baselines = [
        (f"{_spaced(name)}, mean", *_cells(scores, names))
        for name, scores in fields["baselines_mean"].items()
    ]
    return [*each, *summed, *baselines]


def _cells(scores: Scores, names: Sequence[str]) -> list[str]:
    return [score_text(scores[name]) for name in names]


def _spaced(name: str) -> str:
    return name.replace("_", " ")
