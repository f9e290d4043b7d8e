"""``loopedge compare``."""

from pathlib import Path
from typing import Annotated

import typer

from loopedge_cli.output import Debug, Json, Quiet, sink
from loopedge_cli.views import compare_view

Before = Annotated[
    Path, typer.Argument(metavar="BEFORE.json", help="A profile that profile --json printed.")
]
After = Annotated[Path, typer.Argument(metavar="AFTER.json", help="A later one.")]
MaxRegression = Annotated[
    float | None,
    typer.Option(help="Exit with 4 where a figure grew by more than this part, 0.05 for 5 %."),
]


def compare(
    before: Before,
    after: After,
    max_regression: MaxRegression = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Say what changed between two profiles, run by run, and whether that is beyond the noise.

    Nothing is measured. Start with: loopedge compare before.json after.json
    """
    with sink(json=json, quiet=quiet, debug=debug) as output:
        import loopedge
        from loopedge.profiler.comparison.pipeline import check_regressions

        result = loopedge.compare(before, after, max_regression=max_regression)
        output.result(result, compare_view)
        check_regressions(result)
