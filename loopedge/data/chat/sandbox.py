"""Render a chat template in a process of its own: a template is a program of others, and may never end.

The process gets a request on its standard input and answers on its standard output, both JSON. It imports nothing of ours.
"""

import contextlib
import json
import sys
from datetime import datetime
from typing import Any

__all__ = ["MOST_CHARACTERS", "answer_request", "main"]

MOST_CHARACTERS = 4 << 20
"""Of the rendered text."""


class RefusedError(Exception):
    """The template asks for an end, or makes more than is allowed."""


def main() -> None:
    """Answer one request of `answer_request`, with its ``seconds`` and ``bytes`` as limits."""
    request = json.load(sys.stdin)
    _limit(request["seconds"], request["bytes"])
    try:
        answer = answer_request(request)
    except MemoryError:
        answer = {"error": f"needs more than {request['bytes'] >> 20} MiB of memory"}
    sys.stdout.write(json.dumps(answer))


def answer_request(request: dict[str, Any]) -> dict[str, str]:
    """Render ``template`` with ``variables``; return the ``text``, or an ``error`` in one line.

    Unchecked: the process has limits.
    """
    try:
        return {"text": _render(request["template"], request["variables"])}
    except RecursionError:
        return {"error": "is nested too deeply"}
    except RefusedError as error:
        return {"error": str(error)}
    except MemoryError:
        raise
    except Exception as error:  # jinja2's own kinds, and what expressions raise
        reason = " ".join(str(error).split())[:300]
        return {"error": f"fails: {reason or type(error).__name__}"}


def _limit(seconds: int, memory_bytes: int) -> None:
    """Bound processor time and memory, where the system can; the parent bounds the time by the clock."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def _render(template: str, variables: dict[str, Any]) -> str:
    from jinja2.ext import Extension, loopcontrols
    from jinja2.nodes import Node
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """``{% generation %}`` marks what a model is trained on; here it renders what it holds."""

        tags = {"generation"}  # noqa: RUF012 - as jinja2 has it

        def parse(self, parser: Parser) -> list[Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    pieces, size = [], 0
    for piece in environment.from_string(template).generate(variables):
        size += len(piece)
        if size > MOST_CHARACTERS:
            raise RefusedError(f"makes more than {MOST_CHARACTERS:,} characters")
        pieces.append(piece)
    return "".join(pieces)


def _to_json(value: Any, ensure_ascii: bool = False, indent: Any = None, **more: Any) -> str:
    """Write JSON as the templates of published models expect it: without escapes for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **more)


def _refuse(message: str) -> None:
    raise RefusedError(f"refuses the conversation: {' '.join(str(message).split())[:300]}")


if __name__ == "__main__":
    main()
