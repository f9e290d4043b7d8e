"""What a model was trained with: loop counts, numbers of positions; what is outside is said, and what is too long refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loopedge.graph.metadata import ArtifactMetadata, Metadata
from loopedge.graph.signature import InputSpec
from loopedge.runtime.inputs import ModelInputs
from loopedge.tasks.generated.sorting import SortingTask
from loopedge.tasks.pairs import PairsTask
from loopedge.tasks.task import Batch, Task
from loopedge.trainer.config import make_model_config


def metadata(**fields: Any) -> Metadata:
    fields = {"version": "0", "form": "loop", "loops": 8, "trained_loops": 8, **fields}
    return ArtifactMetadata.model_validate(fields)


@pytest.mark.parametrize(
    ("trained", "asked", "note"),
    [
        ((8, 8), 8, None),
        ((8, 8), 1, "1 loop asked for, the model was trained with 8"),
        ((2, 8), 1, "1 loop asked for, the model was trained with 2 to 8"),
        ((2, 8), 5, None),
        ((1, 8), 1, None),  # drawn counts, and files of before
        (
            (8, 8),
            9,
            "9 loops asked for, the model was trained with 8; the file ends the loop after 8",
        ),
        (None, 99, None),
    ],
)
def test_a_loop_count_outside_the_trained_ones_is_said(
    trained: tuple[int, int] | None, asked: int, note: str | None
) -> None:
    assert metadata(loop_range=trained, max_loops=8).loops_note(asked) == note


def test_the_shortest_length_stands_in_the_metadata_or_in_the_task_of_earlier_files() -> None:
    series = {"name": "series", "targets": ["y"], "covariates": [], "mean": [0.0], "horizon": 2}
    series |= {"context": 24, "min_context": 6}
    assert metadata(min_length=4, task=series).shortest == 4
    assert metadata(task=series).shortest == 6
    assert metadata().shortest is None
    assert metadata().length_note(1) is None
    assert metadata(min_length=4).length_note(4) is None
    assert metadata(min_length=4).length_note(1) == (
        "1 position to see, the model was trained with at least 4"
    )


def test_positions_that_are_masked_are_not_seen() -> None:
    shapes = {"inputs": ("batch", "sequence", 1), "attention_mask": ("batch", "sequence")}
    specs = [
        InputSpec(name=name, dtype=np.dtype(np.float32), shape=shape)
        for name, shape in shapes.items()
    ]
    inputs = ModelInputs.of("m.onnx", specs, metadata())
    arrays: dict[str, Any] = {"inputs": np.zeros((2, 5, 1))}
    assert inputs.fewest_positions(arrays) == 5
    arrays["attention_mask"] = np.array([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    assert inputs.fewest_positions(arrays) == 3
    assert inputs.fewest_positions({}) is None


class Fixed(Task):
    """Five positions, of which the targets ask from the third on; the second sample is padded."""

    name = "fixed"

    def batch(self, split: Any, size: int, step: int) -> Batch:
        targets = np.full((2, 5), -100)
        targets[:, 2:] = 1
        mask = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]])
        return Batch(inputs=np.ones((2, 5), np.int64), targets=targets, attention_mask=mask)

    def model_fields(self) -> dict[str, Any]:
        return {"vocab_size": 3, "max_length": 5, "padding": True}


def test_the_shortest_length_is_what_an_output_saw_in_training() -> None:
    task = Fixed()
    assert task.shortest(each_position=True) == 3  # the first position that is asked sees three
    assert task.shortest(each_position=False) == 4  # each output sees what is not padded
    assert make_model_config(task).min_length == 3
    assert make_model_config(task, causal=False).min_length == 4


def test_generated_tasks_and_pairs_say_it(tmp_path: Path) -> None:
    sorting = SortingTask(length=6, vocab=9)
    batch = sorting.batch("train", 8, 0)
    asked = (batch.targets != -100).argmax(axis=1) + 1
    config = make_model_config(sorting)
    expected = asked.min() if config.causal else batch.inputs.shape[1]
    assert config.min_length == expected

    path = tmp_path / "pairs.jsonl"
    words = [f"word{'x' * (i % 7)}{i}" for i in range(200)]
    path.write_text("".join(f'{{"input": "{word}", "output": "t{word}"}}\n' for word in words))
    pairs = PairsTask.from_jsonl(path)
    shortest = min(
        int(np.flatnonzero(row == pairs.separator)[0]) + 1
        for row in pairs._frame("train", np.arange(len(pairs.parts["train"]))).inputs
    )
    assert make_model_config(pairs).min_length == shortest
