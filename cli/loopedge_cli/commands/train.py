"""``loopedge train TASK``: one subcommand per task, with the same options for model and run."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from loopedge_cli.arguments import CheckedCommand
from loopedge_cli.output import Debug, Force, Json, Quiet, sink
from loopedge_cli.tasks import TaskCommand, command_of, options_of, tasks
from loopedge_cli.train_view import train_view

train = typer.Typer(help="Train a looped transformer on a task.")

MODEL, RUN, PLACE = "Model", "Training", "Place and files"
"""Panels of the help."""


def option(panel: str, help: str, *names: str, **more: Any) -> Any:
    """Return an option of a panel of the help, with what else `typer.Option` takes."""
    return typer.Option(*names, help=help, rich_help_panel=panel, **more)


class ModelOptions:
    """Fields of `LoopedConfig` that a task leaves open."""

    d_model: Annotated[int, option(MODEL, "Width of the model.", min=2)] = 128
    heads: Annotated[int, option(MODEL, "Attention heads.", min=1)] = 4
    layers: Annotated[int, option(MODEL, "Distinct layers in the looped core.", min=1)] = 1
    loops: Annotated[int, option(MODEL, "How often the core is applied.", min=1)] = 8
    min_loops: Annotated[
        int | None,
        option(MODEL, "Draw the loops of each step from this to --loops; default: always --loops."),
    ] = None
    mlp_ratio: Annotated[
        float, option(MODEL, "Hidden width of the MLP, as a multiple of --d-model.")
    ] = 4.0
    timestep: Annotated[
        Literal["none", "constant", "sinusoidal", "learned"],
        option(MODEL, "What tells an iteration from the next; constant is the fair control."),
    ] = "sinusoidal"
    gate_init: Annotated[
        float, option(MODEL, "Where the gates start: 0 as in the paper, 1 as without gates.")
    ] = 0.0
    positions: Annotated[
        Literal["learned", "rotary", "none"],
        option(MODEL, "How positions are marked; learned ones end at the trained length."),
    ] = "learned"
    dropout: Annotated[float, option(MODEL, "Share of activations dropped.", min=0.0, max=0.99)] = (
        0.0
    )
    init_std: Annotated[
        float, option(MODEL, "Of the initial weights; the paper's is 0.02, at a width of 768.")
    ] = 0.02
    embedding_std: Annotated[
        float | None, option(MODEL, "Of the weights that read the inputs; default: --init-std.")
    ] = None


class TrainOptions:
    """Fields of `TrainConfig`."""

    steps: Annotated[int, option(RUN, "Optimizer steps.", min=1)] = 500
    batch_size: Annotated[
        int, option(RUN, "Samples per step, over all processes and parts.", min=1)
    ] = 32
    accumulate: Annotated[
        int, option(RUN, "Compute each batch in so many parts, one after the other.", min=1)
    ] = 1
    lr: Annotated[float, option(RUN, "Peak learning rate.")] = 1e-3
    warmup: Annotated[
        int | None, option(RUN, "Steps of linear warm-up; default: 5 %, at most 500.", min=0)
    ] = None
    weight_decay: Annotated[float, option(RUN, "Of the matrices.")] = 0.01
    clip: Annotated[float, option(RUN, "Largest norm of the gradient.")] = 1.0
    ema: Annotated[
        float | None, option(RUN, "Average the weights with this decay, 0.999 for example.")
    ] = None
    patience: Annotated[
        int | None, option(RUN, "End the run after so many evaluations without a better one.")
    ] = None
    backprop_loops: Annotated[
        int | None, option(RUN, "Iterations, the last ones, that gradients flow through.")
    ] = None
    precision: Annotated[
        Literal["float32", "bfloat16"], option(RUN, "Of the products while training.")
    ] = "float32"
    compile: Annotated[
        bool, option(RUN, "Compile the layers of the core with torch.compile.", "--compile")
    ] = False
    quantization_aware: Annotated[
        Literal["int8", "int4"] | None,
        option(RUN, "Round the weights in the forward pass, as a quantized file does."),
    ] = None
    distill_weight: Annotated[float, option(RUN, "Share of the teacher in the loss.")] = 0.5
    distill_temperature: Annotated[float, option(RUN, "Softens the classes of the teacher.")] = 2.0
    seed: Annotated[int, option(RUN, "Of weights and batches.", min=0)] = 0
    samples: Annotated[int, option(RUN, "Most samples that an evaluation takes.", min=1)] = 1024
    evaluate_every: Annotated[
        int | None, option(RUN, "Steps between evaluations; default: a twentieth.", min=1)
    ] = None
    checkpoint_every: Annotated[
        int | None, option(RUN, "Steps between checkpoints; 0: none; default: as evaluated.", min=0)
    ] = None


class PlaceOptions:
    """Where a run computes, reads and writes: arguments of `loopedge.train`."""

    output: Annotated[
        Path,
        option(PLACE, "Target; metrics and checkpoints stand beside it.", "--output", "-o"),
    ] = Path("model.pt")
    teacher: Annotated[
        Path | None, option(PLACE, "A model.pt on the same task whose outputs are learned too.")
    ] = None
    tensorboard: Annotated[
        Path | None, option(PLACE, "Folder for TensorBoard's event files; default: none.")
    ] = None
    device: Annotated[Literal["cpu", "cuda"], option(PLACE, "Where the model is trained.")] = "cpu"
    sharding: Annotated[
        Literal["replicated", "sharded"],
        option(PLACE, "Under torchrun: the whole model in each process (DDP), or parts (FSDP2)."),
    ] = "replicated"
    threads: Annotated[
        int | None, option(PLACE, "Threads on the CPU; default: PyTorch's choice.", min=1)
    ] = None
    resume: Annotated[
        bool, option(PLACE, "Continue the run whose state stands beside the target.", "--resume")
    ] = False
    force: Force = False


class OutputOptions:
    """What is printed."""

    json: Json = False
    quiet: Quiet = False
    debug: Debug = False


def _run(command: TaskCommand, values: dict[str, Any]) -> None:
    """Train on a task with the options that all tasks share."""
    with sink(json=values["json"], quiet=values["quiet"], debug=values["debug"]) as output:
        from loopedge.trainer.config import make_model_config, make_train_config
        from loopedge.trainer.pipeline import train as train_model
        from loopedge.trainer.rolling import train_rolling
        from loopedge.trainer.world import is_first_process

        task: Any = command.task(values)
        for note in task.notes:
            output.note(f"note: {note}")
        origins = values.get("origins")  # of a series alone
        verb: Any = train_rolling if origins else train_model
        result = verb(
            task.at_origins(origins) if origins else task,
            make_model_config(task, **chosen(ModelOptions, values)),
            make_train_config(**chosen(TrainOptions, values)),
            **chosen(PlaceOptions, values),
            bar=output.interactive,
            note=output.note,
        )
        if is_first_process():
            for note in result.to_json()["notes"]:
                output.note(f"warning: {note}")
            output.result(result, train_view, written=values["output"])


def chosen(group: type, values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of those options of a group that the command has."""
    names = [option.name for option in options_of(group)]
    return {name: values[name] for name in names if name in values}


GROUPS = (ModelOptions, TrainOptions, PlaceOptions, OutputOptions)

for _task in tasks():
    train.command(_task.name, cls=CheckedCommand)(command_of(_task, _run, *GROUPS))
