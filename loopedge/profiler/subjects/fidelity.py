"""What a quantized file says of how far it is from its float model: measured when it was written, not here."""

from pydantic import TypeAdapter, ValidationError

from loopedge.graph.metadata import Metadata
from loopedge.profiler.result import Fidelity

__all__ = ["fidelity_of"]

_FIDELITY = TypeAdapter(Fidelity)


def fidelity_of(metadata: Metadata) -> Fidelity | None:
    """Return it; None of a float model, and of a file that does not say it."""
    found = metadata.quantization or {}
    try:
        return _FIDELITY.validate_python(
            {
                "sqnr_db": found.get("sqnr_db"),
                "measured_on": found.get("measured_on"),
                "samples": found.get("measured_samples"),
                "metric": found.get("metric"),
                "float_score": found.get("float_score"),
                "score": found.get("score"),
                "states": found.get("state_cosines", []),
            }
        )
    except ValidationError:
        return None
