"""The course of a pilot: baselines, what the budget leaves out, seeds until it is decided, cost, verdict."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from loopedge.baselines.scores import BaselineScores
from loopedge.errors import InputError, InterruptedRunError, LoopedgeError
from loopedge.files.plain_json import dump_json
from loopedge.files.targets import write_text_atomic
from loopedge.options import option
from loopedge.study.conclusion import Found, conclude, windows_by_origin
from loopedge.study.cost import Costs, measure_cost, models_of, models_to_measure
from loopedge.study.design import Cell, Design
from loopedge.study.folder import RESULT_FILE, write_design
from loopedge.study.judging.period import Windows
from loopedge.study.options import LOOKS, UNLOOPED, PilotOptions
from loopedge.study.plotted.choice import windows_of_pilot
from loopedge.study.plotted.window import PlottedWindow
from loopedge.study.result import PilotResult
from loopedge.study.runs.blocks import BlockTasks
from loopedge.study.runs.cell import read_cell
from loopedge.study.runs.learning_rate import rate_notes
from loopedge.study.runs.plain_baselines import fit_baselines
from loopedge.study.runs.rate_trials import rate_trials
from loopedge.study.runs.running import Runner
from loopedge.study.runs.setup import RunSetup
from loopedge.study.runs.short_run import ShortRun
from loopedge.study.runs.work import FullRun, Work
from loopedge.study.schedule.budget import LeftOut, Plan, least_of, leave_out
from loopedge.study.schedule.estimate import TimeLeft
from loopedge.study.schedule.looks import looks
from loopedge.study.schedule.step_times import training_seconds
from loopedge.study.state import PilotState
from loopedge.tasks.task import Task
from loopedge.trainer.progress import duration_text

__all__ = ["Course"]

Key = tuple[str, int]

REFRESH_SHARE = 0.02
"""Of the time since the report was last written: so much may go into writing it again."""
MODEL_SECONDS = 8.0
"""About what measuring the cost of one model takes."""


@dataclass(slots=True, kw_only=True)
class Course:
    """A pilot under way.

    Args:
        tasks: Of the blocks.
        task: Of the first seed.
        setup: What all runs share; its design has the seeds of the next look.
        options: As asked for.
        described: What a resumed pilot is compared with.
        state: What is remembered from call to call.
        command: For the report.
        starting: Seconds in which a process starts.
        add_note: Takes a line.
        write_report: Takes what is known so far, and at the end the result.
    """

    tasks: BlockTasks
    task: Task
    setup: RunSetup
    options: PilotOptions
    described: dict[str, Any]
    state: PilotState
    command: str
    starting: float
    add_note: Callable[[str], None]
    write_report: Callable[[PilotResult], None]
    baselines: dict[str, list[BaselineScores]] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
    made: dict[Cell, dict[str, Any]] = field(default_factory=dict)
    windows: dict[str, Windows | None] = field(default_factory=dict)
    time_left: TimeLeft = field(init=False)
    runner: Runner = field(init=False)
    _written: float = field(init=False)
    _writing: float = 0.0

    def run(self, known_seeds: int) -> PilotResult:
        """Make what is missing and judge it; what there is stays judged where it is interrupted.

        Args:
            known_seeds: Of the pilot that is resumed; 0: none.

        Raises:
            InterruptedRunError: The finished runs are kept.
        """
        self._written = self.state.clock()
        with self._kept():
            self._fit_baselines()
            self._reckon()
            if self.options.budget is not None:
                self._leave_out()
            self._choose_rates()
            for seeds in looks(self.options.seeds, known_seeds, self._is_decided):
                self._make(seeds)
            costs, profiled, notes = self._measure()
            self.add_note(f"judging {len(self._design.cells)} runs")
            return self._write(complete=True, costs=costs, profiled=profiled, notes=notes)

    @property
    def _design(self) -> Design:
        return self.setup.design

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        """Leave a report of what there is where it is interrupted."""
        try:
            yield
        except (InterruptedRunError, KeyboardInterrupt):
            with contextlib.suppress(LoopedgeError):
                self._write(complete=False)
            raise
        finally:
            self.state.save()

    def _fit_baselines(self) -> None:
        """Fit the baselines of the blocks that the next look has."""
        first = {cell.block: cell for cell in reversed(self._design.cells)}
        blocks = sorted(first.values(), key=lambda cell: (cell.seed, cell.origin or 0))
        samples = self._design.train_config(blocks[0]).samples
        self.baselines = fit_baselines(
            self.tasks, blocks, self.setup.folder, samples, self.add_note
        )
        self.state.save()

    def _reckon(self) -> None:
        """Find out how long runs take, and say how long all of them will."""
        one_thread = replace(self.setup, threads=1) if self.options.jobs > 1 else self.setup
        missing = self._missing(self._design.cells)
        trials: list[Work] = [
            trial for trial in rate_trials(self._design) if trial.read(self.setup.folder) is None
        ]
        self.time_left = TimeLeft(
            training_seconds(self.task, one_thread) if missing else {},
            self.options.jobs,
            self.starting,
            self.state.clock,
        )
        self.time_left.at_the_end = MODEL_SECONDS * models_to_measure(self._design)
        self.runner = Runner(
            tasks=self.tasks,
            metric=self.task.metric,
            jobs=self.options.jobs,
            ray=self.options.ray,
            time_left=self.time_left,
            add_note=self.add_note,
            ended=self._ended,
        )
        if missing:
            self.add_note(self._expected_text(trials, missing))

    def _expected_text(self, trials: Sequence[Work], missing: Sequence[Work]) -> str:
        """Say what is to be made, and how long all of it takes."""
        models = models_to_measure(self._design)
        seconds = self.time_left.together([*trials, *missing]) + MODEL_SECONDS * models
        tried = f"learning rates of {len(trials)} models and " if trials else ""
        at_once = f", {self.options.jobs} at the same time" if self.options.jobs > 1 else ""
        of_seeds = ""
        if self.options.seeds == "auto" and self._design.seeds < LOOKS[-1]:
            of_seeds = f" for {self._design.seeds} seeds; up to {LOOKS[-1]} if they cannot tell"
        return (
            f"{tried}{len(missing)} runs{at_once}, then the cost of {models} models: "
            f"about {duration_text(seconds)}{of_seeds}"
        )

    def _missing(self, cells: Sequence[Cell]) -> list[Work]:
        return [FullRun(cell=cell) for cell in cells if read_cell(self.setup.folder, cell) is None]

    # What the budget leaves out.

    def _seconds_left(self) -> float:
        """Return the seconds of the budget that are left for runs."""
        return self._unspent() - MODEL_SECONDS * models_to_measure(self._design)

    def _unspent(self) -> float:
        """Return the seconds of the budget that are left for runs and for measuring the models' cost."""
        if self.options.budget is None:
            return float("inf")
        return self.options.budget - self.state.seconds - self._writing

    def _leave_out(self) -> None:
        design = self._design
        plan = Plan(
            fixed=frozenset({self._fewest()}),
            seconds=lambda key: self._seconds_of(key) + MODEL_SECONDS * models_of(design, key),
            short_seconds=lambda key, share: self.time_left.together(
                [] if self._score(key, share) is not None else [self._short(key, share)]
            ),
            runs=len({cell.block for cell in design.cells}),
            higher_is_better=self.task.higher_is_better,
        )
        self._refuse_too_little(plan)
        found = leave_out(
            design.compared,
            plan,
            self._unspent,
            lambda keys, share: self._try_short(keys, share, plan),
        )
        self.left_out = found.left_out
        out = tuple((one.arm or "", one.loops or 0) for one in found.left_out)
        self.setup = replace(self.setup, design=replace(design, left_out=out))
        for one in found.left_out:
            why = "worse than others in short runs" if one.reason == "worse" else "takes longest"
            loops = f"{one.loops} loop{'' if one.loops == 1 else 's'}"
            self.add_note(f"left out: {one.arm} with {loops}: {why}")

    def _fewest(self) -> Key:
        """Return the plainest arm with the fewest loops: what all others are compared with."""
        arm = next(arm for arm in self._design.arms if arm not in UNLOOPED)
        return min((key for key in self._design.compared if key[0] == arm), key=lambda key: key[1])

    def _refuse_too_little(self, plan: Plan) -> None:
        """Refuse a budget in which not one run of the least that is compared can be made, before anything is trained.

        Raises:
            InputError: As said.
        """
        design = self._design
        least = least_of(design.compared, plan)
        needed = sum(map(self._seconds_of, least)) / plan.runs
        left = self._unspent() - MODEL_SECONDS * sum(models_of(design, key) for key in least)
        if needed > left and len(self._missing(design.cells)) == len(design.cells):
            raise InputError(
                f"the budget leaves {duration_text(max(0.0, left))} for runs, and one of each takes "
                f"about {duration_text(needed)}",
                hint=f"a larger {option('budget', 'TIME')}, or fewer {option('steps', 'N')}",
            )

    def _seconds_of(self, key: Key) -> float:
        """Return the seconds of what an arm at a loop count needs and is not made yet."""
        folder = self.setup.folder
        cells = [cell for cell in self._design.cells if (cell.arm, cell.loops) == key]
        trials = [
            trial
            for trial in rate_trials(self._design)
            if (trial.cell.arm, trial.cell.loops) == key and trial.read(folder) is None
        ]
        works = [*self._missing(cells), *trials]
        return sum(map(self.time_left.expected, works)) / self.options.jobs

    def _short(self, key: Key, share: float) -> ShortRun:
        seed = self._design.first_seed
        origin = None if self._design.origins is None else 0
        rates = self._design.rates
        return ShortRun(
            cell=Cell(arm=key[0], loops=key[1], seed=seed, origin=origin),
            steps_share=share,
            rate=rates[len(rates) // 2] if rates else None,
        )

    def _score(self, key: Key, share: float) -> dict[str, Any] | None:
        return self._short(key, share).read(self.setup.folder)

    def _try_short(
        self, keys: Sequence[Key], share: float, plan: Plan
    ) -> Mapping[Key, float | None]:
        self.add_note(
            f"short runs of {len(keys)} models, 1/{round(1 / share)} of the steps: what does worst is left out"
        )
        works = {self._short(key, share): key for key in keys}
        least = least_of(self._design.compared, plan)

        def may_start(
            work: Work,
        ) -> bool:  # the least that is compared is not given up for a choice
            return self.time_left.expected(work) + plan.whole(least) <= self._unspent()

        made = self.runner.make(list(works), self.setup, what="short run", may_start=may_start)
        return {
            works[work]: result.get("validation", {}).get(self.task.metric)  # type: ignore[index]
            for work, result in made.items()
        }

    def _may_start(self, work: Work) -> bool:
        """Return whether there is time for a run; for the first of a block, whether there is for all of it."""
        if self.options.budget is None or not self._cells():
            return True  # a report of one run is worth more than one of none
        block = [cell for cell in self._design.cells if cell.block == work.cell.block]
        together = self._missing(block) if work.cell == block[0] else [work]
        return self.time_left.together(together) <= self._seconds_left()

    # Runs and looks.

    def _choose_rates(self) -> None:
        """Try the learning rates of each arm and loop count in short runs."""
        trials: list[Work] = list(rate_trials(self._design))
        if trials:
            self.time_left.later = self._missing(self._design.cells)
            self.runner.make(trials, self.setup, what="learning rate")
            self.time_left.later = ()

    def _make(self, seeds: int) -> None:
        """Make the runs of so many seeds."""
        if seeds != self._design.seeds:
            self.setup = replace(self.setup, design=replace(self._design, seeds=seeds))
            self.described["design"]["seeds"] = seeds
            write_design(self.setup.folder, self.described)
            self._fit_baselines()
        works: list[Work] = [FullRun(cell=cell) for cell in self._design.cells]
        made = self.runner.make(works, self.setup, what="run", may_start=self._may_start)
        if lost := len(works) - len(made):
            self.left_out = [one for one in self.left_out if one.arm is not None]
            self.left_out.append(LeftOut(reason="no-time", runs=lost))
            self.add_note(f"left out: {lost} of {len(works)} runs: no time was left for them")

    def _is_decided(self, seeds: int) -> bool:
        """Look whether the runs of so many seeds decide; remember what was seen."""
        judged = conclude(self._found({}))
        verdict = judged.verdict
        decision = verdict.statements[0].to_json()
        look = {
            "seeds": seeds,
            "outcome": verdict.outcome,
            "why": decision.get("why"),
            "sure": decision.get("sure"),
        }
        look |= {"choice": verdict.choice.outcome, "seconds": round(self.state.seconds, 1)}
        self.state.looks = [*(one for one in self.state.looks if one["seeds"] < seeds), look]
        self._write(complete=False, judged=judged)
        lost = any(one.arm is None for one in self.left_out)
        is_decided = lost or not verdict.needs_seeds
        if self.options.seeds == "auto" and not is_decided and seeds < LOOKS[-1]:
            self.add_note(f"{seeds} seeds cannot tell which loop count is best: more are made")
        return is_decided

    def _ended(self, work: Work, result: dict[str, Any]) -> None:
        """After each run: keep the time, and the report where writing it takes little against that."""
        self.state.save()
        if not isinstance(work, FullRun):
            return
        self.made[work.cell] = result
        passed = self.state.clock() - self._written
        if passed * REFRESH_SHARE >= self._writing:
            self._write(complete=False)

    # Cost and verdict.

    def _measure(self) -> tuple[Costs, dict[str, Any], list[str]]:
        """Measure what the models cost; where that fails, the rest of the report is still worth having."""
        cells = self._cells()
        models = models_to_measure(self._design)
        self.add_note(f"measuring {models} models, about {duration_text(models * MODEL_SECONDS)}")
        try:
            costs, profiled = measure_cost(self._design, cells, self.setup.folder)
        except LoopedgeError as error:
            note = f"what the models cost could not be measured: {error.message}"
            self.add_note(f"warning: {note}")
            return {}, {}, [note]
        return costs, profiled, []

    def _cells(self) -> list[dict[str, Any]]:
        folder = self.setup.folder
        found = [
            self.made.get(cell) or read_cell(folder, cell, failed=True)
            for cell in self._design.cells
        ]
        return [result for result in found if result is not None]

    def _found(self, costs: Costs, *, complete: bool = False) -> Found:
        if not self.windows:
            self.windows = windows_by_origin(self.tasks, self.setup)
        return Found(
            task=self.task,
            setup=self.setup,
            options=self.options,
            command=self.command,
            cells=self._cells(),
            baselines=self.baselines,
            windows=self.windows,
            costs=costs,
            spent=self.state.seconds + MODEL_SECONDS * models_to_measure(self._design),
            complete=complete,
            starting=self.starting,
        )

    def _windows_to_plot(self, result: PilotResult) -> list[PlottedWindow]:
        """Return a few forecasts; where they cannot be made, the report goes without them."""
        if not self.options.keep_windows:
            return []
        try:
            return windows_of_pilot(self.tasks, self.setup, result.cells, result.verdict)
        except LoopedgeError as error:
            self.add_note(f"warning: no forecast can be plotted: {error.message}")
            return []

    def _write(
        self,
        *,
        complete: bool,
        judged: PilotResult | None = None,
        costs: Costs | None = None,
        profiled: dict[str, Any] | None = None,
        notes: Sequence[str] = (),
    ) -> PilotResult:
        """Judge what is there; write it down and hand it to the report."""
        started = self.state.clock()
        found = judged or conclude(self._found(costs or {}, complete=complete))
        result = replace(
            found,
            notes=[*self.task.notes, *rate_notes(found.cells), *notes],
            profile=profiled or {},
            looks=self.state.looks,
            left_out=[one.to_json() for one in self.left_out],
            complete=complete,
            planned=len(self._design.cells),
            seconds=round(self.state.seconds, 1),
        )
        if complete:
            result = replace(result, windows=self._windows_to_plot(result))
        write_text_atomic(self.setup.folder / RESULT_FILE, dump_json(result.to_json()) + "\n")
        self.write_report(result)
        self._written = self.state.clock()
        self._writing = self._written - started
        return result
