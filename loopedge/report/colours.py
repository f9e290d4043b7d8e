"""Which colour a run has; report.css says what it looks like."""

from loopedge.profiler.result import Run

__all__ = ["colour_of"]


def colour_of(run: Run) -> str:
    """Return the class of colour: of an untied twin, of PyTorch, of an integer model, or the rest."""
    if run.twin == "untied":
        return "untied"
    if run.runtime == "torch":
        return "eager"
    return "int8" if run.quantization else "tied"
