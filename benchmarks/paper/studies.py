"""The paper's tasks in sizes that one core trains in a minute or two, one recipe for all arms of a study."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

from loopedge.tasks.generated.countdown import CountdownTask
from loopedge.tasks.generated.edit_distance import EditDistanceTask
from loopedge.tasks.generated.in_context import LinearInContextTask, TreeInContextTask
from loopedge.tasks.generated.lcs import LcsTask
from loopedge.tasks.generated.sudoku import SudokuTask
from loopedge.tasks.task import Task
from loopedge.tasks.text import TextTask

__all__ = ["ARMS", "STUDIES", "Arm", "Study"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """What is compared.

    Args:
        timestep: `LoopedConfig.timestep`.
        published: The layers of the published plain loop, without norms before values and MLP.
        model: Fields of the model that differ from those of the other arms.
    """

    timestep: str = "none"
    published: bool = False
    model: dict[str, Any] = field(default_factory=dict)


ARMS = {
    "looped": Arm(),
    "constant gates": Arm(timestep="constant"),
    "timestep encoding": Arm(timestep="sinusoidal"),
}
PAIRS = (("timestep encoding", "looped"), ("timestep encoding", "constant gates"))
PUBLISHED_START = {"init_std": 0.02, "embedding_std": 0.02, "gate_init": 0.0}
NORMS = {
    "published plain loop": Arm(published=True),
    "looped": Arm(),
    "timestep encoding": Arm(timestep="sinusoidal"),
    "published plain loop, published start": Arm(published=True, model=PUBLISHED_START),
    "looped, published start": Arm(model=PUBLISHED_START),
    "timestep encoding, published start": Arm(timestep="sinusoidal", model=PUBLISHED_START),
}
OF_NORMS = (
    ("looped", "published plain loop"),
    ("timestep encoding", "looped"),
    ("looped, published start", "published plain loop, published start"),
    ("timestep encoding, published start", "looped, published start"),
)
"""Is what the paper mends a missing timestep or missing norms? From the recipe's start, and from the published one."""

MODEL = {
    "d_model": 64,
    "heads": 4,
    "mlp_ratio": 2.0,
    "positions": "rotary",
    # Small models learn little within such budgets from the published start (0.02, closed gates).
    "init_std": 0.125,
    "embedding_std": 0.5,
    "gate_init": 1.0,
}
TRAIN = {"batch_size": 32, "lr": 2e-3, "weight_decay": 0.1, "samples": 2048}


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One task over arms, loop counts and seeds.

    Args:
        title: For people.
        task: Makes the task from a seed.
        steps: Of each run.
        paper: The paper's own numbers, for people.
        model: Fields of the model that differ from `MODEL`.
        train: Options of the run that differ from `TRAIN`.
        loops: Loop counts.
        arms: What is compared, by name.
        pairs: Arms whose difference at the most loops is shown.
        scores: Keys of the metrics that are shown beside the one that decides.
    """

    title: str
    task: Callable[[int], Task]
    steps: int
    paper: str
    model: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    loops: tuple[int, ...] = (1, 4, 8)
    arms: dict[str, Arm] = field(default_factory=lambda: ARMS)
    pairs: tuple[tuple[str, str], ...] = PAIRS
    scores: tuple[str, ...] = ()

    def model_fields(self, arm: str, loops: int) -> dict[str, Any]:
        """Return the fields of a run's model."""
        chosen = self.arms[arm]
        return {**MODEL, **self.model, **chosen.model, "loops": loops, "timestep": chosen.timestep}

    def train_fields(self, seed: int) -> dict[str, Any]:
        """Return the options of a run."""
        every = -(-self.steps // 8)
        return {**TRAIN, "steps": self.steps, "evaluate_every": every, **self.train, "seed": seed}


@cache
def documentation_folder() -> "tempfile.TemporaryDirectory[str]":
    """Write the reference that ships with Python (`pydoc_data.topics`, 460 kB), until the end."""
    folder = tempfile.TemporaryDirectory()
    text = "\n\n".join(topics[name] for name in sorted(topics))
    (Path(folder.name) / "topics.txt").write_text(text, encoding="utf-8")
    return folder


def documentation(seed: int) -> Task:
    """Return the bytes of that reference as a task."""
    return TextTask.from_path(Path(documentation_folder().name), context=64, seed=seed)


STUDIES = {
    "edit-distance": Study(
        title="Edit distance: strings of 5 letters of 3, every prefix asked",
        task=lambda seed: EditDistanceTask(length=5, letters=3, prefixes=True, seed=seed),
        steps=1500,
        paper="length 60: untied 41.4 % (12 layers), looped 47.7 % and timestep encoding 88.3 % (100 loops)",
    ),
    "lcs": Study(
        title="Longest common subsequence: strings of 8 letters of 3, every prefix asked",
        task=lambda seed: LcsTask(length=8, letters=3, prefixes=True, seed=seed),
        steps=1000,
        paper="length 100: untied 39.8 % (12 layers), looped 98.2 % and timestep encoding 98.6 % (100 loops)",
    ),
    "edit-distance-norms": Study(
        title="Norms or timestep? Edit distance: strings of 12 letters of 3, every prefix asked",
        task=lambda seed: EditDistanceTask(length=12, letters=3, prefixes=True, seed=seed),
        steps=600,
        train={"samples": 1024, "evaluate_every": 300},
        loops=(16,),
        arms=NORMS,
        pairs=OF_NORMS,
        scores=("prefix_accuracy",),
        paper="length 60: untied 41.4 % (12 layers), looped 47.7 % and timestep encoding 88.3 % (100 loops)",
    ),
    "lcs-norms": Study(
        title="Norms or timestep? Longest common subsequence: strings of 12 letters of 3, every prefix asked",
        task=lambda seed: LcsTask(length=12, letters=3, prefixes=True, seed=seed),
        steps=500,
        train={"samples": 1024, "evaluate_every": 250},
        loops=(16,),
        arms=NORMS,
        pairs=OF_NORMS,
        scores=("prefix_accuracy",),
        paper="length 100: untied 39.8 % (12 layers), looped 98.2 % and timestep encoding 98.6 % (100 loops)",
    ),
    "in-context-linear": Study(
        title="In-context linear functions: 3 dimensions, 11 points",
        task=lambda seed: LinearInContextTask(dims=3, points=11, seed=seed),
        steps=700,
        paper="not in the table that is known here",
    ),
    "in-context-trees": Study(
        title="In-context decision trees of depth 2: 4 dimensions, 16 points",
        task=lambda seed: TreeInContextTask(dims=4, points=16, depth=2, seed=seed),
        steps=700,
        paper="MSE: untied 8.6e-3 (12 layers), looped 1.4e-2 and timestep encoding 1.7e-3 (12 loops)",
    ),
    "sudoku": Study(
        title="Sudoku, 4 x 4 with 8 blanks",
        task=lambda seed: SudokuTask(box=2, seed=seed),
        steps=300,
        model={"positions": "learned"},  # places of a grid, not distances along a line
        paper="9 x 9: untied 0.0 % (6 layers), looped 87.9 % and timestep encoding 90.2 % (32 loops)",
    ),
    "countdown": Study(
        title="Countdown: 3 numbers up to 10",
        task=lambda seed: CountdownTask(numbers=3, largest=10, seed=seed),
        steps=800,
        model={"positions": "learned"},
        paper="untied 53.8 % (6 layers), looped 88.1 % and timestep encoding 90.5 % (32 loops)",
    ),
    "language": Study(
        title="Language: bytes of Python's reference, 64 in a window",
        task=documentation,
        steps=400,
        paper="WikiText-103 perplexity: untied 20.5 (12 layers), looped 20.6 and timestep encoding 19.6 (24 loops)",
    ),
}
