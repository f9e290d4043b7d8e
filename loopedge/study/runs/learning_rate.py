"""The peak learning rate of each arm and loop count: chosen on the validation split, with an equal budget for all."""

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopedge.errors import DivergedError, InputError, InterruptedRunError, LoopedgeError
from loopedge.files.json_text import read_json
from loopedge.files.plain_json import dump_json, finite
from loopedge.files.targets import write_text_atomic
from loopedge.options import by_face, option
from loopedge.study.design import Cell, Design
from loopedge.study.runs.setup import RunSetup
from loopedge.tasks.metrics import metric_value
from loopedge.tasks.task import Task
from loopedge.trainer.pipeline import train

__all__ = [
    "RateChoice",
    "Trial",
    "best_rate",
    "choose_rate",
    "rate_notes",
    "trial_steps",
    "trials_of",
]

SHARE, LEAST_STEPS = 0.25, 20
"""Of the steps of a run that a trial makes, with a schedule of its own; `benchmarks/pilot/rates.py` measures it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One short training of an arm at a loop count with one rate.

    Args:
        cell: The arm, the loop count, the first seed and the oldest origin.
        rate: Peak learning rate.
    """

    cell: Cell
    rate: float

    @property
    def name(self) -> str:
        """Name of its file under ``runs/rates/``."""
        return f"{self.cell.arm}-r{self.cell.loops}-lr{self.rate:g}"

    @property
    def steps_share(self) -> float:
        """Its steps, as a share of those of a full run."""
        return SHARE

    def read(self, folder: Path, *, failed: bool = False) -> dict[str, Any] | None:
        """Return its result; None where it is not made, or failed and ``failed`` is not set.

        Raises:
            InputError: The result is damaged.
        """
        path = self._path(folder)
        if not path.exists():
            return None
        hint = f"rm {path}, then {by_face('the same command', 'the same call')} with {option('resume')}"
        result = read_json(path, needed="the result of a trial", hint=hint)
        if not isinstance(result, dict) or not {"status", "validation"} <= set(result):
            raise InputError(f"{path} is not the result of a trial", hint=hint)
        return result if failed or result["status"] != "failed" else None

    def make(self, task: Task, setup: RunSetup) -> dict[str, Any]:
        """Train for its share of the steps, with a schedule of its own; keep the score alone.

        Args:
            task: With the seed and the origin of the cell.
            setup: What all runs share.

        Returns:
            What stands in its file: ``status`` is ``done``, ``diverged`` or ``failed``, ``validation`` the metrics.

        Raises:
            InterruptedRunError: Ctrl-C, SIGTERM or SIGHUP; nothing of the trial is kept.
        """
        path = self._path(setup.folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{self.name}-") as scratch:
            outcome = self._attempt(task, setup, Path(scratch) / "model.pt")
        made = self.read(setup.folder)
        if made is None:  # else another process made it meanwhile, and one of both counts
            made = finite(self.cell.to_json() | {"name": self.name, "rate": self.rate} | outcome)
            write_text_atomic(path, dump_json(made) + "\n")
        return made

    def _attempt(self, task: Task, setup: RunSetup, model: Path) -> dict[str, Any]:
        design = setup.design
        whole = design.train_config(self.cell, self.rate)
        steps = trial_steps(whole.steps)
        short = {"steps": steps, "patience": None, "checkpoint_every": 0}
        found: dict[str, Any] = {"steps": steps, "validation": {}}
        try:
            trained = train(
                task,
                design.model_config(task, self.cell),
                whole.model_copy(update=short),
                model,
                threads=setup.threads,
                device=design.device,
            )
        except InterruptedRunError:
            raise
        except DivergedError as error:
            return found | {"status": "diverged", "reason": error.message}
        except LoopedgeError as error:
            return found | {"status": "failed", "reason": error.message}
        return found | {"status": "done", "validation": trained.validation}

    def _path(self, folder: Path) -> Path:
        return folder / "runs" / "rates" / f"{self.name}.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class RateChoice:
    """Which rate a run takes, and what was tried.

    Args:
        rate: None: that of the options.
        tried: Metric of the validation split by rate, as text; None where the trial diverged.
        at_edge: The rate is the lowest or the highest that was tried: a wider range may hold a better one.
    """

    rate: float | None = None
    tried: dict[str, float | None] | None = None
    at_edge: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the keys of a run's result."""
        return {"rate": self.rate, "rates_tried": self.tried, "rate_at_edge": self.at_edge}


def trials_of(design: Design) -> list[Trial]:
    """Return all trials of a pilot; none where there is one rate, or it is named."""
    return [trial for arm, loops in design.compared for trial in _trials(design, arm, loops)]


def _trials(design: Design, arm: str, loops: int) -> list[Trial]:
    if len(design.rates) < 2:
        return []
    oldest = None if design.origins is None else 0
    cell = Cell(arm=arm, loops=loops, seed=design.first_seed, origin=oldest)
    return [Trial(cell=cell, rate=rate) for rate in design.rates]


def trial_steps(steps: int) -> int:
    """Return the steps of a trial, of those of a run."""
    return min(steps, max(LEAST_STEPS, round(SHARE * steps)))


def choose_rate(task: Task, cell: Cell, setup: RunSetup) -> RateChoice:
    """Return the rate of a run: the best trial of its arm and loop count; trials that are missing are made.

    Args:
        task: Of the run; trials that are missing take it.
        cell: The run.
        setup: What all runs share.

    Raises:
        InterruptedRunError: Ctrl-C, SIGTERM or SIGHUP.
    """
    design = setup.design
    trials = _trials(design, cell.arm, cell.loops)
    if not trials:
        return RateChoice(rate=design.rates[0] if design.rates else None)
    results = [trial.read(setup.folder) or trial.make(task, setup) for trial in trials]
    values = [metric_value(result["validation"], task.metric) for result in results]
    return best_rate(
        dict(zip(design.rates, values, strict=True)), higher_is_better=task.higher_is_better
    )


def best_rate(values: Mapping[float, float], *, higher_is_better: bool) -> RateChoice:
    """Return the rate of the best trial: the lowest of equal ones, and the lowest of all where all diverged.

    Args:
        values: Metric of the validation split by rate; NaN where a trial diverged.
        higher_is_better: Its direction.
    """
    reached = [
        (-value if higher_is_better else value, rate)
        for rate, value in values.items()
        if math.isfinite(value)
    ]
    rate = min(reached)[1] if reached else min(values)
    return RateChoice(
        rate=rate,
        tried={
            f"{rate:g}": value if math.isfinite(value) else None for rate, value in values.items()
        },
        at_edge=rate in (min(values), max(values)),
    )


def rate_notes(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what a person should know of the rates: those at the edge of what was tried, and those that diverged.

    Args:
        cells: Results of all runs.
    """
    chosen = {(cell["arm"], cell["loops"]): cell for cell in cells if cell.get("rates_tried")}
    notes = []
    for end, past, pick in (("highest", 2.0, max), ("lowest", 0.5, min)):
        at_edge = [
            key
            for key, cell in chosen.items()
            if cell["rate"] == pick(map(float, cell["rates_tried"]))
        ]
        if at_edge:
            tried = sorted(float(rate) for rate in chosen[at_edge[0]]["rates_tried"])
            wider = tuple(f"{rate:g}" for rate in sorted([*tried, past * pick(tried)]))
            notes.append(
                f"the {end} learning rate that was tried is the best for {len(at_edge)} of {len(chosen)} "
                f"models: {by_face('--lr ' + ','.join(wider), 'rates=[' + ', '.join(wider) + ']')} tries one more"
            )
    values = [value for cell in chosen.values() for value in cell["rates_tried"].values()]
    lost = sum(value is None for value in values)
    if lost:
        notes.append(f"{lost} of {len(values)} trials of learning rates diverged")
    return notes
