"""The training loop: AdamW, warm-up and cosine, clipping, evaluations, checkpoints."""

import copy
import json
import math
import time
from pathlib import Path
from typing import Any

import torch

from loopedge.data.metrics import Metrics
from loopedge.data.task import Batch, Task
from loopedge.errors import DivergedError
from loopedge.files import write_text_atomic
from loopedge.model.transformer import LoopedTransformer
from loopedge.trainer.config import TrainConfig
from loopedge.trainer.evaluation import evaluate, loss_of
from loopedge.trainer.optimizer import learning_rate, make_optimizer
from loopedge.trainer.progress import Progress
from loopedge.trainer.state import RunState, save_state, state_path

__all__ = ["TrainingLoop"]


class TrainingLoop:
    """One run and what it remembers: steps, the best weights, the lines of the metrics file.

    Args:
        task: Gives the batches and the metric.
        model: Is trained in place.
        config: Optimizer and schedule.
        target: The model's file; metrics and checkpoints stand beside it.
    """

    def __init__(
        self, task: Task, model: LoopedTransformer, config: TrainConfig, target: Path
    ) -> None:
        self.task, self.model, self.config, self.target = task, model, config, target
        self.optimizer = make_optimizer(model, config)
        self.metrics_path = target.with_name(f"{target.stem}.metrics.jsonl")
        self.checkpoint_path = state_path(target)
        self.settings: dict[str, Any] = {
            "model": model.config.model_dump(),
            "train": config.model_dump(),
            "task": task.describe(),
        }
        self.step = self.tokens = self.best_step = 0
        self.seconds = 0.0
        self.loss = math.nan
        self.best: dict[str, Any] | None = None
        self.best_metrics: Metrics | None = None
        self._records: list[dict[str, Any]] = []

    def resume(self, state: RunState) -> None:
        """Take over where ``state`` was saved."""
        self.model.load_state_dict(state.model)
        self.optimizer.load_state_dict(state.optimizer)
        torch.set_rng_state(state.random)
        self.step, self.tokens, self.seconds = state.step, state.tokens, state.seconds
        self.best, self.best_step = state.best, state.best_step
        self.best_metrics = state.best_metrics
        self._records = list(state.records)

    def run(self, progress: Progress | None = None) -> None:
        """Make the remaining steps; evaluate and save as often as the configuration says.

        Raises:
            DivergedError: Loss or gradient is not finite; the last checkpoint is kept.
            InputError: The disk is full.
        """
        self.model.train()
        started = time.perf_counter() - self.seconds
        while self.step < self.config.steps:
            record = self._make_step()
            self.seconds = time.perf_counter() - started
            if progress is not None:
                speed = self.tokens / self.seconds
                progress.stepped(self.step, loss=self.loss, tokens_per_second=speed)
            if self._is_due(self.config.evaluation_interval):
                self._evaluate(record, progress)
            interval = self.config.checkpoint_interval
            if interval and self.step % interval == 0 and self.step < self.config.steps:
                save_state(self.checkpoint_path, self._state())
        self.seconds = time.perf_counter() - started

    def _make_step(self) -> dict[str, Any]:
        """Make one step and return its line of the metrics file."""
        rate = learning_rate(self.config, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch = self.task.batch("train", self.config.batch_size, self.step)
        loss = loss_of(self.model, batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip))
        self.loss = float(loss.detach())
        if not (math.isfinite(self.loss) and math.isfinite(norm)):
            raise self._diverged(norm, rate)
        self.optimizer.step()
        self.step += 1
        self.tokens += positions(batch)
        return {"step": self.step, "lr": rate, "train_loss": self.loss, "gradient_norm": norm}

    def _diverged(self, norm: float, rate: float) -> DivergedError:
        kept = self.checkpoint_path.exists()
        state = f"; {self.checkpoint_path} is from before" if kept else ""
        return DivergedError(
            f"training diverged at step {self.step + 1} of {self.config.steps}: loss {self.loss:g}, "
            f"gradient norm {norm:g} at learning rate {rate:.2g}{state}",
            hint=("add --resume " if kept else "train with ") + f"--lr {self.config.lr / 4:.2g}",
        )

    def _is_due(self, interval: int) -> bool:
        return self.step % interval == 0 or self.step == self.config.steps

    def _evaluate(self, record: dict[str, Any], progress: Progress | None) -> None:
        """Score the validation split, remember the best weights, write the metrics file."""
        metrics = evaluate(self.model, self.task, "validation", self.config.samples)
        if self._is_better(metrics):
            self.best = copy.deepcopy(self.model.state_dict())
            self.best_metrics, self.best_step = metrics, self.step
        self._records.append(
            {
                **record,
                "validation": metrics,
                "seconds": round(self.seconds, 3),
                "tokens_per_second": round(self.tokens / self.seconds, 1),
            }
        )
        lines = "".join(json.dumps(line) + "\n" for line in self._records)
        write_text_atomic(self.metrics_path, lines)
        if progress is not None:
            progress.evaluated(self.step, metrics)

    def _is_better(self, metrics: Metrics) -> bool:
        value = metrics[self.task.metric]
        if not math.isfinite(value):
            return False
        if self.best_metrics is None:
            return True
        known = self.best_metrics[self.task.metric]
        return value > known if self.task.higher_is_better else value < known

    def _state(self) -> RunState:
        return RunState(
            step=self.step,
            settings=self.settings,
            model=self.model.state_dict(),
            optimizer=self.optimizer.state_dict(),
            random=torch.get_rng_state(),
            best=self.best,
            best_metrics=self.best_metrics,
            best_step=self.best_step,
            seconds=self.seconds,
            tokens=self.tokens,
            records=self._records,
        )


def positions(batch: Batch) -> int:
    """Return the tokens of a batch, padding left out."""
    if batch.attention_mask is not None:
        return int(batch.attention_mask.sum())
    return int(batch.inputs.shape[0] * batch.inputs.shape[1])
