"""Every form of the paper's block through an execution provider, against ONNX Runtime's own CPU provider: outputs and time.

Exports the block (d=768, 12 heads, 12 loops, vocabulary 4096, 128 positions, gates open) as Loop and unrolled, in the default
opset and in opset 20, quantizes both unrolled ones in every form of operators, and profiles each file on the CPU and on the
provider, one thread. `loopedge.profile` holds the outputs of each file against those of the CPU before it takes a time, and takes the
times of both in turns; the last column is that ratio times the file's own against the first file on the CPU. A file that
the provider does not run, or computes wrongly, stands there with the reason. Times advise.

    python benchmarks/providers/forms.py [--provider openvino] [--option KEY=VALUE ...] [--models FOLDER] [--runs N]
        [--output benchmarks/results/providers]

Exit code 5 where the installed onnxruntime has no such provider.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

import loopedge
import loopedge_calibration
from loopedge.errors import ProviderError
from loopedge.profiler.machine import describe_machine
from loopedge.profiler.result import Run
from loopedge.quantizer.schemes.operators import OPERATORS
from loopedge.runtime.providers import find_provider, provider_options, short_name

LOOPS, VOCABULARY, SEQUENCE = 12, 4096, 128
OLD = 20
"""The opset that has no Attention and no RMSNormalization: they are written out in operators that engines know."""
KINDS: dict[str, Literal["unrolled", "loop"]] = {"unrolled": "unrolled", "Loop": "loop"}
SECONDS = 1.0
MIB = 2**20
NO_PROVIDER = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A file on the provider; None: it was refused, ``refused`` says why."""

    form: str
    file_bytes: int
    cpu_ms: float
    cpu_ratio: float
    nodes: tuple[int, int] | None = None
    sqnr_db: float | None = None
    limit_db: float | None = None
    time_ratio: float | None = None
    anon_bytes: int | None = None
    load_seconds: float | None = None
    refused: str | None = None

    @property
    def time(self) -> float | None:
        """Time on the provider against the first file on the CPU."""
        return None if self.time_ratio is None else self.cpu_ratio * self.time_ratio


def make_models(folder: Path) -> dict[str, Path]:
    """Export the block in every form, and quantize it; the first one, float32 unrolled, is what others are held against."""
    torch.manual_seed(0)
    config = loopedge.LoopedConfig(
        d_model=768, heads=12, loops=LOOPS, vocab_size=VOCABULARY, max_length=SEQUENCE
    )
    model = loopedge.LoopedTransformer(config).eval()
    last = model.get_submodule("timestep.last")
    assert isinstance(last, torch.nn.Linear)
    torch.nn.init.normal_(last.weight, std=0.02)
    torch.nn.init.normal_(last.bias, std=0.3)
    files = {}
    for kind, form in KINDS.items():
        for opset in (None, OLD):
            name = f"float32 {kind}" + ("" if opset is None else f", opset {opset}")
            files[name] = folder / f"{kind}.{opset}.onnx"
            chosen: dict[str, Any] = {} if opset is None else {"opset": opset}
            if not files[name].exists():
                loopedge.export(model, files[name], form=form, **chosen)
    for name in ("float32 unrolled", f"float32 unrolled, opset {OLD}"):
        files |= _quantized(name, files[name], folder)
    return files


def _quantized(name: str, path: Path, folder: Path) -> dict[str, Path]:
    """Quantize an unrolled file in every form of operators that there is."""
    generator = np.random.default_rng(0)
    data = [{"input_ids": generator.integers(0, VOCABULARY, (4, SEQUENCE))} for _ in range(4)]
    found = {ops: folder / f"{path.stem}.{ops}.onnx" for ops in OPERATORS}
    missing = [ops for ops, target in found.items() if not target.exists()]
    ranges = loopedge_calibration.collect(path, data) if missing else None
    for ops in missing:
        loopedge.quantize(path, found[ops], ranges=ranges, data=data[:1], ops=ops)
    named = name.replace("float32", "static")
    return {f"{named}, --ops {ops}": target for ops, target in found.items()}


def measure(
    files: Mapping[str, Path], provider: str, options: dict[str, str], runs: int | None
) -> list[Row]:
    """Profile all files on the CPU and on the provider."""
    settings: dict[str, Any] = {"details": False, "seconds": SECONDS, "runs": runs}
    listed = list(files.values())
    on_cpu = loopedge.profile(listed, sequence=SEQUENCE, **settings).runs
    there = loopedge.profile(
        listed, provider=provider, provider_options=options, sequence=SEQUENCE, **settings
    )
    found = {run.path: run for run in there.runs}
    reasons = {failure.path: failure.reason for failure in there.failures}
    return [
        _row(name, cpu, found.get(str(path)), reasons.get(str(path)))
        for (name, path), cpu in zip(files.items(), on_cpu, strict=True)
    ]


def _row(name: str, cpu: Run, run: Run | None, reason: str | None) -> Row:
    known: dict[str, Any] = {
        "form": name,
        "file_bytes": cpu.file_bytes,
        "cpu_ms": cpu.latency_ms.p50,
        "cpu_ratio": cpu.time_ratio,
    }
    if run is None or run.against_cpu is None:
        return Row(**known, refused=(reason or "").replace(cpu.path, "the file"))
    counts = {provider: sum(ops.values()) for provider, ops in run.assigned.items()}
    return Row(
        **known,
        nodes=(counts.get(run.provider, 0), sum(counts.values())),
        sqnr_db=run.against_cpu.sqnr_db,
        limit_db=run.against_cpu.limit_db,
        time_ratio=run.against_cpu.time_ratio,
        anon_bytes=run.anon_bytes,
        load_seconds=run.load_seconds,
    )


def table(rows: Sequence[Row], provider: str) -> list[str]:
    """Return the rows as a Markdown table."""
    lines = [
        f"| file | MiB | CPU, ms | CPU, of the first | nodes on {provider} | outputs, dB | needed, dB | {provider}, of the CPU "
        f"| {provider}, of the first on the CPU | anonymous MiB | load s |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        start = (
            f"| {row.form} | {row.file_bytes / MIB:.1f} | {row.cpu_ms:.0f} | {row.cpu_ratio:.2f} "
        )
        if row.nodes is None:
            lines.append(f"{start}| refused: {row.refused} | | | | | | |")
            continue
        limit = "-" if row.limit_db is None else f"{row.limit_db:.1f}"
        lines.append(
            f"{start}| {row.nodes[0]} of {row.nodes[1]} | {row.sqnr_db:.1f} | {limit} | {row.time_ratio:.2f} "
            f"| {row.time:.2f} | {(row.anon_bytes or 0) / MIB:.0f} | {row.load_seconds:.2f} |"
        )
    return lines


def main() -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--provider", default="openvino")
    parser.add_argument("--option", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument(
        "--models", type=Path, help="folder of the files; those that are there are taken"
    )
    parser.add_argument(
        "--runs", type=int, help="timed runs of each file; default: a second of them, at least 20"
    )
    parser.add_argument("--output", type=Path, help="folder for NAME.md and NAME.json")
    arguments = parser.parse_args()
    options = provider_options(dict(word.partition("=")[::2] for word in arguments.option))
    try:
        provider = short_name(find_provider(arguments.provider, options).name)
    except ProviderError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return NO_PROVIDER
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.models or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        rows = measure(make_models(folder), provider, options, arguments.runs)
    machine = describe_machine()
    named = ", ".join(f"{key}={value}" for key, value in options.items())
    lines = [
        f"{machine['cpu']}, one thread, ONNX Runtime {machine['onnxruntime']}, provider {provider}"
        f"{f' with {named}' if named else ''}. The paper's block, {LOOPS} loops, {SEQUENCE} positions.",
        "",
        *table(rows, provider),
    ]
    text = "\n".join(lines)
    print(text)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        stem = ".".join([provider, *(value for value in options.values() if value.isalnum())])
        (arguments.output / f"{stem}.md").write_text(text + "\n", encoding="utf-8")
        content = {"machine": machine, "options": options, "rows": [asdict(row) for row in rows]}
        (arguments.output / f"{stem}.json").write_text(
            json.dumps(content, indent=2) + "\n", encoding="utf-8"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
