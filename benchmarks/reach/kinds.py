"""Every kind of file that loopedge writes, of one tiny model: what other engines are tried with.

Each kind stands with inputs, with what ONNX Runtime computes from them, and with what the float model computes. Most are
made from `tests/fixtures/tiny.onnx` by the passes that `loopedge.export` runs; other opsets and the early exit are
exported.
"""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray

import loopedge
import loopedge_calibration
from loopedge.artifact.artifact import open_artifact, write_artifact
from loopedge.artifact.opsets import IR_VERSIONS
from loopedge.errors import LoopCountWarning
from loopedge.graph.core.unrolling import unroll
from loopedge.graph.inputs import generate_inputs
from loopedge.graph.passes.last_position import keep_last_position
from loopedge.graph.passes.storage import store_float16
from loopedge.graph.passes.table_head import read_table_in_place
from loopedge.graph.positions.coda import select_positions_first
from loopedge.graph.positions.last_iteration import narrow_last_iteration
from loopedge.graph.split.head_groups import split_heads
from loopedge.graph.split.hidden_chunks import split_hidden

__all__ = ["KINDS", "Kind", "Written", "run", "write_kind"]

Arrays = dict[str, NDArray[Any]]
Pass = Callable[[ir.Model], ir.Model | None]
FIXTURES = Path(__file__).parents[2] / "tests" / "fixtures"
BATCH, SEQUENCE = 2, 9
CONFIG: dict[str, Any] = {"d_model": 32, "heads": 2, "loops": 3, "vocab_size": 48, "max_length": 16}
SEVEN_BITS = {"reduce_range": True}
"""Eight bits overflow on processors without VNNI, in ONNX Runtime and in others, each in its own way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """How a kind is written.

    Args:
        name: Of the kind, as tables have it.
        fixture: The file that it is made from.
        change: What is done to its graph.
        export: Options of an export, instead of the fixture.
        quantize: Options of `loopedge.quantize`; None: the file is float.
        ranges: Options of the calibration, for static.
        feeds: Inputs beside the generated ones.
    """

    name: str
    fixture: str = "tiny.onnx"
    change: Pass | None = None
    export: dict[str, Any] | None = None
    quantize: dict[str, Any] | None = None
    ranges: dict[str, Any] | None = None
    feeds: dict[str, Any] = field(default_factory=dict)

    @property
    def file_name(self) -> str:
        """Return the name as that of a file."""
        return f"{self.name.replace(', ', '.').replace(' ', '_')}.onnx"


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A kind in a file; arrays by the names of inputs and outputs.

    ``expected`` is what ONNX Runtime gives for the file, ``exact`` what it gives for the float model.
    """

    kind: Kind
    path: Path
    feeds: Arrays
    expected: Arrays
    exact: Arrays


def _in_parts(model: ir.Model) -> None:
    """As the memory profile ``low`` has wide layers, at any width."""
    split_hidden(model, least_width=1, least_bytes=0)
    split_heads(model, least_width=1)
    read_table_in_place(model, least_bytes=0)


def _in_float16(model: ir.Model) -> None:
    """As ``--storage float16``."""
    store_float16(model)


def _last_position(model: ir.Model) -> None:
    """As ``--logits last``: the last iteration stands behind the Loop."""
    keep_last_position(model)
    select_positions_first(model)
    narrow_last_iteration(model)


def _kinds() -> Iterator[Kind]:
    yield Kind(name="float, loop")
    yield Kind(name="float, unrolled", change=unroll)
    count = {"loops": np.array(2, np.int64)}
    yield Kind(name="float, selectable loops", fixture="tiny_dynamic.onnx", feeds=count)
    yield Kind(name="float, last iteration behind the loop", change=_last_position)
    yield Kind(name="float, weights in float16", change=_in_float16)
    yield Kind(name="float, layers in parts", change=_in_parts)
    yield Kind(name="float, early exit", export={"exit": "tolerance=0.5"})
    for opset in sorted(set(IR_VERSIONS) - {23}):
        yield Kind(name=f"float, loop, opset {opset}", export={"opset": opset})
    yield Kind(name="float, unrolled, opset 18", export={"opset": 18, "form": "unrolled"})
    forms: dict[str, Pass | None] = {"loop": None, "unrolled": unroll}
    for ops in ("microsoft", "standard"):
        options = {"ops": ops, **SEVEN_BITS}
        static: dict[str, Any] = {"scheme": "static", **options}
        for form, change in forms.items():
            name = f"static, {ops}, {form}"
            yield Kind(name=name, change=change, quantize=static, ranges={})
            dynamic = {"scheme": "dynamic", **options}
            yield Kind(name=f"dynamic, {ops}, {form}", change=change, quantize=dynamic)
        shared = {"granularity": "shared"}
        yield Kind(name=f"static, {ops}, loop, shared ranges", quantize=static, ranges=shared)
    for form, change in forms.items():
        pairs: dict[str, Any] = {"ops": "qdq", **SEVEN_BITS}
        yield Kind(name=f"static, qdq, from {form}", change=change, quantize=pairs, ranges={})
    for target in ("qnn", "openvino"):
        asked = {"ops": "qdq", "target": target, **SEVEN_BITS}
        yield Kind(name=f"static, qdq, {target}", quantize=asked, ranges={})
    static = {"scheme": "static", **SEVEN_BITS}
    for form, change in forms.items():
        kept = {**static, "keep": ["coda/linear"]}
        name = f"static, microsoft, {form}, head in float"
        yield Kind(name=name, change=change, quantize=kept, ranges={})
    yield Kind(name="static, loop, memory low", quantize={**static, "memory": "low"}, ranges={})
    last = "static, last iteration behind the loop"
    yield Kind(name=last, change=_last_position, quantize=static, ranges={})
    for scheme in ("weight-int8", "weight-int4"):
        for form, change in forms.items():
            yield Kind(name=f"{scheme}, {form}", change=change, quantize={"scheme": scheme})
    apart = {"scheme": "weight-int8", "keep": ["embedding.weight"]}
    yield Kind(name="weight-int8, loop, embedding in float", quantize=apart)


KINDS: dict[str, Kind] = {kind.name: kind for kind in _kinds()}


def write_kind(kind: Kind, folder: Path) -> Written:
    """Write a kind into a folder, where float files are kept for others; run it, and the float model."""
    source = _source(kind, folder)
    generated = generate_inputs(open_artifact(source), batch=BATCH, sequence=SEQUENCE)
    feeds = {**generated, **kind.feeds}
    exact = run(source, feeds)
    if kind.quantize is None:
        return Written(kind=kind, path=source, feeds=feeds, expected=exact, exact=exact)
    options: dict[str, Any] = {"min_sqnr_db": 0.0, **kind.quantize}
    if kind.ranges is not None:
        options["ranges"] = _ranges(source, **kind.ranges)
    path = folder / kind.file_name
    loopedge.quantize(source, path, threads=1, force=True, **options)
    return Written(kind=kind, path=path, feeds=feeds, expected=run(path, feeds), exact=exact)


def run(path: Path, feeds: Arrays) -> Arrays:
    """Return the outputs of ONNX Runtime."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LoopCountWarning)
        return dict(loopedge.Session(path, threads=1).run(feeds))


def _source(kind: Kind, folder: Path) -> Path:
    """Return the float file that a kind is, or is made from."""
    name = kind.file_name if kind.quantize is None else _change_name(kind)
    path = folder / name
    if path.exists():
        return path
    if kind.export is not None:
        loopedge.export(_model(), path, **kind.export)
        return path
    model = open_artifact(FIXTURES / kind.fixture)
    changed = None if kind.change is None else kind.change(model)
    write_artifact(changed or model, path)
    return path


def _change_name(kind: Kind) -> str:
    return f"{getattr(kind.change, '__name__', 'loop')}.onnx"


@cache
def _ranges(source: Path, **options: Any) -> Any:
    artifact = open_artifact(source)
    samples = [
        generate_inputs(artifact, batch=4, sequence=SEQUENCE, seed=seed) for seed in range(1, 5)
    ]
    return loopedge_calibration.collect(source, samples, threads=1, **options)


def _model() -> loopedge.LoopedTransformer:
    torch.manual_seed(0)
    model = loopedge.LoopedTransformer(loopedge.LoopedConfig(**CONFIG)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("timestep.last"):
                parameter.normal_(0.3, 0.3)  # gates of zero would hide the core
    return model
