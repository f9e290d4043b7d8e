"""A pilot on a Ray cluster: two workers of this machine, one of which is killed while it trains."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

import loopedge
from loopedge.errors import InputError
from loopedge.study.runs.ray_workers import LOCAL
from loopedge.tasks.generated.sorting import SortingTask

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore:::ray")]
pytest.importorskip("ray", reason="the extra 'ray' is not in the development group: it is 260 MB")


class Killed(SortingTask):
    """Kills the process that trains it, the first time that a step of a run is drawn."""

    def __init__(self, marks: Path) -> None:
        super().__init__(length=4, vocab=6)
        self.marks = marks

    def batch(self, split: Any, size: int, step: int) -> Any:
        if (split, step) == ("train", 2):
            try:
                (self.marks / "killed").touch(exist_ok=False)
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().batch(split, size, step)


def made(folder: Path, task: SortingTask, notes: list[str], **where: Any) -> dict[str, Any]:
    loopedge.pilot(
        lambda seed: task,
        folder,
        loops=[1, 2],
        arms=["looped"],
        seeds=2,
        rates=[1e-3, 2e-3],
        model={"d_model": 8, "heads": 2},
        train={"steps": 5, "batch_size": 4, "samples": 8},
        note=notes.append,
        **where,
    )
    return {
        path.parent.name: json.loads(path.read_text())
        for path in sorted(folder.glob("runs/*/cell.json"))
    }


def test_no_run_is_lost_or_counted_twice_where_a_worker_is_killed(tmp_path: Path) -> None:
    notes: list[str] = []
    on_ray = made(tmp_path / "ray", Killed(tmp_path), notes, ray=LOCAL, jobs=2)
    assert (tmp_path / "killed").exists()
    assert sorted(on_ray) == ["looped-r1-s0", "looped-r1-s1", "looped-r2-s0", "looped-r2-s1"]
    assert {cell["status"] for cell in on_ray.values()} == {"done"}
    said = [note for note in notes if note.startswith("run ")]
    assert [note.split(":")[0] for note in said] == [f"run {n} of 4" for n in range(1, 5)]
    assert sorted(note.split(": ")[1] for note in said) == sorted(on_ray)
    here = made(tmp_path / "here", Killed(tmp_path), [])
    assert {name: cell["test"] for name, cell in on_ray.items()} == {
        name: cell["test"] for name, cell in here.items()
    }
    for name in on_ray:
        assert {path.name for path in (tmp_path / "ray" / "runs" / name).iterdir()} == {
            path.name for path in (tmp_path / "here" / "runs" / name).iterdir()
        }


def test_an_address_where_no_cluster_answers(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no Ray cluster answers at 127\.0\.0\.1:1"):
        made(tmp_path / "p", SortingTask(length=4, vocab=6), [], ray="127.0.0.1:1")
