"""``loopedge pilot TASK``: one subcommand per task; arms and loop counts over seeds."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from loopedge_cli.arguments import CheckedCommand
from loopedge_cli.commands.train import ModelOptions, TrainOptions, chosen, option
from loopedge_cli.counts import Counts, parse_counts
from loopedge_cli.output import Debug, Force, Json, Quiet, sink
from loopedge_cli.pilot_page import PageFlags, rebuild
from loopedge_cli.tasks import TaskCommand, command_of, tasks

if TYPE_CHECKING:
    from loopedge.study.options import PilotOptions

pilot = typer.Typer(invoke_without_command=True, subcommand_metavar="[TASK]")
pilot.callback()(rebuild)

PILOT = "Pilot"
DECIDED = (
    "loops", "min_loops", "timestep", "origins", "distill_weight", "distill_temperature",
)  # fmt: skip
"""Options that the pilot itself varies, and what one run alone can have."""


class PilotFlags:
    """What is compared, and where the results go."""

    output: Annotated[
        Path, option(PILOT, "Folder of the results, the report and the models.", "--output", "-o")
    ] = Path("pilot")
    loops: Annotated[
        Counts,
        option(PILOT, "Loop counts, separated by commas.", parser=parse_counts, metavar="N[,N...]"),
    ] = Counts((1, 4, 8))
    arms: Annotated[
        str, option(PILOT, "Of looped, constant, timestep and untied, separated by commas.")
    ] = "looped,constant,timestep"
    seeds: Annotated[int, option(PILOT, "Seeds of each arm and loop count, from --seed on.")] = 3
    jobs: Annotated[
        int, option(PILOT, "Runs at the same time, each in a process of one thread.", min=1)
    ] = 1
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
    """Return the options of the pilot from the values of a command line."""
    from loopedge.study.options import PilotOptions

    train = chosen(TrainOptions, values)
    first_seed = train.pop("seed")
    return PilotOptions(
        loops=values["loops"],
        arms=[name.strip() for name in values["arms"].split(",")],
        seeds=values["seeds"],
        first_seed=first_seed,
        model={k: v for k, v in chosen(ModelOptions, values).items() if k not in DECIDED},
        train=train,
        device=values["device"],
        threads=values["threads"],
        jobs=values["jobs"],
        resume=values["resume"],
        force=values["force"],
    )


def _run(command: TaskCommand, values: dict[str, Any]) -> None:
    """Make a pilot on a task."""
    with sink(json=values["json"], quiet=values["quiet"], debug=values["debug"]) as output:
        from loopedge.files.paths import check_paths
        from loopedge.files.targets import check_target
        from loopedge.report.pilot.page import write_pilot_html
        from loopedge.report.pilot.terminal import pilot_table
        from loopedge.study.folder import REPORT_FILE, pilot_files
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
                emptied={"--output": folder / "runs"},
            )
            return task

        result = make_pilot(
            make_task,
            folder,
            options=_options(values),
            note=output.note,
        )
        report = values["html"] or folder / REPORT_FILE
        language = values["language"]
        write_pilot_html(result, report, language=language, data=not values["no_data"], force=True)
        output.result(result, lambda made: pilot_table(made, language=language), written=report)
        output.note(f"report: {report}")


for _task in tasks():
    pilot.command(_task.name, cls=CheckedCommand)(
        command_of(_task, _run, PilotFlags, PageFlags, ModelOptions, TrainOptions, without=DECIDED)
    )
