"""Options of ``loopedge pilot``; `loopedge.PilotOptions` has the same names, and ``rates`` for ``--lr``."""

from typing import Annotated, Any, Literal

import typer

from loopedge_cli.counts import Counts, parse_counts
from loopedge_cli.limits import parse_seconds, parse_size

__all__ = ["ComparedOptions", "LimitOptions", "Rates"]

COMPARED, LIMITS = "Pilot", "Budget and requirements"
"""Panels of the help."""


class Rates(tuple[float, ...]):
    """Learning rates; reads as it is written on the command line."""

    __slots__ = ()

    def __str__(self) -> str:
        """Return the rates separated by commas."""
        return ",".join(format(rate, "g") for rate in self)


def parse_rates(text: str) -> Rates:
    """Parse learning rates separated by commas.

    Raises:
        typer.BadParameter: A part of the text is not a number.
    """
    try:
        return Rates(float(part) for part in str(text).split(","))
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is neither a learning rate nor some separated by commas."
        ) from None


def parse_seeds(text: str) -> int | Literal["auto"]:
    """Parse a number of seeds, or ``auto``.

    Raises:
        typer.BadParameter: It is neither.
    """
    if str(text) == "auto":
        return "auto"
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is neither a number of seeds nor auto.") from None


def _option(panel: str, help: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, **more)


class ComparedOptions:
    """What is compared, and over what."""

    loops: Annotated[
        Counts,
        _option(
            COMPARED, "Loop counts, separated by commas.", parser=parse_counts, metavar="N[,N...]"
        ),
    ] = Counts((1, 4, 8))
    arms: Annotated[
        str,
        _option(
            COMPARED,
            "Of looped, constant, timestep, elastic, untied and narrow, separated by commas.",
        ),
    ] = "looped,constant,timestep,untied,narrow"
    seeds: Annotated[
        Any,
        _option(
            COMPARED,
            "Seeds of each arm and loop count, from --seed on; auto: 3, 5, 8 or 12, as many as the decision takes.",
            parser=parse_seeds,
            metavar="N|auto",
        ),
    ] = "auto"
    origins: Annotated[
        int | None,
        _option(
            COMPARED,
            "Test periods of a forecast that follow each other at the end; every run is made at each.",
            min=2,
        ),
    ] = None
    margin: Annotated[
        str,
        _option(
            COMPARED,
            "The difference that does not matter: a share of the best baseline's error, or a number in the metric's unit.",
            metavar="SHARE",
        ),
    ] = "2%"
    lr: Annotated[
        Rates,
        _option(
            COMPARED,
            "Peak learning rates that each arm and loop count tries on the validation split; of one none is tried.",
            parser=parse_rates,
            metavar="RATE[,RATE...]",
        ),
    ] = Rates((1e-3, 2e-3, 4e-3, 8e-3))


class LimitOptions:
    """What the pilot may take, and what a model may."""

    budget: Annotated[
        float | None,
        _option(
            LIMITS,
            "Time for everything, as 20m: what does worst in short runs is left out; it says what.",
            parser=parse_seconds,
            metavar="TIME",
        ),
    ] = None
    max_memory: Annotated[
        int | None,
        _option(
            LIMITS,
            "Most memory that a model may take, as 32MiB.",
            parser=parse_size,
            metavar="SIZE",
        ),
    ] = None
    max_latency: Annotated[
        float | None,
        _option(
            LIMITS,
            "Longest time that a sample may take, as 50ms.",
            parser=parse_seconds,
            metavar="TIME",
        ),
    ] = None
    min_metric: Annotated[
        float | None,
        _option(LIMITS, "The metric must be so good at least; where lower is better, so low."),
    ] = None
