"""A terminal of 80 columns shows every character that a wide one shows."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from loopedge.profiler.result import IterationTime, MemorySources, OperatorTime, Run
from loopedge.report.profile.sections.memory import SOURCES
from loopedge.report.profile.terminal import profile_table
from tests.unit.profiles import MIB, make_result, make_run

OPERATORS = (
    "MatMulIntegerToFloat",
    "RMSNormalization",
    "QuantizeLinear",
    "FusedMatMul",
    "Attention",
    "Gather",
)


@pytest.mark.parametrize("width", [80, 100])
def test_wide_tables_are_folded_and_not_cut(width: int) -> None:
    size = 40 * MIB
    sources = MemorySources(
        moment="run",
        peak_bytes=len(SOURCES) * size,
        peak_node="core/gelu",
        **dict.fromkeys(SOURCES, size),
    )
    run = replace(
        make_run("language-model.last.int8.onnx (untied, 12 loops)"),
        memory_sources=sources,
        ops=[OperatorTime(op=op, count=1, ms=1.0, share=1 / 6) for op in OPERATORS],
        iterations=[
            IterationTime(iteration=i, ms=0.123, ops={OPERATORS[0]: 0.123}) for i in range(2)
        ],
    )
    assert shown(run, width) == shown(run, 400)


def shown(run: Run, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(profile_table(make_result(run)))
    return sorted("".join(console.export_text().split()))
