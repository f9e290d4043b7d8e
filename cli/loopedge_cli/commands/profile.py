"""``loopedge profile``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from loopedge_cli.counts import Counts, parse_counts
from loopedge_cli.interrupts import ending_at_once
from loopedge_cli.options.provider import Provider, ProviderOptions, read_provider_options
from loopedge_cli.output import Debug, Force, Json, Quiet, sink
from loopedge_cli.views import profile_view

if TYPE_CHECKING:
    from loopedge.profiler.result import ProfileResult

N = "N[,N...]"
ONE = Counts((1,))

Models = Annotated[
    list[Path] | None, typer.Argument(metavar="MODEL.onnx...", help="Models to compare.")
]
Against = Annotated[
    list[Path] | None,
    typer.Option(
        "--against", help="Another model, or the model.pt run by PyTorch; may be repeated."
    ),
]
Untied = Annotated[
    bool, typer.Option("--untied", help="Also profile each model with own weights per iteration.")
]
Unrolled = Annotated[
    bool, typer.Option("--unrolled", help="Also profile each model unrolled, its weights shared.")
]
Float16 = Annotated[
    bool, typer.Option("--float16", help="Also profile each model computed in float16.")
]
Balanced = Annotated[
    bool,
    typer.Option(
        "--balanced", help="Also profile each model of memory profile low with its weights packed."
    ),
]
CudaGraphs = Annotated[
    bool,
    typer.Option(
        "--cuda-graphs", help="Also profile each unrolled graph replayed as a CUDA graph."
    ),
]
Memory = Annotated[
    Literal["balanced", "low", "mapped"] | None,
    typer.Option(help="How the weights are kept; default: as each file says."),
]
Threads = Annotated[
    Counts,
    typer.Option(
        parser=parse_counts, metavar=N, help="Threads inside an operator, or several: 1,2."
    ),
]
Batch = Annotated[
    Counts,
    typer.Option(parser=parse_counts, metavar=N, help="Size of the batch axis, or several: 1,4."),
]
Sequence = Annotated[
    Counts | None,
    typer.Option(
        parser=parse_counts,
        metavar=N,
        help="Size of the sequence axis, or several: 64,128; default: as trained.",
    ),
]
Loops = Annotated[
    Counts | None,
    typer.Option(
        parser=parse_counts,
        metavar=N,
        help="Iterations, or several: 1,4,12, for models with a selectable count.",
    ),
]
Input = Annotated[
    Path | None,
    typer.Option(
        "--input",
        help="Inputs to run on, arrays or a table, as for run; default: seeded random ones.",
    ),
]
Runs = Annotated[
    int | None, typer.Option(min=1, help="Timed runs; default: as many as --seconds holds.")
]
Seconds = Annotated[
    float | None,
    typer.Option(help="Time for each model's runs; from 10 on leaks and drift are looked for."),
]
Processes = Annotated[
    int, typer.Option(min=1, help="Fresh processes per model; figures are their medians.")
]
Seed = Annotated[int, typer.Option(min=0, help="Of the random inputs.")]
Html = Annotated[
    Path | None, typer.Option("--html", help="Also write the report as one HTML file.")
]


def profile(
    models: Models = None,
    against: Against = None,
    untied: Untied = False,
    unrolled: Unrolled = False,
    provider: Provider = "cpu",
    provider_options: ProviderOptions = None,
    float16: Float16 = False,
    balanced: Balanced = False,
    cuda_graphs: CudaGraphs = False,
    memory: Memory = None,
    threads: Threads = ONE,
    batch: Batch = ONE,
    sequence: Sequence = None,
    loops: Loops = None,
    input: Input = None,
    runs: Runs = None,
    seconds: Seconds = None,
    processes: Processes = 3,
    seed: Seed = 0,
    html: Html = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Say what models cost here: file, memory, time and where both go, and whether tying pays.

    Each model is measured in fresh processes of its own. Start with: loopedge profile MODEL.onnx --untied
    """
    with sink(json=json, quiet=quiet, debug=debug) as output:
        with ending_at_once():
            import loopedge.profiler.pipeline
            from loopedge.report.profile.html import write_profile_html

        options = loopedge.ProfileOptions(
            untied=untied,
            unrolled=unrolled,
            provider=provider,
            provider_options=read_provider_options(provider_options),
            float16=float16,
            balanced=balanced,
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
        )
        everything = [*(models or []), *(against or [])]
        _check_page(html, everything, input, force=force)
        with output.status(f"profiling {', '.join(map(str, everything))}") as report_progress:
            result = loopedge.profile(everything, options=options, report_progress=report_progress)
        for note in result.notes:
            output.note(f"note: {note}")
        if html is not None:
            write_profile_html(result, html, force=force)
            output.note(f"report: {html}")
        output.result(result, profile_view, written=html)
        _end_with_failures(result)


def _check_page(html: Path | None, models: list[Path], input: Path | None, *, force: bool) -> None:
    """Refuse a page that cannot be written, before hours of measuring.

    Raises:
        InputError: It is one of the inputs, exists, or has no folder.
    """
    from loopedge.artifact.needed_files import files_of_model
    from loopedge.files.paths import check_paths
    from loopedge.files.targets import check_target

    if html is None:
        return
    # A page that does not exist yet is none of the files that are read.
    files = (
        {"MODEL": [file for model in models for file in files_of_model(model)]}
        if html.exists()
        else {}
    )
    check_paths(inputs={**files, "--input": input}, outputs={"--html": html})
    check_target(html, force=force)


def _end_with_failures(result: "ProfileResult") -> None:
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
