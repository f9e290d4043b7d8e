"""Forecasting and classification from the user's own table."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from loopedge_cli.options.table import (
    Comment,
    Decimal,
    Delimiter,
    Encoding,
    NaValues,
    Thousands,
    TimeFormat,
    Timezone,
    table_format,
)
from loopedge_cli.tasks import task

if TYPE_CHECKING:
    from loopedge.tasks.series import SeriesTask
    from loopedge.tasks.task import Task
    from loopedge.tasks.windows import WindowOptions

Data = Annotated[
    Path,
    typer.Argument(
        metavar="DATA",
        help="A CSV with a header (.gz too), Parquet or Arrow; oldest row first.",
    ),
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
    list[str] | None,
    typer.Option(
        help="A further column that the model sees, or a pattern such as 'temp_*'; repeatable."
    ),
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
Scaling = Annotated[
    Literal["column", "window"],
    typer.Option(
        help="Scale by mean and deviation of each column's training rows, or of each window's own rows: "
        "for series at different levels, and counters."
    ),
]
Season = Annotated[
    int | None, typer.Option(min=1, help="Period of the seasonal-naive baseline; default: found.")
]
Time = Annotated[
    str | None, typer.Option(help="Column whose times must ascend; the model does not see it.")
]
Frequency = Annotated[
    str | None,
    typer.Option(
        help="Grid of times that each series is put on: auto, 15min, h, D, B, W, MS, ME, QS, YS, a number; "
        "missing rows are inserted, see --missing."
    ),
]
Gaps = Annotated[
    Literal["split", "cross", "refuse"],
    typer.Option(
        help="Where --time lacks rows: no window crosses that, rows are taken as steps, or an error."
    ),
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
    scaling: Scaling = "column",
    season: Season = None,
    time: Time = None,
    frequency: Frequency = None,
    gaps: Gaps = "split",
    origins: Origins = None,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    decimal: Decimal = None,
    thousands: Thousands = None,
    comment: Comment = None,
    na_values: NaValues = None,
    time_format: TimeFormat = None,
    timezone: Timezone = None,
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
        "frequency": frequency,
        "gaps": gaps,
        "form": table_format(
            encoding=encoding,
            delimiter=delimiter,
            decimal=decimal,
            thousands=thousands,
            comment=comment,
            na_values=na_values,
            time_format=time_format,
            timezone=timezone,
        ),
        "scaling": scaling,
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
