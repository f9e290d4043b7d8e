"""The training loop: steps, evaluations, checkpoints, and every way in which a run can end."""

import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from loopedge.errors import (
    DiskFullError,
    DivergedError,
    InputError,
    InterruptedRunError,
    LostWorkerError,
)
from loopedge.model.transformer import LoopedTransformer
from loopedge.options import by_face, option
from loopedge.tasks.metrics import Metrics, metric_value
from loopedge.tasks.task import Task
from loopedge.trainer.config import TrainConfig
from loopedge.trainer.evaluation import evaluate
from loopedge.trainer.interruption import stop_on_signal
from loopedge.trainer.logs import RunLog
from loopedge.trainer.progress import Progress
from loopedge.trainer.stability import Stability, measure_stability
from loopedge.trainer.state import (
    RunState,
    best_path,
    go_back,
    load_weights,
    optimizer_state,
    restore_optimizer,
    save_state,
    set_aside,
    state_path,
    steady_path,
    weights_of,
    write_model,
)
from loopedge.trainer.steps.objective import Objective
from loopedge.trainer.steps.step import Step, Stepper
from loopedge.trainer.trend import Trend
from loopedge.trainer.world import World

__all__ = ["TrainingLoop"]

PROBED = 32
"""Most samples that the stability of the loop is measured on."""


class TrainingLoop:
    """One run and what it remembers: steps, the best weights, the lines of the metrics file.

    Args:
        task: Gives the batches and the metric.
        model: Is trained in place; on the device of ``world``.
        config: Optimizer and schedule.
        objective: The loss.
        target: The model's file; the checkpoints stand beside it.
        log: Takes the metrics.
        world: The processes of the run.
        settings: What a run must have in common with the one that it resumes.
    """

    def __init__(
        self,
        task: Task,
        model: LoopedTransformer,
        config: TrainConfig,
        objective: Objective,
        target: Path,
        *,
        log: RunLog,
        world: World,
        settings: dict[str, Any],
    ) -> None:
        self.task, self.model, self.config, self.objective = task, model, config, objective
        self.log, self.world, self.settings = log, world, settings
        self.stepper = Stepper(task, model, config, objective, world)
        self.checkpoint_path, self.best_path = state_path(target), best_path(target)
        self.steady_path = steady_path(target)
        self.step = self.tokens = self.best_step = self.stale = 0
        self.seconds = 0.0
        self.loss = math.nan
        self.best: dict[str, Tensor] | None = None
        self.best_metrics: Metrics | None = None
        self.stability: Stability | None = None
        self._norms: list[float] = []
        self._whole = (
            True  # the last step is evaluated and its figures are shown: its state can be saved
        )
        self._due = False  # it is to be saved as soon as its gradient is known to be finite
        self._saved: int | None = None  # the step whose state stands beside the target
        self._steady: int | None = None  # the last of which that still trained
        self._trend = Trend()

    @property
    def stopped_early(self) -> bool:
        """Whether evaluations have not become better for as long as the configuration says."""
        return self.config.patience is not None and self.stale >= self.config.patience

    def resume(self, state: RunState) -> None:
        """Take over where ``state`` was saved."""
        load_weights(self.model, state.model)
        restore_optimizer(self.stepper.optimizer, state.optimizer)
        if self.stepper.average is not None and state.average is not None:
            load_weights(self.stepper.average.model, state.average)
        self.step, self.tokens, self.seconds = state.step, state.tokens, state.seconds
        self.best, self.best_step, self.stale = state.best, state.best_step, state.stale
        self.best_metrics = state.best_metrics
        self._norms, self._saved = list(state.norms), state.step
        self._steady, self._trend = state.steady_step, Trend(**state.trend)
        if self._steady != state.step and not self.world.on_first(self.steady_path.exists):
            self._steady = None
        self.log.resume(state.records)
        if state.records:
            self.loss = state.records[-1]["train_loss"]
            self.stability = Stability.from_json(state.records[-1]["stability"])

    def run(self, progress: Progress | None = None) -> None:
        """Make the remaining steps; evaluate and save as often as the configuration says.

        Raises:
            DivergedError: Loss or gradient is not finite; the last state that still trained is kept.
            InterruptedRunError: Ctrl-C, SIGTERM or SIGHUP; the state is saved, and the run can be resumed.
            LostWorkerError: Another process is gone; the run can be resumed.
            InputError: The disk is full.
        """
        self.model.train()
        started, before, asked = time.perf_counter(), self.seconds, False
        with stop_on_signal() as stop:
            while self.step < self.config.steps and not self.stopped_early:
                try:
                    made = self._compute()
                    if self._due:
                        self._save(made.loss)
                    if asked:
                        raise self._interrupted()
                    self._apply(made)
                    self.seconds = before + time.perf_counter() - started
                    self._tell(progress)
                    if self._is_due(self.config.evaluation_interval):
                        self._evaluate(made, progress)
                    self._whole, asked = True, self.world.any(stop.asked)
                    self._due = asked or self._is_checkpoint()
                except InputError as error:
                    raise self._unwritten(error) from error.__cause__
                except RuntimeError as error:
                    if not self.world.is_lost(error):
                        raise
                    raise self._lost() from error
        self.seconds = before + time.perf_counter() - started
        if self.best is None:
            raise self._unscored()

    def weights(self) -> dict[str, Tensor]:
        """Return the weights that count: averaged, where they are averaged."""
        average = self.stepper.average
        return weights_of(self.model if average is None else average.model)

    def use_best(self) -> dict[str, Tensor]:
        """Put the best weights into the model, and return them."""
        best = self.best or self.weights()
        load_weights(self.model, best)
        return best

    def _compute(self) -> Step:
        """Compute the gradient of the next step, which shows whether the weights are still good."""
        made = self.stepper.compute(self.step)
        if not (math.isfinite(made.loss) and math.isfinite(made.gradient_norm)):
            raise self._diverged(made)
        return made

    def _apply(self, made: Step) -> None:
        self._whole = False
        self.stepper.apply(self.step, made)
        self.loss = made.loss
        self._trend.add(made.loss)
        self._norms.append(made.gradient_norm)
        self.step += 1
        self.tokens += made.tokens

    def _tell(self, progress: Progress | None) -> None:
        if progress is not None:
            progress.stepped(
                self.step,
                loss=self.loss,
                tokens_per_second=self.tokens / self.seconds,
                seconds_left=self.seconds / self.step * (self.config.steps - self.step),
            )

    def _is_due(self, interval: int) -> bool:
        return self.step % interval == 0 or self.step == self.config.steps

    def _evaluate(self, made: Step, progress: Progress | None) -> None:
        """Score the validation split, remember the best weights, write a line."""
        average = self.stepper.average
        judged = self.model if average is None else average.model
        config = self.config
        metrics = evaluate(
            judged,
            self.task,
            "validation",
            config.samples,
            self.world,
            aware=config.quantization_aware,
        )
        if self._is_better(metrics):
            best = self.best = self.weights()
            self.best_metrics, self.best_step, self.stale = metrics, self.step, 0
            self.world.on_first(
                lambda: write_model(
                    self.model.config,
                    best,
                    self.task,
                    self.best_path,
                    aware=config.quantization_aware,
                    force=True,
                )
            )
        else:
            self.stale += 1
        if self.world.is_first and not self.world.is_sharded:
            self.stability = self._probe()
        self.world.on_first(lambda: self.log.write(self._record(made, metrics)))
        self._norms.clear()
        if progress is not None:
            progress.evaluated(self.step, metrics)

    def _probe(self) -> Stability:
        """Measure the stability on no more than a step holds in memory at once."""
        config = self.config
        rows = min(PROBED, config.batch_size // (config.accumulate * self.world.size))
        return measure_stability(
            self.model,
            self.objective,
            next(iter(self.task.evaluation("validation", rows, rows))),
            self.world.device,
            backprop_loops=config.backprop_loops,
        )

    def _record(self, made: Step, metrics: Metrics) -> dict[str, Any]:
        return {
            "step": self.step,
            "lr": made.lr,
            "loops": made.loops,
            "train_loss": self.loss,
            "gradient_norm": made.gradient_norm,
            "gradient_norm_max": max(self._norms),
            "validation": metrics,
            "stability": {} if self.stability is None else self.stability.to_json(),
            "seconds": round(self.seconds, 3),
            "tokens_per_second": round(self.tokens / self.seconds, 1),
        }

    def _is_better(self, metrics: Metrics) -> bool:
        value = metric_value(metrics, self.task.metric)
        if not math.isfinite(value):
            return False
        if self.best_metrics is None:
            return True
        known = metric_value(self.best_metrics, self.task.metric)
        return value > known if self.task.higher_is_better else value < known

    def _is_checkpoint(self) -> bool:
        interval = self.config.checkpoint_interval
        return interval > 0 and self.step % interval == 0

    def _save(self, loss: float) -> None:
        """Save the state; sharded weights are gathered, for which every process is needed.

        Args:
            loss: Of the weights that are saved, on the next batch.
        """
        steady = self._steady if self._trend.is_lost(loss) else self.step
        gathered = self._state(steady) if self.world.is_sharded else None
        self.world.on_first(lambda: self._write(gathered or self._state(steady)))
        self._saved, self._steady, self._due = self.step, steady, False

    def _write(self, state: RunState) -> None:
        """Write a state; the one before it is set aside where it still trained and this one does not."""
        if state.steady_step not in {None, state.step} and state.steady_step == self._saved:
            set_aside(self.checkpoint_path, self.steady_path)
        save_state(self.checkpoint_path, state)
        if state.steady_step == state.step:
            self.steady_path.unlink(missing_ok=True)

    def _state(self, steady: int | None) -> RunState:
        average = self.stepper.average
        return RunState(
            step=self.step,
            settings=self.settings,
            model=weights_of(self.model),
            optimizer=optimizer_state(self.stepper.optimizer),
            average=None if average is None else weights_of(average.model),
            best=self.best,
            best_metrics=self.best_metrics,
            best_step=self.best_step,
            stale=self.stale,
            seconds=self.seconds,
            tokens=self.tokens,
            norms=self._norms,
            records=self.log.records,
            trend=asdict(self._trend),
            steady_step=steady,
        )

    def _lost(self) -> LostWorkerError:
        """Save what this process has whole, and say what was lost."""
        if self._whole and self.world.is_first and not self.world.is_sharded:
            self._write(self._state(self._steady if self._trend.is_lost(self.loss) else self.step))
            self._saved = self.step
        return LostWorkerError(
            self._where("another process of the run was lost after"), hint=self._how_on()
        )

    def _interrupted(self) -> InterruptedRunError:
        return InterruptedRunError(self._where("interrupted after"), hint=self._how_on())

    def _diverged(self, made: Step) -> DivergedError:
        kept, hint = self._going_back()
        return DivergedError(
            f"training diverged at step {self.step + 1} of {self.config.steps}: loss {made.loss:g}, "
            f"gradient norm {made.gradient_norm:g} at learning rate {made.lr:.2g}{kept}",
            hint=f"{hint} {option('lr', format(self.config.lr / 4, '.2g'))}",
        )

    def _going_back(self) -> tuple[str, str]:
        """Leave a state that still trained beside the target; return which, and how to go on from there."""
        path = self.checkpoint_path
        if self._saved is None:
            return "", "train with"
        if self._steady is None:
            lost = f"; {path} is of step {self._saved}, and its loss had risen already"
            return lost, f"train anew with {option('force')}"
        kept = f"; {path} is from before, of step {self._steady}"
        if self._saved != self._steady:
            gathered = self._state(self._steady) if self.world.is_sharded else None
            self.world.on_first(
                lambda: go_back(path, self.steady_path, gathered or self._state(self._steady))
            )
            kept += ", the last one whose loss had not risen without bound"
        return kept, f"add {option('resume')}"

    def _unwritten(self, error: InputError) -> InputError:
        """Say what is kept of a run whose disk is full; other errors are as they are."""
        if self._saved is None or not isinstance(error, DiskFullError):
            return error
        message = error.message.removesuffix("; nothing was written")
        return InputError(
            self._where(f"{message}: the run ended after"),
            hint=f"free some space, then {self._how_on()}",
        )

    def _unscored(self) -> DivergedError:
        return DivergedError(
            f"no evaluation up to step {self.step} of {self.config.steps} gave a finite "
            f"{self.task.metric}: there is no best model",
            hint=f"train with {option('lr', format(self.config.lr / 4, '.2g'))}, or look at the validation data",
        )

    def _where(self, what: str) -> str:
        kept = ""
        if self._saved is not None:
            # Only the first process knows what it saved when another one was lost.
            at = f" at step {self._saved}" if self.world.is_first else ""
            kept = f"; {self.checkpoint_path} holds the run{at}"
        elif self.best is not None:
            kept = f"; {self.best_path} is the best model so far"
        return f"{what} step {self.step} of {self.config.steps}{kept}"

    def _how_on(self) -> str:
        return (
            "train again"
            if self._saved is None
            else f"{by_face('the same command', 'the same call')} with {option('resume')}"
        )
