"""Every kind of artifact in engines of other makers, each in a process of the environment `.venv-clients`.

An engine computes what ONNX Runtime does, or refuses the file with a reason: a wrong result without a word is what these
tests are for. What each is known to refuse stands here, so that a table of the docs can rely on it.
"""

import os
from pathlib import Path

import pytest

from benchmarks.reach.computing import Answer, answers
from benchmarks.reach.kinds import KINDS, write_kind

REFUSED = {
    "openvino": {
        "weight-int8, loop": "GatherBlockQuantized",
        "weight-int8, unrolled": "GatherBlockQuantized",
        "weight-int4, loop": "GatherBlockQuantized",
        "weight-int4, unrolled": "GatherBlockQuantized",
    },
    "tract": {},
}
"""By engine and kind, a part of its reason."""


@pytest.fixture(scope="session")
def clients() -> Path:
    """Return the interpreter of the environment that make test-clients sets up."""
    python = Path(os.environ.get("CLIENTS_PYTHON", "")).absolute()
    assert python.is_file(), "no environment of clients: run make test-clients"
    return python


@pytest.fixture(scope="session")
def answered(
    clients: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Answer]]:
    """Return, by engine and kind, what the engine made of the file."""
    folder = tmp_path_factory.mktemp("kinds")
    files = [write_kind(kind, folder) for kind in KINDS.values()]
    found = {engine: answers(engine, clients, files)[1] for engine in REFUSED}
    return {engine: dict(zip(KINDS, given, strict=True)) for engine, given in found.items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("engine", REFUSED)
def test_an_engine_computes_a_file_rightly_or_refuses_it(
    engine: str, kind: str, answered: dict[str, dict[str, Answer]]
) -> None:
    answer, reason = answered[engine][kind], REFUSED[engine].get(kind)
    if reason is None:
        assert answer.right, str(answer)
    else:
        assert answer.refused is not None, f"it is computed now: {answer}"
        assert reason in answer.refused
