"""Memory over many lengths of inputs: what was taken for the longest is enough for all others."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import loopedge

pytestmark = pytest.mark.long

LENGTHS, MIB = 200, 2**20
ALLOWED_BYTES = 2 * MIB

PROGRAM = """
import sys
import numpy as np
import loopedge
from loopedge.profiler.child.process_memory import read_memory
path, memory, lengths = sys.argv[1], sys.argv[2], int(sys.argv[3])
session = loopedge.Session(path, threads=1, memory=memory)
generator = np.random.default_rng(0)
def run(length):
    session.run({"input_ids": generator.integers(0, 64, (1, length))})
for _ in range(3):
    run(lengths)
before = read_memory().rss_bytes
for length in 1 + generator.permutation(lengths):
    run(int(length))
print(read_memory().rss_bytes - before)
"""


def growth(path: Path, memory: str) -> int:
    """Return by how much a fresh process grows over all lengths in random order, once it saw the longest."""
    words = [sys.executable, "-c", PROGRAM, str(path), memory, str(LENGTHS)]
    quiet = {**os.environ, "OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(words, env=quiet, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.parametrize("form", ["loop", "unrolled"])
def test_lengths_in_random_order_take_no_more_than_the_longest(form: str, tmp_path: Path) -> None:
    config = loopedge.LoopedConfig(d_model=128, heads=2, loops=4, vocab_size=64, max_length=LENGTHS)
    model = loopedge.LoopedTransformer(config).eval()
    loopedge.export(model, tmp_path / "model.onnx", form=form)  # type: ignore[arg-type]
    for memory in ("balanced", "low"):
        assert growth(tmp_path / "model.onnx", memory) <= ALLOWED_BYTES
