"""The memory of a run with truncated gradients does not grow with its loops, evaluations included."""

import subprocess
import sys
from pathlib import Path

import pytest

CHILD = """
import sys
from pathlib import Path
from loopedge.profiler.child.process_memory import read_memory, reset_peak
from loopedge.tasks.generated.sorting import SortingTask
from loopedge.trainer.config import make_model_config, make_train_config
from loopedge.trainer.pipeline import train

def run(loops, cut, target):
    task = SortingTask(length=100, vocab=16)
    model = make_model_config(task, d_model=64, heads=2, loops=loops)
    config = make_train_config(
        steps=1, batch_size=8, samples=8, backprop_loops=cut, checkpoint_every=0
    )
    train(task, model, config, target)

loops, cut, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
run(2, 1, folder / "first.pt")
reset_peak()
before = read_memory().rss_bytes
run(loops, cut, folder / "m.pt")
print(read_memory().peak_bytes - before)
"""


def peak(folder: Path, loops: int, cut: int) -> int:
    folder.mkdir()
    command = [sys.executable, "-c", CHILD, str(loops), str(cut), str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return int(ended.stdout)


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_truncated_gradients_need_the_same_memory_at_eight_times_the_loops(tmp_path: Path) -> None:
    few, many = peak(tmp_path / "few", 4, 1), peak(tmp_path / "many", 32, 1)
    whole = peak(tmp_path / "whole", 32, 32)
    assert whole - few > 60e6  # what the activations of 28 iterations take
    assert many - few < 0.2 * (whole - few)
