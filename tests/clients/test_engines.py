"""Every kind of artifact in engines of other makers, each in a process of the environment `.venv-clients`.

An engine computes what ONNX Runtime does, or refuses the file with a reason: a wrong result without a word is what these
tests are for. What each is known to refuse stands here, so that the table of docs/on_your_board.md can rely on it.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest

from benchmarks.reach.computing import Answer, answers
from benchmarks.reach.kinds import KINDS, write_kind

ENGINES = ("openvino", "tract")
TABLE = "GatherBlockQuantized"
"""Reads the rows of a table that is embedding and head, and stored by its weight alone: of eight bits OpenVINO and tract
have none, of four none along this axis."""

WIDE = "static, qdq, qnn"
"""Its activations have 16 bits, which tract's QuantizeLinear does not give."""

NOT_IN_TRACT = ("Loop", "MatMulIntegerToFloat", "DynamicQuantizeMatMul")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What an engine made of a kind, and the operators of the file."""

    answer: Answer
    operators: set[str]


@pytest.fixture(scope="session")
def clients() -> Path:
    """Return the interpreter of the environment that make test-clients sets up."""
    python = Path(os.environ.get("CLIENTS_PYTHON", "")).absolute()
    assert python.is_file(), "there is no environment of other engines: run make test-clients"
    return python


@pytest.fixture(scope="session")
def tried(clients: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Tried]:
    """Return, by engine and kind, what became of each file."""
    folder = tmp_path_factory.mktemp("kinds")
    files = [write_kind(kind, folder) for kind in KINDS.values()]
    found = {}
    for engine in ENGINES:
        _, given = answers(engine, clients, files)
        for file, answer in zip(files, given, strict=True):
            proto = onnx.load(file.path, load_external_data=False)
            operators = {node.op_type for node in proto.graph.node}
            found[engine, file.kind.name] = Tried(answer=answer, operators=operators)
    return found


def refusal(engine: str, kind: str, operators: set[str]) -> str | None:
    """Return a part of the reason for which an engine refuses a file; None where it computes it."""
    if engine == "tract" and kind == WIDE:
        return "tensor is U16"
    if TABLE in operators:
        return TABLE
    missing = [name for name in NOT_IN_TRACT if name in operators]
    return f"Unimplemented({missing[0]})" if engine == "tract" and missing else None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_computes_a_file_rightly_or_refuses_it(
    engine: str, kind: str, tried: dict[tuple[str, str], Tried]
) -> None:
    found = tried[engine, kind]
    reason = refusal(engine, kind, found.operators)
    if reason is None:
        assert found.answer.right, str(found.answer)
    else:
        assert found.answer.refused is not None, f"it is computed now: {found.answer}"
        assert reason in found.answer.refused
