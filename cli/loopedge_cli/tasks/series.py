"""Forecasting and classification from the user's own table."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from loopedge_cli.tasks import task

if TYPE_CHECKING:
    from loopedge.tasks.task import Task


@task("series")
def series(
    *,
    data: Annotated[
        Path,
        typer.Argument(metavar="DATA", help="A CSV with a header, or .parquet; oldest row first."),
    ],
    context: Annotated[int, typer.Option(min=1, help="Rows that the model sees.")],
    target: Annotated[
        list[str] | None, typer.Option(help="Column to forecast; repeatable.")
    ] = None,
    horizon: Annotated[int | None, typer.Option(min=1, help="Rows to forecast.")] = None,
    classify: Annotated[
        str | None,
        typer.Option(
            help="Column of labels to tell instead: of a window's last row, or with --group of a "
            "whole series."
        ),
    ] = None,
    covariate: Annotated[
        list[str] | None, typer.Option(help="A further column that the model sees; repeatable.")
    ] = None,
    group: Annotated[
        str | None, typer.Option(help="Column that tells several series in one table apart.")
    ] = None,
    min_context: Annotated[
        int | None,
        typer.Option(
            min=1, help="Least rows to see; shorter windows are padded. Default: --context."
        ),
    ] = None,
    missing: Annotated[
        Literal["refuse", "interpolate", "indicator"],
        typer.Option(
            help="What happens to missing values: an error, a straight line, or the model is told."
        ),
    ] = "refuse",
    season: Annotated[
        int | None,
        typer.Option(min=1, help="Period of the seasonal-naive baseline; default: found."),
    ] = None,
    time: Annotated[
        str | None, typer.Option(help="Column whose times must ascend; the model does not see it.")
    ] = None,
    origins: Annotated[
        int | None,
        typer.Option(
            min=2, help="Train and test at several origins that follow each other at the end."
        ),
    ] = None,
    seed: int,
) -> "Task":
    """Forecast columns of a table, or tell the labels of its windows or series."""
    from loopedge.errors import InputError
    from loopedge.tasks.labelled_series import LabelledSeriesTask
    from loopedge.tasks.series import SeriesTask

    if classify is None:
        if not target or horizon is None:
            raise InputError(
                "a series needs --target and --horizon to forecast, or --classify",
                hint="--target COLUMN --horizon 12",
            )
        forecast = SeriesTask.from_file(
            data,
            targets=target,
            context=context,
            horizon=horizon,
            covariates=covariate or [],
            min_context=min_context,
            missing=missing,
            season=season,
            time_column=time,
            group=group,
            seed=seed,
        )
        return forecast if origins is None else forecast.at_origins(origins)[-1]
    others = {"target": target, "horizon": horizon, "season": season, "origins": origins}
    for option, value in others.items():
        if value:
            raise InputError(
                f"--{option} is of a forecast, --classify {classify} tells labels",
                hint=f"leave out --{option} or --classify",
            )
    return LabelledSeriesTask.from_file(
        data,
        label=classify,
        covariates=covariate or [],
        context=context,
        min_context=min_context,
        missing=missing,
        time_column=time,
        group=group,
        seed=seed,
    )
