"""What pydantic refuses, in one line."""

from pydantic import ValidationError

__all__ = ["validation_problem"]


def validation_problem(error: ValidationError) -> str:
    """Return the first thing that a model of pydantic refuses, as ``place: what is wrong``."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(map(str, first["loc"]))
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message
