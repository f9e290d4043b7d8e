"""``loopedge train TASK``: one subcommand per task, with the same options for model and run."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from loopedge_cli.output import Debug, Force, Json, Quiet, sink
from loopedge_cli.tasks import TaskCommand, command_of, options_of, tasks
from loopedge_cli.views import train_view

train = typer.Typer(help="Train a looped transformer on a task.")

MODEL, RUN, FILES = "Model", "Training", "Files and output"
"""Panels of the help."""


class ModelOptions:
    """Fields of `LoopedConfig` that a task leaves open."""

    d_model: Annotated[
        int, typer.Option(min=2, help="Width of the model.", rich_help_panel=MODEL)
    ] = 128
    heads: Annotated[int, typer.Option(min=1, help="Attention heads.", rich_help_panel=MODEL)] = 4
    layers: Annotated[
        int, typer.Option(min=1, help="Distinct layers in the looped core.", rich_help_panel=MODEL)
    ] = 1
    loops: Annotated[
        int, typer.Option(min=1, help="How often the core is applied.", rich_help_panel=MODEL)
    ] = 8
    timestep: Annotated[
        Literal["none", "constant", "sinusoidal", "learned"],
        typer.Option(
            help="What tells an iteration from the next; constant is the fair control.",
            rich_help_panel=MODEL,
        ),
    ] = "sinusoidal"
    dropout: Annotated[
        float,
        typer.Option(
            min=0.0, max=0.99, help="Share of activations dropped.", rich_help_panel=MODEL
        ),
    ] = 0.0


class TrainOptions:
    """Fields of `TrainConfig`."""

    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps.", rich_help_panel=RUN)] = 500
    batch_size: Annotated[
        int, typer.Option(min=1, help="Samples per step.", rich_help_panel=RUN)
    ] = 32
    lr: Annotated[float, typer.Option(help="Peak learning rate.", rich_help_panel=RUN)] = 1e-3
    seed: Annotated[
        int, typer.Option(min=0, help="Of weights and batches.", rich_help_panel=RUN)
    ] = 0
    checkpoint_every: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Steps between checkpoints; 0: none; default: a twentieth.",
            rich_help_panel=RUN,
        ),
    ] = None


class FileOptions:
    """Where a run writes and what it prints."""

    path: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="Target; metrics and checkpoints stand beside it.",
            rich_help_panel=FILES,
        ),
    ] = Path("model.pt")  # fmt: skip
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue the run whose state stands beside the target.",
            rich_help_panel=FILES,
        ),
    ] = False
    force: Force = False
    json: Json = False
    quiet: Quiet = False
    debug: Debug = False


def _run(command: TaskCommand, values: dict[str, Any]) -> None:
    """Train on a task with the options that all tasks share."""
    with sink(json=values["json"], quiet=values["quiet"], debug=values["debug"]) as output:
        from loopedge.trainer.config import make_model_config, make_train_config
        from loopedge.trainer.pipeline import train as train_model
        from loopedge.trainer.rolling import train_rolling

        task: Any = command.task(values)
        origins = values.get("origins")  # of a series alone
        verb: Any = train_rolling if origins else train_model
        result = verb(
            task.at_origins(origins) if origins else task,
            make_model_config(task, **_chosen(ModelOptions, values)),
            make_train_config(**_chosen(TrainOptions, values)),
            values["path"],
            resume=values["resume"],
            force=values["force"],
            bar=output.interactive,
            note=output.note,
        )
        output.result(result, train_view, written=values["path"])


def _chosen(group: type, values: dict[str, Any]) -> dict[str, Any]:
    return {option.name: values[option.name] for option in options_of(group)}


for _task in tasks():
    train.command(_task.name)(command_of(_task, _run, ModelOptions, TrainOptions, FileOptions))
