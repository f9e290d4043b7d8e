"""How long does `quantize --refine 100` take on the paper's block: d=768, 12 loops, vocabulary 4096, two threads?

The weights are random: the time does not depend on them. Samples of 128 ids: 64 calibrate, 32 choose, 32 judge. Wall and processor time are
printed, for a machine may be busy; the peak of memory too. Five minutes on two cores.

    python benchmarks/int8/refine_time.py [--steps 100] [--output benchmarks/results/int8]
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import loopedge

SAMPLES, LENGTH, VOCABULARY = 128, 128, 4096
THREADS = 2
ALLOWED_SECONDS = 300.0


def main() -> int:
    """Measure, print a Markdown table, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--d-model", type=int, default=768, help="width of the block")
    parser.add_argument("--steps", type=int, default=100, help="of refining")
    parser.add_argument("--output", type=Path, help="folder for refine_time.md and .json")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    config = loopedge.LoopedConfig(
        d_model=arguments.d_model,
        heads=arguments.d_model // 64,
        loops=12,
        vocab_size=VOCABULARY,
        max_length=LENGTH,
    )
    model = loopedge.LoopedTransformer(config).eval()
    torch.nn.init.normal_(model.get_submodule("timestep").last.weight, std=0.02)  # type: ignore[union-attr, arg-type]
    ids = np.random.default_rng(0).integers(0, VOCABULARY, (SAMPLES, LENGTH))
    with tempfile.TemporaryDirectory() as name:
        source, target = Path(name) / "model.onnx", Path(name) / "q.onnx"
        loopedge.export(model, source)
        started, used = time.perf_counter(), time.process_time()
        result = loopedge.quantize(
            source,
            target,
            scheme="weight-int4",
            data={"input_ids": ids},
            refine=arguments.steps,
            module=model,
            threads=THREADS,
            min_sqnr_db=0,
        )
        seconds, processor = time.perf_counter() - started, time.process_time() - used
    refined, rounding = result.refined, result.rounding
    assert refined is not None
    found = {
        "d_model": arguments.d_model,
        "steps": refined.steps,
        "seconds": seconds,
        "processor_seconds": processor,
        "of_it_rounding_by_data": None if rounding is None else rounding.seconds,
        "of_it_refining": refined.seconds,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "before_db": refined.before_db,
        "after_db": refined.after_db,
    }
    lines = [
        f"# Refining: d={arguments.d_model}, 12 loops, {THREADS} threads",
        "",
        "| | |",
        "|---|---|",
        *(
            f"| {key.replace('_', ' ')} | {value if isinstance(value, int) else f'{value:.1f}'} |"
            for key, value in found.items()
            if value is not None
        ),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.output is not None:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "refine_time.md").write_text(text, encoding="utf-8")
        (arguments.output / "refine_time.json").write_text(json.dumps(found, indent=1) + "\n")
    # Wall time where the machine was free, else what two busy threads would have taken.
    taken = min(seconds, processor / THREADS)
    print(f"{taken:.0f} s of {ALLOWED_SECONDS:.0f} allowed")
    return int(taken > ALLOWED_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
