"""Forecasting and classification from the user's own table."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from loopedge_cli.tasks import task

if TYPE_CHECKING:
    from loopedge.tasks.series import SeriesTask
    from loopedge.tasks.task import Task
    from loopedge.tasks.windows import WindowOptions

Data = Annotated[
    Path,
    typer.Argument(metavar="DATA", help="A CSV with a header, or .parquet; oldest row first."),
]
Context = Annotated[int, typer.Option(min=1, help="Rows that the model sees.")]
Target = Annotated[list[str] | None, typer.Option(help="Column to forecast; repeatable.")]
Horizon = Annotated[int | None, typer.Option(min=1, help="Rows to forecast.")]
Classify = Annotated[
    str | None,
    typer.Option(
        help="Column of labels to tell instead: of a window's last row, or with --group of a "
        "whole series."
    ),
]
Covariate = Annotated[
    list[str] | None, typer.Option(help="A further column that the model sees; repeatable.")
]
Group = Annotated[
    str | None, typer.Option(help="Column that tells several series in one table apart.")
]
MinContext = Annotated[
    int | None,
    typer.Option(min=1, help="Least rows to see; shorter windows are padded. Default: --context."),
]
Missing = Annotated[
    Literal["refuse", "interpolate", "indicator"],
    typer.Option(
        help="What happens to missing values: an error, a straight line, or the model sees a mark."
    ),
]
Season = Annotated[
    int | None, typer.Option(min=1, help="Period of the seasonal-naive baseline; default: found.")
]
Time = Annotated[
    str | None, typer.Option(help="Column whose times must ascend; the model does not see it.")
]
Origins = Annotated[
    int | None,
    typer.Option(
        min=2, help="Train and test at several origins that follow each other at the end."
    ),
]


@task("series")
def series(
    *,
    data: Data,
    context: Context,
    target: Target = None,
    horizon: Horizon = None,
    classify: Classify = None,
    covariate: Covariate = None,
    group: Group = None,
    min_context: MinContext = None,
    missing: Missing = "refuse",
    season: Season = None,
    time: Time = None,
    origins: Origins = None,
    seed: int,
) -> "Task":
    """Forecast columns of a table, or tell the labels of its windows or series."""
    from loopedge.errors import InputError
    from loopedge.tasks.labelled_series import LabelledSeriesTask

    window: WindowOptions = {
        "context": context,
        "min_context": min_context,
        "missing": missing,
        "time_column": time,
        "group": group,
        "seed": seed,
    }
    if classify is None:
        forecast = _forecast(data, target, horizon, covariate or [], season, window)
        return forecast if origins is None else forecast.at_origins(origins)[-1]
    others = {"target": target, "horizon": horizon, "season": season, "origins": origins}
    for option, value in others.items():
        if value:
            raise InputError(
                f"--{option} is of a forecast, --classify {classify} tells labels",
                hint=f"leave out --{option} or --classify",
            )
    return LabelledSeriesTask.from_file(data, label=classify, covariates=covariate or [], **window)


def _forecast(
    data: Path,
    target: list[str] | None,
    horizon: int | None,
    covariates: list[str],
    season: int | None,
    window: "WindowOptions",
) -> "SeriesTask":
    from loopedge.errors import InputError
    from loopedge.tasks.series import SeriesTask

    if not target or horizon is None:
        raise InputError(
            "a series needs --target and --horizon to forecast, or --classify",
            hint="--target COLUMN --horizon 12",
        )
    return SeriesTask.from_file(
        data, targets=target, horizon=horizon, covariates=covariates, season=season, **window
    )
