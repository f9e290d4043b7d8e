"""How long does `quantize --scheme weight-int4 --data` take on the paper's block: d=768, 12 loops, vocabulary 4096, two threads?

Against rounding to nearest, with the same data. The weights are random: the time does not depend on them, accuracy is
`low_bits.py`'s subject. 128 samples of 128 ids: 64 calibrate, 32 choose, 32 judge. Wall and processor time are printed, for a
machine may be busy; the peak of memory too. A minute and a half.

    python benchmarks/int8/rounding_time.py [--output benchmarks/results/int8]
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import loopedge

SAMPLES, LENGTH, VOCABULARY = 128, 128, 4096
THREADS = 2
ALLOWED_SECONDS = 60.0
SCHEME = "weight-int4"


def make_model(path: Path, d_model: int) -> None:
    """Export the block with random weights."""
    torch.manual_seed(0)
    config = loopedge.LoopedConfig(
        d_model=d_model, heads=d_model // 64, loops=12, vocab_size=VOCABULARY, max_length=LENGTH
    )
    model = loopedge.LoopedTransformer(config).eval()
    torch.nn.init.normal_(model.get_submodule("timestep").last.weight, std=0.02)  # type: ignore[union-attr, arg-type]
    loopedge.export(model, path)


def measure(source: Path, data: Path, rounding: str) -> dict[str, Any]:
    """Quantize in a process of its own; return times, the peak, and what was chosen."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        started, used = time.perf_counter(), time.process_time()
        result = loopedge.quantize(
            source,
            source.with_suffix(f".{rounding}.onnx"),
            scheme=SCHEME,
            data=data,
            rounding=rounding,
            threads=THREADS,
            min_sqnr_db=0,
            force=True,
        )
        found = {
            "rounding": rounding,
            "seconds": time.perf_counter() - started,
            "processor_seconds": time.process_time() - used,
            "of_it_rounding": None if result.rounding is None else result.rounding.seconds,
            "sqnr_db": result.sqnr_db,
            "chosen": "nearest" if result.rounding is None else result.rounding.chosen,
        }
        os.write(write, json.dumps(found).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        answer = pipe.read()
    _, _, usage = os.wait4(child, 0)
    return {**json.loads(answer), "peak_mib": usage.ru_maxrss / 1024}


def main() -> int:
    """Measure, print a Markdown table, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--d-model", type=int, default=768, help="width of the block")
    parser.add_argument("--output", type=Path, help="folder for rounding_time.md and .json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        source, data = Path(name) / "float.onnx", Path(name) / "ids.npz"
        make_model(source, arguments.d_model)
        ids = np.random.default_rng(0).integers(0, VOCABULARY, (SAMPLES, LENGTH))
        np.savez(data, input_ids=ids)
        found = [measure(source, data, rounding) for rounding in ("nearest", "data")]
    lines = [
        "| rounding | seconds | processor seconds | of it rounding, s | peak MiB | chosen | SQNR dB |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {item['rounding']} | {item['seconds']:.1f} | {item['processor_seconds']:.1f} "
            f"| {item['of_it_rounding'] or 0:.1f} | {item['peak_mib']:.0f} | {item['chosen']} | {item['sqnr_db']:.1f} |"
            for item in found
        ),
    ]
    print("\n".join(lines))
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "rounding_time.md").write_text("\n".join(lines) + "\n")
        (arguments.output / "rounding_time.json").write_text(json.dumps(found, indent=2) + "\n")
    slow = found[-1]["seconds"] > ALLOWED_SECONDS
    if slow:
        print(f"over {ALLOWED_SECONDS:.0f} s", file=sys.stderr)
    return 4 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
