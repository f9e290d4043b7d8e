"""``loopedge profile``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from loopedge_cli.counts import Counts, parse_counts
from loopedge_cli.interrupts import ending_at_once
from loopedge_cli.output import Debug, Force, Json, Output, Quiet, sink
from loopedge_cli.views import compare_view, profile_view

if TYPE_CHECKING:
    from loopedge.profiler.result import ProfileResult

N = "N[,N...]"
ONE = Counts((1,))
OF_COMPARISONS = {"compare", "max_regression", "json", "quiet", "debug"}
"""Parameters that go with a comparison; all others say how to measure."""


def profile(
    context: typer.Context,
    models: Annotated[
        list[Path] | None, typer.Argument(metavar="MODEL.onnx...", help="Models to compare.")
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(
            "--against", help="Another model, or the model.pt run by PyTorch; may be repeated."
        ),
    ] = None,
    untied: Annotated[
        bool,
        typer.Option("--untied", help="Also profile each model with own weights per iteration."),
    ] = False,
    unrolled: Annotated[
        bool,
        typer.Option("--unrolled", help="Also profile each model unrolled, its weights shared."),
    ] = False,
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Where the models run.")] = "cpu",
    float16: Annotated[
        bool, typer.Option("--float16", help="Also profile each model computed in float16.")
    ] = False,
    cuda_graphs: Annotated[
        bool,
        typer.Option(
            "--cuda-graphs", help="Also profile each unrolled graph replayed as a CUDA graph."
        ),
    ] = False,
    memory: Annotated[
        Literal["balanced", "low", "mapped"] | None,
        typer.Option(help="How the weights are kept; default: as each file says."),
    ] = None,
    threads: Annotated[
        Counts,
        typer.Option(
            parser=parse_counts, metavar=N, help="Threads inside an operator, or several: 1,2."
        ),
    ] = ONE,
    batch: Annotated[
        Counts,
        typer.Option(
            parser=parse_counts, metavar=N, help="Size of the batch axis, or several: 1,4."
        ),
    ] = ONE,
    sequence: Annotated[
        Counts | None,
        typer.Option(
            parser=parse_counts,
            metavar=N,
            help="Size of the sequence axis, or several: 64,128; default: as trained.",
        ),
    ] = None,
    loops: Annotated[
        Counts | None,
        typer.Option(
            parser=parse_counts,
            metavar=N,
            help="Iterations, or several: 1,4,12, for models with a selectable count.",
        ),
    ] = None,
    input: Annotated[
        Path | None,
        typer.Option("--input", help="Inputs to run on (.npz); default: seeded random ones."),
    ] = None,
    runs: Annotated[
        int | None, typer.Option(min=1, help="Timed runs; default: as many as --seconds holds.")
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(help="Time for each model's runs; from 10 on leaks and drift are told."),
    ] = None,
    processes: Annotated[
        int, typer.Option(min=1, help="Fresh processes per model; figures are their medians.")
    ] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Of the random inputs.")] = 0,
    html: Annotated[
        Path | None, typer.Option("--html", help="Also write the report as one HTML file.")
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            "--compare",
            metavar="BEFORE.json AFTER.json",
            help="Measure nothing: compare two profiles that --json printed.",
        ),
    ] = None,
    max_regression: Annotated[
        float | None,
        typer.Option(
            help="With --compare: exit with 4 where a figure grew by more than this, 0.05 for 5 %."
        ),
    ] = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Tell what models cost here: file, memory, time and where both go, and whether tying pays.

    Each model is measured in fresh processes of its own. Start with: loopedge profile MODEL.onnx --untied
    """
    with sink(json=json, quiet=quiet, debug=debug) as output:
        if compare is not None or max_regression is not None:
            _compare(output, compare, max_regression, measuring=_measuring(context))
            return
        with ending_at_once():
            import loopedge.profiler.pipeline
            from loopedge.artifact.sources import files_of_model
            from loopedge.files.paths import check_paths
            from loopedge.files.targets import check_target
            from loopedge.report.profile.html import write_profile_html

        everything = [*(models or []), *(against or [])]
        if html is not None:
            named = {"MODEL": [file for model in everything for file in files_of_model(model)]}
            check_paths(inputs={**named, "--input": input}, outputs={"--html": html})
            check_target(html, force=force)
        doing = f"profiling {', '.join(map(str, everything))}"
        with output.status(doing) as told:
            result = loopedge.profile(
                everything,
                untied=untied,
                unrolled=unrolled,
                device=device,
                float16=float16,
                cuda_graphs=cuda_graphs,
                memory=memory,
                threads=threads,
                batch=batch,
                sequence=sequence,
                loops=loops,
                input=input,
                runs=runs,
                seconds=seconds,
                processes=processes,
                seed=seed,
                told=told,
            )
        for note in result.notes:
            output.note(f"note: {note}")
        if html is not None:
            write_profile_html(result, html, force=force)
            output.note(f"report: {html}")
        output.result(result, profile_view, written=html)
        _tell_failures(result)


def _measuring(context: typer.Context) -> list[str]:
    """Return what was given, as it is spelled, that goes with a measurement alone."""
    found: list[str] = []
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if name in OF_COMPARISONS or source is None or source.name != "COMMANDLINE":
            continue
        is_option = parameter.param_type_name == "option"
        found += parameter.opts[:1] if is_option else map(str, context.params[name])
    return found


def _compare(
    output: Output,
    files: tuple[Path, Path] | None,
    max_regression: float | None,
    *,
    measuring: list[str],
) -> None:
    """Compare two profiles instead of taking one.

    Args:
        output: Where the comparison goes.
        files: The profiles.
        max_regression: Growth that is allowed.
        measuring: What was given and goes with a measurement alone.

    Raises:
        InputError: Something of a measurement was given too, or no profiles.
        BudgetError: A figure grew by more than is allowed.
    """
    from loopedge.errors import InputError
    from loopedge.profiler.comparison.pipeline import check_regressions, compare_files

    hint = "loopedge profile --compare before.json after.json --max-regression 0.05"
    if files is None:
        raise InputError("--max-regression needs two profiles", hint=hint)
    if measuring:
        told = ", ".join(measuring)
        raise InputError(f"--compare measures nothing, {told} cannot go with it", hint=hint)
    result = compare_files(*files, max_regression=max_regression)
    output.result(result, compare_view)
    check_regressions(result)


def _tell_failures(result: "ProfileResult") -> None:
    """End with an error where a model could not be measured.

    Raises:
        LoopedgeError: The message names the first.
    """
    from loopedge.errors import LoopedgeError

    if result.failures:
        first, count = result.failures[0], len(result.failures) + len(result.runs)
        raise LoopedgeError(
            f"{len(result.failures)} of {count} were not measured: {first.name}: {first.reason}"
        )
