"""Which layout of QuantizeLinear and DequantizeLinear pairs is fast and exact: on ONNX Runtime's CPU and in its OpenVINO plug-in.

Exports the paper's block (d=768, 12 heads, 12 loops, vocabulary 4096, 128 positions, gates open) unrolled, in the
default opset and in opset 20, and writes its linears between pairs in several ways, all by the same ranges: signed or unsigned
activations, one scale per channel or per weight, 16 bits, weights and activations with DequantizeLinears that are shared.
Beside them the files of onnxruntime's own quantizer, from the same float file of opset 20 and the same samples: pairs around
MatMul alone, and around all that it knows (attention's products, Softmax, sums). One thread; the sessions take
turns in one process, each time is against float32 unrolled on the CPU in the same round; SQNR against PyTorch. Times advise.

    pip install onnxruntime-ep-openvino
    python benchmarks/int8/qdq.py [--output benchmarks/results/int8]
"""

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import torch
from onnxruntime import quantization

import loopedge
import loopedge_calibration
from loopedge.artifact.artifact import open_artifact, write_artifact
from loopedge.graph.agreement import noise_ratio
from loopedge.profiler.machine import describe_machine
from loopedge.quantizer.activations.ranges import RangeTable
from loopedge.quantizer.schemes.pairs import quantize_pairs
from loopedge.quantizer.schemes.static import quantize_static
from loopedge.quantizer.schemes.targets import TARGETS, IntegerType, Target
from loopedge.runtime.latency import time_in_turns, time_ratios
from loopedge.runtime.providers import find_provider, load_plug_in
from loopedge.runtime.session_options import session_options

LOOPS, VOCABULARY, SEQUENCE, JUDGED = 12, 4096, 128, 4
NEW, OLD = 23, 20
RUNS = 21
PROVIDERS = ("cpu", "openvino")
SIGNED, UNSIGNED = (
    IntegerType(dtype=np.dtype(kind), symmetric=kind is np.int8) for kind in (np.int8, np.uint8)
)
LAYOUTS: dict[str, Target] = {
    "int8 activations, int8 weights per channel (common, openvino, tensorrt)": TARGETS["openvino"],
    "the same, one scale per weight": Target(
        name="tensor", engine="", activations=SIGNED, per_channel=False, sources=()
    ),
    "uint8 activations with a zero point, int8 weights per channel": Target(
        name="unsigned", engine="", activations=UNSIGNED, sources=()
    ),
    "uint16 activations, uint8 weights, one scale (qnn)": TARGETS["qnn"],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A file on a provider; ``ratio`` is its time against float32 unrolled on the CPU; None: it was not run."""

    layout: str
    opset: int
    provider: str
    file_bytes: int
    ratio: float | None = None
    ms: float | None = None
    sqnr_db: float | None = None
    operators: str = ""
    refused: str | None = None


def make_model() -> loopedge.LoopedTransformer:
    """Return the block; its gates are open, or it would be the identity."""
    torch.manual_seed(0)
    config = loopedge.LoopedConfig(
        d_model=768, heads=12, loops=LOOPS, vocab_size=VOCABULARY, max_length=SEQUENCE
    )
    model = loopedge.LoopedTransformer(config).eval()
    last = model.get_submodule("timestep.last")
    assert isinstance(last, torch.nn.Linear)
    torch.nn.init.normal_(last.weight, std=0.02)
    torch.nn.init.normal_(last.bias, std=0.3)
    return model


def ids(seed: int, samples: int) -> np.ndarray:
    """Return inputs, int64 (samples, positions)."""
    return np.random.default_rng(seed).integers(0, VOCABULARY, (samples, SEQUENCE))


def write_files(model: loopedge.LoopedTransformer, folder: Path) -> dict[tuple[str, int], Path]:
    """Write the layouts in opset 20, what needs another or shows what it costs in 23, and onnxruntime's files."""
    files: dict[tuple[str, int], Path] = {}
    for opset in (NEW, OLD):
        files["float32", opset] = folder / f"float.{opset}.onnx"
        loopedge.export(model, files["float32", opset], form="unrolled", opset=opset)
    source, first = files["float32", OLD], next(iter(LAYOUTS))
    table = loopedge_calibration.collect(source, [{"input_ids": ids(seed, 4)} for seed in range(4)])
    for layout, target in LAYOUTS.items():
        opset = OLD if target.activations.bits == 8 else NEW
        files[layout, opset] = _pairs(files["float32", opset], table, target, folder)
    files[first, NEW] = _pairs(files["float32", NEW], table, LAYOUTS[first], folder)
    shared = folder / "shared.onnx"
    _share(files[first, OLD], shared)
    files["as the first, linears share the pair of what they read", OLD] = shared
    plain = open_artifact(source).clone()
    quantize_static(plain, table)
    files["static, --ops microsoft, unrolled", OLD] = folder / "microsoft.onnx"
    write_artifact(plain, folder / "microsoft.onnx", force=False)
    for name, kinds in (("MatMul alone", ["MatMul"]), ("all that it knows", None)):
        path = folder / f"ort.{name.split(maxsplit=1)[0]}.onnx"
        _by_onnxruntime(files["float32", OLD], path, kinds)
        files[f"onnxruntime.quantization, {name}", OLD] = path
    return files


def _pairs(source: Path, table: RangeTable, target: Target, folder: Path) -> Path:
    graph = open_artifact(source).clone()
    quantize_pairs(graph, table, target=target, keep={}, weight_only={})
    path = folder / f"{target.name}.{source.name}"
    write_artifact(graph, path, force=False)
    return path


def _share(source: Path, path: Path) -> None:
    """Let linears that read one activation by one scale read it through one pair."""
    model = open_artifact(source).clone()
    seen: dict[tuple[Any, ...], ir.Value] = {}
    for node in list(model.graph):
        if node.op_type not in {"QuantizeLinear", "DequantizeLinear"} or len(node.inputs) < 3:
            continue
        constants = tuple(value.const_value.numpy().tobytes() for value in node.inputs[1:])  # type: ignore[union-attr]
        first = seen.setdefault((node.op_type, node.inputs[0], constants), node.outputs[0])
        if first is not node.outputs[0]:
            ir.convenience.replace_all_uses_with(node.outputs[0], first)
            model.graph.remove(node, safe=True)
    write_artifact(model, path, force=False)


class _Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        batches = (row[None] for seed in range(4) for row in ids(seed, 1))
        self._feeds: Iterator[dict[str, np.ndarray]] = ({"input_ids": batch} for batch in batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def _by_onnxruntime(source: Path, path: Path, kinds: list[str] | None) -> None:
    quantization.quantize_static(
        source,
        path,
        _Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        op_types_to_quantize=kinds,
    )


def session_of(path: Path, provider: str) -> tuple[ort.InferenceSession, str]:
    """Open a session of one thread; return it and which operators run how often."""
    options = session_options(1)
    if provider != "cpu":
        load_plug_in(find_provider(provider).name)
        name = f"{provider}executionprovider"
        devices = [each for each in ort.get_ep_devices() if each.ep_name.lower() == name]
        config = {"CPU": {"INFERENCE_NUM_THREADS": "1", "NUM_STREAMS": "1"}}
        options.add_provider_for_devices(devices[:1], {"load_config": json.dumps(config)})
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        session = ort.InferenceSession(path, options)
        pieces = session.get_provider_graph_assignment_info()
        own = sum(piece.ep_name.lower() == name for piece in pieces)
        return session, f"{own} pieces, {len(pieces) - own} nodes on the CPU"
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        proto = onnx.load(options.optimized_model_filepath, load_external_data=False)
    counts = Counter(node.op_type for node in proto.graph.node)
    shown = ("MatMulIntegerToFloat", "MatMul", "FusedMatMul", "DequantizeLinear", "QLinearMatMul")
    return session, ", ".join(f"{counts[name]} {name}" for name in shown if counts[name])


def measure(files: dict[tuple[str, int], Path], reference: np.ndarray) -> list[Row]:
    """Run every file on every provider: outputs once, times in turns with the float file on the CPU."""
    judged, found = ids(99, JUDGED), []
    for (layout, opset), path in files.items():
        graph = open_artifact(path)
        size = path.stat().st_size + sum(
            each.stat().st_size for each in path.parent.glob(f"{path.name}.*.data")
        )
        for provider in PROVIDERS:
            fields: dict[str, Any] = {
                "layout": layout,
                "opset": graph.opset_imports.get("", opset),
                "provider": provider,
                "file_bytes": size,
            }
            try:
                session, operators = session_of(path, provider)
            except Exception as error:
                text = str(error).strip().splitlines() or [type(error).__name__]
                found.append(Row(**fields, refused=text[0][:160]))
                continue
            outputs = np.concatenate(
                [np.asarray(session.run(None, {"input_ids": row[None]})[0]) for row in judged]
            )
            base, _ = session_of(files["float32", NEW], "cpu")
            runs = [_runner(base, judged[:1]), _runner(session, judged[:1])]
            taken = time_in_turns(runs, [RUNS, RUNS])
            found.append(
                Row(
                    **fields,
                    ratio=time_ratios(taken)[1],
                    ms=float(np.median(np.concatenate(taken[1]))),
                    sqnr_db=noise_ratio([{"": reference}], [{"": outputs}]).db,
                    operators=operators,
                )
            )
            print(found[-1], flush=True)
    return found


def _runner(session: ort.InferenceSession, row: np.ndarray) -> Callable[[int], list[float]]:
    session.run(None, {"input_ids": row})

    def run(count: int) -> list[float]:
        taken = []
        for _ in range(count):
            started = perf_counter()
            session.run(None, {"input_ids": row})
            taken.append(1000 * (perf_counter() - started))
        return taken

    return run


def table(rows: list[Row]) -> list[str]:
    """Return the rows as a Markdown table."""
    lines = [
        "| file | opset | MB | on | time, of float32 unrolled on the CPU | ms | SQNR, dB | what runs |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        start = f"| {row.layout} | {row.opset} | {row.file_bytes / 1e6:.1f} | {row.provider} "
        if row.ratio is None:
            lines.append(f"{start}| refused: {row.refused} | | | |")
        else:
            lines.append(
                f"{start}| {row.ratio:.3f} | {row.ms:.0f} | {row.sqnr_db:.1f} | {row.operators} |"
            )
    return lines


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder for qdq.md and qdq.json")
    arguments = parser.parse_args()
    model = make_model()
    with torch.no_grad():
        reference = model(torch.from_numpy(ids(99, JUDGED))).numpy()
    with tempfile.TemporaryDirectory() as name:
        rows = measure(write_files(model, Path(name)), reference)
    machine = describe_machine()
    lines = [
        f"{machine['cpu']}, one thread, ONNX Runtime {machine['onnxruntime']}. The paper's block, {LOOPS} loops, "
        f"{SEQUENCE} positions, random weights. One scale and one pair per linear and iteration where nothing else is said.",
        "",
        *table(rows),
    ]
    text = "\n".join(lines)
    print(text)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "qdq.md").write_text(text + "\n", encoding="utf-8")
        content = {"machine": machine, "rows": [asdict(row) for row in rows]}
        (arguments.output / "qdq.json").write_text(
            json.dumps(content, indent=2) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
