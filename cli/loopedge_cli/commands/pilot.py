"""``loopedge pilot TASK``: one subcommand per task; arms and loop counts over seeds."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from loopedge_cli.arguments import CheckedCommand
from loopedge_cli.commands.train import ModelOptions, TrainOptions, chosen, option
from loopedge_cli.options.pilot import ComparedOptions, LimitOptions
from loopedge_cli.output import Debug, Force, Json, Quiet, sink
from loopedge_cli.pilot_page import PageFlags, rebuild
from loopedge_cli.tasks import TaskCommand, command_of, tasks

if TYPE_CHECKING:
    from loopedge.study.options import PilotOptions
    from loopedge.study.result import PilotResult

pilot = typer.Typer(invoke_without_command=True, subcommand_metavar="[TASK]")
pilot.callback()(rebuild)

PILOT = "Pilot"
DECIDED = (
    "loops", "min_loops", "timestep", "origins", "lr", "distill_weight", "distill_temperature",
)  # fmt: skip
"""Options that the pilot itself has or varies, and what one run alone can have."""


class PilotFlags:
    """Where it is made, and where the results go."""

    invocation: typer.Context = None  # type: ignore[assignment] # typer fills it
    output: Annotated[
        Path, option(PILOT, "Folder of the results, the report and the models.", "--output", "-o")
    ] = Path("pilot")
    jobs: Annotated[
        int, option(PILOT, "Runs at the same time, each in a process of one thread.", min=1)
    ] = 1
    ray: Annotated[
        str | None,
        option(
            PILOT,
            "A Ray cluster that makes the runs, as HOST:PORT; local starts one here. It runs code for whoever reaches it.",
            metavar="ADDRESS",
        ),
    ] = None
    threads: Annotated[
        int | None,
        option(PILOT, "Threads of a run, with --jobs 1; default: PyTorch's choice.", min=1),
    ] = None
    device: Annotated[Literal["cpu", "cuda"], option(PILOT, "Where the models are trained.")] = (
        "cpu"
    )
    html: Annotated[
        Path | None, option(PILOT, "The report; default: report.html in the folder.")
    ] = None
    resume: Annotated[
        bool, option(PILOT, "Keep the runs that are finished, go on with the others.", "--resume")
    ] = False
    force: Force = False
    json: Json = False
    quiet: Quiet = False
    debug: Debug = False


def _options(values: dict[str, Any]) -> "PilotOptions":
    """Return the options of the pilot from the values of a command line.

    Where the user named none of what the pilot's own start decides, nothing is passed on: the start decides.
    """
    from loopedge.study.options import PilotOptions
    from loopedge.study.start import START_NAMES

    unnamed = {name for name in START_NAMES if not _is_named(values["invocation"], name)}
    train = _without(chosen(TrainOptions, values), unnamed)
    first_seed = train.pop("seed")
    rates = train.pop("lr", values["lr"])
    if len(rates) == 1:
        train["lr"] = rates[0]
    return PilotOptions(
        loops=values["loops"],
        arms=[name.strip() for name in values["arms"].split(",")],
        seeds=values["seeds"],
        origins=values["origins"],
        margin=values["margin"],
        rates=rates,
        first_seed=first_seed,
        model=_without(chosen(ModelOptions, values), unnamed | set(DECIDED)),
        train=train,
        device=values["device"],
        threads=values["threads"],
        jobs=values["jobs"],
        budget=values["budget"],
        max_memory=values["max_memory"],
        max_latency=values["max_latency"],
        min_metric=values["min_metric"],
        ray=values["ray"],
        keep_windows=not values["no_data"],
        resume=values["resume"],
        force=values["force"],
    )


def _is_named(invocation: typer.Context, name: str) -> bool:
    """Return whether an option stands on the command line."""
    source = invocation.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def _without(values: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def _run(command: TaskCommand, values: dict[str, Any]) -> None:
    """Make a pilot on a task."""
    with sink(json=values["json"], quiet=values["quiet"], debug=values["debug"]) as output:
        from loopedge.files.paths import check_paths
        from loopedge.files.targets import check_target
        from loopedge.report.pilot.page import write_pilot_html
        from loopedge.report.pilot.terminal import pilot_table
        from loopedge.study.folder import REPORT_FILE, emptied_folders, pilot_files
        from loopedge.study.pipeline import pilot as make_pilot

        folder = values["output"]
        if values["html"] is not None:
            check_target(values["html"], force=values["force"] or values["resume"])

        results = [file for file in pilot_files(folder) if file.name != REPORT_FILE]

        def make_task(number: int) -> Any:
            task = command.task({**values, "seed": number})
            check_paths(
                inputs={"DATA": task.input_files},
                outputs={"--output": results, "--html": values["html"]},
                emptied={"--output": emptied_folders(folder)},
            )
            return task

        report, language = values["html"] or folder / REPORT_FILE, values["language"]

        def write_page(found: "PilotResult") -> None:
            write_pilot_html(
                found, report, language=language, data=not values["no_data"], force=True
            )

        result = make_pilot(
            make_task,
            folder,
            options=_options(values),
            note=output.note,
            write_report=write_page,
        )
        output.result(result, lambda made: pilot_table(made, language=language), written=report)
        output.note(f"report: {report}")


GROUPS = (ComparedOptions, LimitOptions, PilotFlags, PageFlags, ModelOptions, TrainOptions)

for _task in tasks():
    pilot.command(_task.name, cls=CheckedCommand)(command_of(_task, _run, *GROUPS, without=DECIDED))
