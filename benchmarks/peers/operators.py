"""Where the time of static int8 goes, operator by operator: loopedge's and OpenVINO's.

ONNX Runtime's trace against OpenVINO's counters, on the paper's block (d=768, 128 positions, 12 loops), one
thread. Takes the artifacts of `make bench-peers`, which has to be run before.

    python -m benchmarks.peers.operators [--output benchmarks/results/peers]
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import loopedge
from benchmarks.peers.conversion import ARTIFACTS, SUBJECTS
from benchmarks.peers.environments import environment_of
from benchmarks.peers.products import TMLT
from loopedge.profiler.machine import describe_machine

OURS = ARTIFACTS / f"loopedge.int8-balanced.{TMLT}" / "int8.onnx"
THEIRS = ARTIFACTS / f"openvino.pytorch-int8.{TMLT}" / "model.xml"
ROWS = 8

COUNT = """
import collections, json, sys
import numpy as np, openvino as ov
settings = {"PERF_COUNT": True, "INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
request = ov.Core().compile_model(sys.argv[1], "CPU", settings).create_infer_request()
ids, taken = np.load(sys.argv[2])[0], collections.defaultdict(list)
for i in range(20):
    request.infer([ids])
    found = collections.Counter()
    for node in request.get_profiling_info():
        found[f"{node.node_type}, {node.exec_type}"] += node.real_time.total_seconds() * 1000
    for name, ms in found.items():
        taken[name] += [ms] * (i >= 5)
print(json.dumps({name: float(np.median(ms)) for name, ms in taken.items()}))
"""


def main() -> int:
    """Measure both and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder for operators.md")
    arguments = parser.parse_args()
    for model in (OURS, THEIRS):
        if not model.exists():
            parser.error(f"{model.name} of {model.parent.name} is missing: make bench-peers")
    run = loopedge.profile([OURS], threads=1, processes=1).runs[0]
    found = {
        "loopedge on ONNX Runtime": {op.op: op.ms for op in run.ops},
        "OpenVINO + NNCF": _openvino(),
    }
    text = "\n".join(_table(found))
    print(text)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "operators.md").write_text(text, encoding="utf-8")
    return 0


def _openvino() -> dict[str, float]:
    words = [str(environment_of("openvino")), "-c", COUNT, str(THEIRS)]
    inputs = str(SUBJECTS / TMLT / "judged.npy")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*words, inputs], env=environment, capture_output=True, text=True, check=True
    )
    times: dict[str, float] = json.loads(done.stdout)
    return times


def _table(found: dict[str, dict[str, float]]) -> list[str]:
    machine = describe_machine()
    lines = [
        f"Static int8, r=12, one thread, {machine['cpu']}, ONNX Runtime {machine['onnxruntime']}: ms of an inference.",
        "",
    ]
    for name, times in found.items():
        largest = sorted(times.items(), key=lambda item: -item[1])
        rest = sum(ms for _, ms in largest[ROWS:])
        lines += [f"| {name} | ms |", "|---|---|"]
        lines += [f"| {operator} | {ms:.1f} |" for operator, ms in largest[:ROWS]]
        lines += [f"| all others | {rest:.1f} |", f"| together | {sum(times.values()):.1f} |", ""]
    return lines


if __name__ == "__main__":
    sys.exit(main())
