"""Which colour a run has; report.css says what it looks like."""

from loopedge.profiler.result import Run

__all__ = ["colour_of"]


def colour_of(run: Run) -> str:
    """Return the class of colour: of a twin, of PyTorch, of an integer model, or of the rest."""
    if run.twin is not None:
        return run.twin
    if run.runtime == "torch":
        return "eager"
    return "int8" if run.quantization else "tied"
