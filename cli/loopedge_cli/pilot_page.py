"""What ``loopedge pilot`` shows: the options of its page, and the page made again from results.json."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from loopedge_cli.limits import parse_seconds, parse_size
from loopedge_cli.output import Debug, Force, Json, Quiet, sink

__all__ = ["PageFlags", "rebuild"]

PAGE = "Report"

Language = Annotated[
    Literal["en", "ja"],
    typer.Option(help="Of the page and of the table in the terminal.", rich_help_panel=PAGE),
]
NoData = Annotated[
    bool,
    typer.Option(
        "--no-data",
        help="Store and plot no window of the data.",
        rich_help_panel=PAGE,
    ),
]


Source = Annotated[
    Path | None,
    typer.Option(
        "--from",
        metavar="results.json",
        help="Make the page of a finished pilot again; trains nothing.",
        rich_help_panel=PAGE,
    ),
]
Html = Annotated[
    Path | None,
    typer.Option(help="The page; default: report.html beside results.json.", rich_help_panel=PAGE),
]
OtherMargin = Annotated[
    str | None,
    typer.Option(
        metavar="SHARE",
        help="Judge the runs again with another margin; default: as they were judged.",
        rich_help_panel=PAGE,
    ),
]
MaxMemory = Annotated[
    int | None,
    typer.Option(
        parser=parse_size,
        metavar="SIZE",
        help="Most bytes at the peak, as 32MiB: name the best model that fits.",
        rich_help_panel=PAGE,
    ),
]
MaxLatency = Annotated[
    float | None,
    typer.Option(
        parser=parse_seconds,
        metavar="TIME",
        help="Most time a sample, as 50ms.",
        rich_help_panel=PAGE,
    ),
]
MinMetric = Annotated[
    float | None,
    typer.Option(help="The least good value of the metric.", rich_help_panel=PAGE),
]


class PageFlags:
    """How the page is written."""

    language: Language = "en"
    no_data: NoData = False


def rebuild(
    context: typer.Context,
    source: Source = None,
    html: Html = None,
    language: Language = "en",
    no_data: NoData = False,
    margin: OtherMargin = None,
    max_memory: MaxMemory = None,
    max_latency: MaxLatency = None,
    min_metric: MinMetric = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Compare loop counts and timestep encoding on a task: quality, cost, stability.

    With --from, make the page of a finished pilot again.
    """
    if context.invoked_subcommand is not None:
        _refuse_before_a_task(context)
        return
    if source is None:
        raise typer.BadParameter(
            "name a task, or the results of a pilot with --from.", ctx=context, param_hint="'TASK'"
        )
    with sink(json=json, quiet=quiet, debug=debug) as output:
        from dataclasses import replace

        from loopedge.files.paths import check_paths
        from loopedge.report.pilot.page import write_pilot_html
        from loopedge.report.pilot.terminal import pilot_table
        from loopedge.study.judged_again import judged_again, with_requirements
        from loopedge.study.judging.requirements import Limits
        from loopedge.study.result_file import read_pilot

        target = html or source.parent / "report.html"
        check_paths(inputs={"--from": (source,)}, outputs={"--html": target})
        limits = Limits(memory_bytes=max_memory, seconds=max_latency, metric=min_metric)
        result = read_pilot(source)
        if margin is not None:
            result = judged_again(result, margin)
        result = with_requirements(result, limits)
        if no_data:
            result = replace(result, windows=[])
        write_pilot_html(result, target, language=language, force=force)
        output.result(result, lambda made: pilot_table(made, language=language), written=target)
        output.note(f"report: {target}")


def _refuse_before_a_task(context: typer.Context) -> None:
    """Refuse options before the name of a task: they are those of --from alone."""
    for parameter in context.command.params:
        found = context.get_parameter_source(parameter.name or "")
        if found is not None and found.name == "COMMANDLINE":
            name = parameter.opts[0]
            raise typer.BadParameter(
                f"it stands before the task {context.invoked_subcommand!r}: with --from no task is named, "
                "and the options of a pilot stand behind its task.",
                ctx=context,
                param_hint=f"'{name}'",
            )
