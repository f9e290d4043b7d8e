"""Choose a quantization: candidates are measured on samples that judge nothing, and a rule takes one."""

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from loopedge.errors import BudgetError, LoopedgeError
from loopedge.files.scratch import never_named
from loopedge.graph.core.cores import Cores
from loopedge.quantizer.choice.result import ChoiceResult
from loopedge.quantizer.choice.rule import Choice, Limits
from loopedge.quantizer.held_out.samples import HeldOut
from loopedge.quantizer.held_out.significance import NEGLIGIBLE, certain
from loopedge.quantizer.named_linears import core_like_nodes, kept_in_float, weight_only_nodes
from loopedge.quantizer.options import QuantizeOptions
from loopedge.quantizer.recipe import Recipe
from loopedge.quantizer.source import FloatSource
from loopedge_calibration.budget import few_samples, levels_of, lifted_recipe, meet_budget
from loopedge_calibration.choosing.mixes import float_bytes_of, plan_mixes
from loopedge_calibration.choosing.settings import Setting, settings_of
from loopedge_calibration.choosing.trials import Trials, without_task
from loopedge_calibration.choosing.tried import Chosen, Tried, decide
from loopedge_calibration.collector import Observations, observe
from loopedge_calibration.losses import choose_loss, refuse_task
from loopedge_calibration.options import CollectOptions
from loopedge_calibration.samples import Samples
from loopedge_calibration.sensitivity import measure_sensitivity

if TYPE_CHECKING:
    from loopedge.quantizer.timing import TimeRatio

__all__ = ["choose_recipe"]

Report = Callable[[str], None]
SCREENING_SHARE = 0.5
"""Of a time budget: how much of it the first look at static ranges may take."""


def choose_recipe(
    source: FloatSource,
    samples: Samples,
    options: QuantizeOptions,
    *,
    report_progress: Report = lambda text: None,
    clock: Callable[[], float] = time.monotonic,
) -> Chosen:
    """Try what the options allow, and choose by `loopedge.quantizer.choice.rule`.

    Args:
        source: The float model.
        samples: Some calibrate, others choose.
        options: What the user fixed and limits.
        report_progress: Is called with what is tried next.
        clock: Returns seconds that go on.

    Raises:
        InputError: The model, an option or the data cannot be used.
        BudgetError: Nothing holds what the user limits.
    """
    Recipe(scheme="dynamic").check_model(source.graph, source.path)
    kept = kept_in_float(source.graph, options.keep)
    packed = weight_only_nodes(source.graph, options.weight_only, kept)
    core_like_nodes(source.graph, options.as_core, {*kept, *packed})  # names are refused early
    with (
        tempfile.TemporaryDirectory(prefix="loopedge.") as folder,
        never_named(Path(folder), source.path),
    ):
        held_out = _choosing_samples(source, samples, options)
        trials = Trials(source, held_out, Path(folder), options)
        return _Search(source, samples, options, held_out, trials, report_progress, clock).run()


def _choosing_samples(source: FloatSource, samples: Samples, options: QuantizeOptions) -> HeldOut:
    held_out = samples.chooser()
    if options.metric == "task" and held_out.judge is None:
        refuse_task(source)
    return without_task(held_out) if options.metric == "relative-error" else held_out


class _Search:  # its stations, in the order in which `run` calls them
    def __init__(
        self,
        source: FloatSource,
        samples: Samples,
        options: QuantizeOptions,
        held_out: HeldOut,
        trials: Trials,
        report_progress: Report,
        clock: Callable[[], float],
    ) -> None:
        self._source, self._samples, self._options = source, samples, options
        self._held_out, self._trials = held_out, trials
        self._report, self._clock, self._begun = report_progress, clock, clock()
        self._tried: dict[str, Tried] = {}
        self._times: dict[str, TimeRatio] = {}
        self._left_out: list[str] = []
        self._errors: list[LoopedgeError] = []
        judge = held_out.judge
        self._limits = Limits(
            metric="relative-error" if judge is None else judge.task.metric,
            max_drop=options.max_drop,
            max_bytes=options.most_bytes,
            min_speed_up=options.min_speed_up,
            float_bytes=trials.float_bytes,
        )

    def run(self) -> Chosen:
        """Measure, time and choose."""
        repeats = any(
            count is None or count > 1 for count in Cores(self._source.graph).iterations.values()
        )
        settings, left_out = settings_of(self._options, repeats=repeats)
        self._left_out += left_out
        observations = self._observe(settings)
        self._screen([each for each in settings if each.scheme == "static"], observations)
        self._measure_best()
        for setting in settings:
            if setting.scheme != "static" and self._goes_on(setting.name):
                self._try(setting.name, setting, setting.recipe(self._options, None), few=False)
        if not self._tried:
            raise self._errors[0]
        self._time()
        choice = self._decision()
        if choice is None:  # the others of the same operators may lose less
            self._measure_rest()
            choice = self._decision()
        if choice is not None:
            self._mix(self._tried[choice.chosen.name])
        else:
            self._lift()
        return self._chosen(observations)

    def _observe(self, settings: Sequence[Setting]) -> Observations:
        self._report("ranges")
        kinds = {setting.smoothing for setting in settings}
        options = CollectOptions.of(self._options)
        return observe(
            self._source,
            self._samples.calibrating,
            options,
            plain=False in kinds,
            smoothed=True in kinds,
            go_on=lambda: self._seconds_left() > 0,
        )

    def _screen(self, settings: Sequence[Setting], observations: Observations) -> None:
        """Measure static ranges on a part of the samples: they run the same operators, so the best of them counts."""
        share = SCREENING_SHARE * (self._options.budget_seconds or math.inf)
        for setting in settings:
            smoothing = bool(setting.smoothing)
            if (observations.smoothed if smoothing else observations.plain) is None:
                self._left_out.append(f"{setting.name}: the time budget was spent")
                continue
            if smoothing and not observations.factors and observations.plain is not None:
                continue  # the model as it is
            if self._tried and self._clock() - self._begun > share:
                self._left_out.append(f"{setting.name}: the time budget was spent")
                continue
            assert setting.granularity is not None
            assert setting.method is not None
            table = observations.table(setting.granularity, setting.method, smoothing=smoothing)
            self._try(setting.name, setting, setting.recipe(self._options, table), few=True)

    def _measure_best(self) -> None:
        """Measure the best of those that run the same operators on all samples."""
        groups: dict[str, list[Tried]] = {}
        for item in self._tried.values():
            groups.setdefault(item.written.operators, []).append(item)
        for items in groups.values():
            best = max(items, key=lambda item: item.measured.sqnr_db)
            self._measure_whole(best)

    def _measure_rest(self) -> None:
        for item in list(self._tried.values()):
            if not item.whole and self._goes_on(item.name):
                self._measure_whole(item)

    def _measure_whole(self, item: Tried) -> None:
        if not item.whole:
            self._try(
                item.name,
                item.setting,
                item.recipe,
                few=False,
                lifted=item.lifted,
                mix_of=item.mix_of,
            )

    def _mix(self, base: Tried) -> None:
        """Lift linears and tables of the best candidate that may be worth more than the scheme gives them."""
        if not self._goes_on(f"mixes of {base.name}"):
            return
        self._report(f"what each linear does in {base.name}")
        graph = self._source.graph
        levels = levels_of(graph, base.recipe)
        sensitivity = measure_sensitivity(
            graph,
            base.recipe,
            few_samples(self._held_out.batches, graph),
            detailed=0,
            threads=self._options.threads,
        )
        sizes = float_bytes_of(graph, list(levels))
        before = set(self._tried)
        for lifted in plan_mixes(sensitivity, levels, sizes, self._limits):
            name = base.name + "".join(f" + {each} {level}" for each, level in lifted.items())
            if self._goes_on(name):
                recipe = lifted_recipe(base.recipe, lifted)
                self._try(name, base.setting, recipe, few=False, lifted=lifted, mix_of=base.name)
        if set(self._tried) - before:
            self._time()

    def _lift(self) -> None:
        """Lift what an accuracy budget takes where no candidate loses little enough."""
        judge = self._held_out.judge
        bases = sorted(
            (item for item in self._tried.values() if item.whole),
            key=lambda item: -item.measured.sqnr_db,
        )
        if (judge is None and self._options.max_drop is None) or not bases:
            return
        base = next((item for item in bases if item.setting.scheme == "static"), bases[0])
        if not self._goes_on(f"{base.name} with linears lifted"):
            return
        self._report(f"what {base.name} takes to lose less")
        loss = choose_loss(
            self._source, self._options.metric, self._held_out, threads=self._options.threads
        )
        allowed = self._options.max_drop
        if allowed is None:
            error = base.measured.loss_error
            noise = 0.0 if error is None else certain(len(self._held_out.batches)) * error
            allowed = max(NEGLIGIBLE * abs(loss.float_score or 0.0), noise)
        try:
            recipe, budget = meet_budget(
                self._source, base.recipe, loss, allowed, threads=self._options.threads
            )
        except BudgetError as error:
            self._left_out.append(f"{base.name} with linears lifted: {error.message}")
            return
        lifted = {item.name: item.level for item in budget.lifted}
        name = base.name + "".join(f" + {each} {level}" for each, level in lifted.items())
        self._try(name, base.setting, recipe, few=False, lifted=lifted, mix_of=base.name)
        if name in self._tried:
            self._tried[name] = replace(self._tried[name], budget=budget)
            self._time()

    def _try(
        self,
        name: str,
        setting: Setting,
        recipe: Recipe,
        *,
        few: bool,
        lifted: dict[str, str] | None = None,
        mix_of: str | None = None,
    ) -> None:
        """Write and measure a candidate; one that cannot be written is left out, with the reason."""
        self._report(name)
        try:
            written = self._trials.write(recipe)
        except LoopedgeError as error:
            self._left_out.append(f"{name}: {error.message}")
            self._errors.append(error)
            return
        few = few and self._trials.has_few
        self._tried[name] = Tried(
            name=name,
            setting=setting,
            recipe=recipe,
            written=written,
            measured=self._trials.measure(written, few=few),
            whole=not few,
            lifted=lifted or {},
            mix_of=mix_of,
        )

    def _time(self) -> None:
        """Time candidates that were measured on all samples, where their operators were not yet."""
        untimed = [
            item.written
            for item in self._tried.values()
            if item.whole and item.written.operators not in self._times
        ]
        if untimed:
            self._report("times")
            self._times |= self._trials.time(untimed)

    def _decision(self) -> Choice | None:
        """Return what the rule takes; None where nothing holds what it must."""
        try:
            _, choice = decide(list(self._tried.values()), self._times, self._limits)
        except BudgetError:
            return None
        return choice if choice.met else None

    def _chosen(self, observations: Observations) -> Chosen:
        tried = list(self._tried.values())
        found, choice = decide(tried, self._times, self._limits)
        verdicts = {item.name: self._screened(item) for item in tried} | choice.verdicts
        notes = [*observations.notes, *self._held_out.notes]
        times = [self._times[item.written.operators] for item in tried if item.whole]
        if any(not each.steady for each in times):
            notes.append(
                "times were unsteady while candidates were compared: such times count as equal"
            )
        return Chosen(
            recipe=found.recipe,
            budget=found.budget,
            tried=tried,
            times=self._times,
            limits=self._limits,
            result=ChoiceResult(
                chosen=found.name,
                reason=choice.reason,
                source=self._held_out.kind,
                samples=self._held_out.samples,
                metric=None if self._held_out.judge is None else self._held_out.judge.task.metric,
                float_score=self._trials.float_score,
                candidates=[
                    replace(
                        item.candidate(self._times.get(item.written.operators)),
                        verdict=verdicts[item.name],
                    )
                    for item in tried
                ],
                left_out=self._left_out,
                notes=notes,
                seconds=self._clock() - self._begun,
            ),
        )

    def _screened(self, item: Tried) -> str:
        """Say by how much a candidate is behind the best with its operators, on a part of the samples."""
        own = [
            each
            for each in self._tried.values()
            if each.written.operators == item.written.operators
        ]
        best = max((each.measured.sqnr_db for each in own if not each.whole), default=math.nan)
        return f"{best - item.measured.sqnr_db:.2f} dB less on {item.measured.samples} of them"

    def _goes_on(self, what: str) -> bool:
        """Tell whether there is time for something; say that it is left out where there is none."""
        if not self._tried or self._seconds_left() > 0:
            return True
        self._left_out.append(f"{what}: the time budget was spent")
        return False

    def _seconds_left(self) -> float:
        budget = self._options.budget_seconds
        return math.inf if budget is None else budget - (self._clock() - self._begun)
