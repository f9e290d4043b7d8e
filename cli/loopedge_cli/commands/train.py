"""``loopedge train TASK``: one subcommand per task, with the same options for model and run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from loopedge_cli.output import Debug, Force, Json, Quiet, sink
from loopedge_cli.views import train_view

if TYPE_CHECKING:
    from loopedge.data.task import Task
    from loopedge_cli.output import Output

train = typer.Typer(help="Train a looped transformer on a task.")

Target = Annotated[
    Path, typer.Option("--output", "-o", help="Target; metrics and checkpoints stand beside it.")
]
DModel = Annotated[int, typer.Option(min=2, help="Width of the model.")]
Heads = Annotated[int, typer.Option(min=1, help="Attention heads.")]
Layers = Annotated[int, typer.Option(min=1, help="Distinct layers in the looped core.")]
Loops = Annotated[int, typer.Option(min=1, help="How often the core is applied.")]
Timestep = Annotated[
    Literal["none", "constant", "sinusoidal", "learned"],
    typer.Option(help="What tells an iteration from the next; constant is the fair control."),
]
Dropout = Annotated[float, typer.Option(min=0.0, max=0.99, help="Share of activations dropped.")]
Steps = Annotated[int, typer.Option(min=1, help="Optimizer steps.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Samples per step.")]
Lr = Annotated[float, typer.Option(help="Peak learning rate.")]
Seed = Annotated[int, typer.Option(min=0, help="Of weights and batches.")]
CheckpointEvery = Annotated[
    int | None,
    typer.Option(min=0, help="Steps between checkpoints; 0: none; default: a twentieth."),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Continue the run whose state stands beside the target.")
]


@train.command("series")
def series(
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
    path: Target = Path("model.pt"),
    d_model: DModel = 128,
    heads: Heads = 4,
    layers: Layers = 1,
    loops: Loops = 8,
    timestep: Timestep = "sinusoidal",
    dropout: Dropout = 0.0,
    steps: Steps = 500,
    batch_size: BatchSize = 32,
    lr: Lr = 1e-3,
    seed: Seed = 0,
    checkpoint_every: CheckpointEvery = None,
    resume: Resume = False,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Forecast a column of a CSV file."""
    options = locals()
    with sink(json=json, quiet=quiet, debug=debug) as output:
        from loopedge.data.series import SeriesTask

        task = SeriesTask.from_csv(
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
        _run(output, task, options)


@train.command("edit-distance")
def edit_distance(
    length: Annotated[int, typer.Option(help="Letters of the strings.")] = 20,
    path: Target = Path("model.pt"),
    d_model: DModel = 128,
    heads: Heads = 4,
    layers: Layers = 1,
    loops: Loops = 12,
    timestep: Timestep = "sinusoidal",
    dropout: Dropout = 0.0,
    steps: Steps = 5000,
    batch_size: BatchSize = 64,
    lr: Lr = 1e-3,
    seed: Seed = 0,
    checkpoint_every: CheckpointEvery = None,
    resume: Resume = False,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Tell the edit distance of two random strings (the paper's task)."""
    options = locals()
    with sink(json=json, quiet=quiet, debug=debug) as output:
        from loopedge.data.edit_distance import EditDistanceTask

        _run(output, EditDistanceTask(length=length, seed=seed), options)


@train.command("sorting")
def sorting(
    length: Annotated[int, typer.Option(help="Tokens to sort.")] = 16,
    vocab: Annotated[int, typer.Option(help="Distinct tokens.")] = 64,
    path: Target = Path("model.pt"),
    d_model: DModel = 128,
    heads: Heads = 4,
    layers: Layers = 1,
    loops: Loops = 8,
    timestep: Timestep = "sinusoidal",
    dropout: Dropout = 0.0,
    steps: Steps = 2000,
    batch_size: BatchSize = 64,
    lr: Lr = 1e-3,
    seed: Seed = 0,
    checkpoint_every: CheckpointEvery = None,
    resume: Resume = False,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Sort random tokens."""
    options = locals()
    with sink(json=json, quiet=quiet, debug=debug) as output:
        from loopedge.data.sorting import SortingTask

        _run(output, SortingTask(length=length, vocab=vocab, seed=seed), options)


MODEL_FIELDS = ("d_model", "heads", "layers", "loops", "timestep", "dropout")
TRAIN_FIELDS = ("steps", "batch_size", "lr", "seed", "checkpoint_every")


def _run(output: "Output", task: "Task", options: dict[str, Any]) -> None:
    """Train on a task with the options that all tasks share."""
    from loopedge.trainer.config import make_model_config, make_train_config
    from loopedge.trainer.pipeline import train as train_model

    result = train_model(
        task,
        make_model_config(task, **{name: options[name] for name in MODEL_FIELDS}),
        make_train_config(**{name: options[name] for name in TRAIN_FIELDS}),
        options["path"],
        resume=options["resume"],
        force=options["force"],
        bar=output.interactive,
        note=output.note,
    )
    output.result(result, train_view, written=result.path)
