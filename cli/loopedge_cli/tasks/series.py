"""Forecasting from the user's own table."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loopedge_cli.tasks import task

if TYPE_CHECKING:
    from loopedge.data.task import Task


@task("series")
def series(
    *,
    data: Annotated[
        Path, typer.Argument(metavar="DATA.csv", help="Oldest row first, with a header.")
    ],
    target: Annotated[str, typer.Option(help="Column to forecast.")],
    context: Annotated[int, typer.Option(min=1, help="Rows that a forecast sees.")],
    horizon: Annotated[int, typer.Option(min=1, help="Rows that it forecasts.")],
    covariate: Annotated[
        list[str] | None, typer.Option(help="A further column that it sees; repeatable.")
    ] = None,
    interpolate: Annotated[
        bool, typer.Option("--interpolate", help="Fill missing values along a straight line.")
    ] = False,
    season: Annotated[
        int | None,
        typer.Option(min=1, help="Period of the seasonal-naive baseline; default: found."),
    ] = None,
    time: Annotated[
        str | None, typer.Option(help="Column whose times must ascend; the model does not see it.")
    ] = None,
    seed: int,
) -> "Task":
    """Forecast a column of a CSV file."""
    from loopedge.data.series import SeriesTask

    return SeriesTask.from_csv(
        data,
        target=target,
        context=context,
        horizon=horizon,
        covariates=covariate or [],
        interpolate=interpolate,
        season=season,
        time_column=time,
        seed=seed,
    )
