"""Options from the verb down, and how often a file is parsed on its way through the stations."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
import torch
from torch import Tensor

import loopedge
from loopedge.artifact.reading import onnx_file
from loopedge.errors import InputError
from loopedge.exporter.options import ExportKeywords, ExportOptions
from loopedge.options import naming_flags
from loopedge.quantizer.options import QuantizeKeywords, QuantizeOptions
from loopedge_calibration.options import (
    CollectKeywords,
    CollectOptions,
)
from tests.parity.models import make_model


@pytest.fixture
def parses(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the graphs that are read from files, by the name of the file."""
    seen: Counter[str] = Counter()
    parse = onnx_file._parse

    def counted(path: Path) -> object:
        seen[path.name] += 1
        return parse(path)

    monkeypatch.setattr(onnx_file, "_parse", counted)
    return seen


@pytest.mark.parametrize(
    ("keywords", "options"),
    [
        (ExportKeywords, ExportOptions),
        (QuantizeKeywords, QuantizeOptions),
        (CollectKeywords, CollectOptions),
    ],
)
def test_keywords_are_the_fields_of_the_options(keywords: type, options: Any) -> None:
    """The keywords are written twice, for type checkers: they say the same."""
    types = {"Tensor": Tensor, "Module": torch.nn.Module}
    named = get_type_hints(keywords, localns=types)
    assert named == {
        name: kind
        for name, kind in get_type_hints(options, localns=types).items()
        if name in {field.name for field in fields(options)}
    }
    assert list(named) == [field.name for field in fields(options)]


@pytest.mark.parametrize(
    ("options", "named", "message"),
    [
        (ExportOptions, {"opset": 17}, "opset 17 is not supported"),
        (ExportOptions, {"loops": 0}, "at least 1 is needed"),
        (ExportOptions, {"loops": 2.5}, "a whole number is needed"),
        (ExportOptions, {"exit": "tolerance=-1"}, "finite and at least 0"),
        (ExportOptions, {"form": "unrolled", "dynamic_loops": True}, "a fixed loop count"),
        (ExportOptions, {"logits": "first"}, "logits 'first' is not known"),
        (QuantizeOptions, {"min_coverage": 1.5}, "allowed is 0 to 1"),
        (QuantizeOptions, {"min_sqnr_db": float("nan")}, "not a number"),
        (QuantizeOptions, {"keep": "core/linear"}, "a list of names is needed"),
        (QuantizeOptions, {"block_size": 48}, "block size 48 is not known"),
        (CollectOptions, {"granularity": "each"}, "granularity 'each' is not known"),
        (CollectOptions, {"method": "median"}, "method 'median' is not known"),
        (QuantizeOptions, {"max_drop": -1.0}, "allowed is 0 or more"),
        (QuantizeOptions, {"metric": "task"}, "needs a budget"),
        (
            QuantizeOptions,
            {"scheme": "dynamic", "save_ranges": "r"},
            "takes and gives no ranges",
        ),
        (QuantizeOptions, {"reduce_range": True, "ops": "own"}, "ops 'own' is not known"),
    ],
)
def test_options_are_checked_when_they_are_made(options: Any, named: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        options(**named)


@pytest.mark.slow
def test_a_keyword_wins_over_the_object(tmp_path: Path) -> None:
    options = ExportOptions(loops=2, dynamic_loops=True)
    result = loopedge.export(make_model("tokens"), tmp_path / "m.onnx", options=options, loops=4)
    metadata = loopedge.inspect(tmp_path / "m.onnx").metadata
    assert (result.loops, metadata["dynamic_loops"]) == (4, True)
    assert options.loops == 2


def test_an_unknown_keyword_is_an_error_of_python(tmp_path: Path) -> None:
    for verb in (loopedge.export, loopedge.quantize):
        with pytest.raises(TypeError, match=r"^(export|quantize)\(\) got an unexpected keyword"):
            verb("m", tmp_path / "x.onnx", depth=3)  # type: ignore[call-arg]


def test_a_hint_names_options_as_the_caller_writes_them() -> None:
    with pytest.raises(InputError) as error:
        ExportOptions(form="scan")  # type: ignore[arg-type]
    assert error.value.hint == 'form="loop" or form="unrolled"'
    with naming_flags(), pytest.raises(InputError) as error:
        ExportOptions(form="scan")  # type: ignore[arg-type]
    assert error.value.hint == "--form loop or --form unrolled"


@pytest.mark.slow
def test_an_export_parses_its_staged_file_once(tmp_path: Path, parses: Counter[str]) -> None:
    loopedge.export(make_model("tokens"), tmp_path / "m.onnx")
    assert parses == {"m.onnx": 1}


@pytest.mark.slow
def test_a_budget_opens_its_source_once_and_what_it_wrote_once(
    tmp_path: Path, parses: Counter[str]
) -> None:
    source, data = tmp_path / "m.onnx", tmp_path / "x.npz"
    loopedge.export(make_model("tokens"), source)
    np.savez(data, input_ids=np.random.default_rng(0).integers(0, 50, (16, 8)))
    parses.clear()
    loopedge.quantize(
        source,
        tmp_path / "q.onnx",
        scheme="static",
        data=data,
        max_drop=0.5,
        reduce_range=True,
        threads=1,
    )
    assert parses == {"m.onnx": 1, "q.onnx": 1}


class OneWidth(torch.nn.Module):
    """A core of one number of channels: axis 1 of its input is not a sequence."""

    loops = 2

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(6, 6)

    def prelude(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x

    def core(self, state: Tensor, context: Tensor, row: dict[str, Tensor]) -> Tensor:
        return torch.tanh(self.linear(state)) + context

    def coda(self, state: Tensor, context: Tensor) -> Tensor:
        return state

    def timestep_table(self, loops: int) -> dict[str, Tensor]:
        return {"t": torch.arange(loops, dtype=torch.float32)[:, None]}

    def example_inputs(self) -> tuple[Tensor, ...]:
        return (torch.randn(3, 6, generator=torch.Generator().manual_seed(0)),)


@pytest.fixture
def seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("seeded")
def test_channels_are_not_called_the_sequence_length(tmp_path: Path) -> None:
    notes = loopedge.export(OneWidth(), tmp_path / "m.onnx").notes
    assert "axis 1 of inputs (positions or channels) is fixed to 6 by the model" in notes
    assert not any("sequence length" in note for note in notes)
