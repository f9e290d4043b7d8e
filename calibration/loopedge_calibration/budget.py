"""An accuracy budget: keep in float the few linears without which int8 would lose too much."""

import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.data.task import Task, task_from_dict
from loopedge.errors import BudgetError, InputError
from loopedge.graph.artifact import open_artifact, write_artifact
from loopedge.graph.inputs import generate_inputs
from loopedge.graph.metadata import read_metadata
from loopedge.graph.weights import linears, loop_name, weight_bytes
from loopedge.quantizer.coverage import Coverage
from loopedge.quantizer.pipeline import QuantizeResult
from loopedge.runtime import Session
from loopedge_calibration.readers import BATCH, Feeds, Samples

__all__ = [
    "METRICS",
    "BudgetResult",
    "BudgetedResult",
    "KeptLinear",
    "Loss",
    "Metric",
    "RelativeError",
    "TaskDrop",
    "choose_loss",
    "keep_within_budget",
]

Array = npt.NDArray[Any]
Metric = Literal["task", "relative-error"]
METRICS: tuple[Metric, ...] = ("task", "relative-error")
Rewrite = Callable[[ir.Model, Mapping[str, str]], Coverage]
"""Quantizes a graph in place, but for the nodes named, each with its reason."""

TASK_SAMPLES = 512
"""Samples of the validation part that a task's metric is measured on."""

GENERATED_BATCHES = 4
ROUNDS = 15
"""Alternated runs of each model that is timed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptLinear:
    """What one linear costs and wins when it alone stays in float.

    ``won`` is in units of the metric: loss of the whole in int8, less the loss with this one in float.
    ``ms`` is the time of a run more, for the linears that are kept.
    """

    name: str
    won: float
    bytes: int
    ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetResult:
    """How a budget was met.

    ``float_score`` and ``score`` are the task's metric of the float and of the final model;
    None for the relative error. ``loss_int8`` is the loss with every linear in int8, ``loss`` that
    of the final model, at most ``max_drop``.
    """

    metric: str
    max_drop: float
    samples: int
    float_score: float | None
    score: float | None
    loss_int8: float
    loss: float
    kept: list[KeptLinear]
    sensitivity: list[KeptLinear]

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the keys of docs/cli.md."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetedResult(QuantizeResult):
    """The result of a quantization that a budget was set for."""

    budget: BudgetResult


class TaskDrop:
    """By how much the task's own metric gets worse, in its units.

    Args:
        task: Gives the samples of the validation part, and scores them.
        reference: The float model.
    """

    def __init__(self, task: Task, reference: Session) -> None:
        self.name = task.metric
        self._task = task
        batches = list(task.evaluation("validation", BATCH * 8, TASK_SAMPLES))
        names = [name for name in reference.inputs if name != "loops"]
        self.batches: list[Feeds] = [batch.feeds(names) for batch in batches]
        self._targets = np.concatenate([batch.targets for batch in batches])
        self.float_score: float | None = self._score(reference)

    @property
    def samples(self) -> int:
        """Samples that are scored."""
        return len(self._targets)

    def of(self, session: Session) -> tuple[float, float | None]:
        """Return the loss of a model and its score."""
        score = self._score(session)
        drop = (self.float_score or 0.0) - score
        drop = drop if self._task.higher_is_better else -drop
        return (drop if np.isfinite(drop) else float("inf")), score

    def noise(self, session: Session) -> float:
        """Return the loss that rounding in float32 alone can cause."""
        measured = abs(self.of(session)[0])
        if self._task.kind == "tokens":
            return measured
        return max(measured, float(np.finfo(np.float32).eps) * abs(self.float_score or 0.0))

    def _score(self, session: Session) -> float:
        name = session.output_names[0]
        outputs = np.concatenate([session.run(feeds)[name] for feeds in self.batches])
        return self._task.score(outputs, self._targets)[self.name]


class RelativeError:
    """||y - ref|| / ||ref|| over all outputs on all samples: 10^(-SQNR / 20).

    Args:
        batches: Inputs to run on.
        reference: The float model.
    """

    name = "relative-error"
    float_score: float | None = None

    def __init__(self, batches: Iterable[Feeds], reference: Session) -> None:
        self.batches = list(batches)
        if not self.batches:
            raise InputError("the data holds no sample", hint="--data samples.npz")
        self._exact = [reference.run(feeds) for feeds in self.batches]
        self._signal = sum(_power(array) for run in self._exact for array in run.values())

    @property
    def samples(self) -> int:
        """Samples that are compared."""
        return sum(len(next(iter(feeds.values()))) for feeds in self.batches)

    def of(self, session: Session) -> tuple[float, float | None]:
        """Return the error of a model; there is no score."""
        noise = 0.0
        for feeds, exact in zip(self.batches, self._exact, strict=True):
            given = session.run(feeds)
            noise += sum(_power(given[name] - array) for name, array in exact.items())
        if not np.isfinite(noise):
            return float("inf"), None
        return float(np.sqrt(noise / self._signal)) if self._signal else float(noise > 0), None

    def noise(self, session: Session) -> float:
        """Return the error that rounding in float32 alone can cause."""
        return max(self.of(session)[0], float(np.finfo(np.float32).eps))


Loss = TaskDrop | RelativeError


def choose_loss(
    model: str | Path,
    metric: str | None,
    *,
    data: str | Path | None = None,
    samples: int = 128,
    threads: int | None = None,
) -> Loss:
    """Return what a budget is measured in.

    Args:
        model: The float artifact.
        metric: ``task``, ``relative-error``, or None: the task's where it is known and fits the
            data, else the relative error.
        data: What `Samples` reads. Without it the relative error is measured on the task's
            validation part, or on generated inputs.
        samples: Most samples of the relative error.
        threads: Threads of ONNX Runtime.

    Raises:
        InputError: The metric is unknown, or ``task`` is asked for and the model knows none.
    """
    if metric is not None and metric not in METRICS:
        raise InputError(
            f"metric {metric!r} is not known, known are {', '.join(METRICS)}", hint="--metric task"
        )
    graph, reference = open_artifact(model), Session(model, threads=threads)
    metadata = read_metadata(graph.metadata_props)
    described = metadata.task if metadata else {}
    if metric == "task" and not described:
        raise InputError(
            "the model does not say what it was trained on", hint="--metric relative-error"
        )
    task_needs_data = False
    if described:
        try:
            task = task_from_dict(described, data=data)
        except InputError:
            if metric == "task":
                raise
            task_needs_data = True
        else:
            if metric != "relative-error":
                return TaskDrop(task, reference)
    if data is None and (not described or task_needs_data):
        return RelativeError(
            (generate_inputs(graph, batch=BATCH, seed=seed) for seed in range(GENERATED_BATCHES)),
            reference,
        )
    return RelativeError(Samples(data, graph, samples=samples, split="validation"), reference)


def keep_within_budget(
    model: str | Path,
    rewrite: Rewrite,
    loss: Loss,
    max_drop: float,
    *,
    keep: Sequence[str] = (),
    threads: int | None = None,
) -> BudgetResult:
    """Find the linears that must stay in float for the loss to stay within a budget.

    Each linear is tried alone in float; then they are kept one after another, those first that win
    most per byte, until the budget holds; those that turn out not to be needed are given back.

    Args:
        model: The float artifact. Nothing is written beside it.
        rewrite: Quantizes a graph in place.
        loss: What the budget is measured in.
        max_drop: Largest loss.
        keep: Linears that stay in float anyway.
        threads: Threads of ONNX Runtime.

    Returns:
        The linears to keep, with costs and gains.

    Raises:
        InputError: The budget is negative, or below what rounding in float32 causes.
        BudgetError: Int8 loses more, whatever is kept.
    """
    _check_budget(model, loss, max_drop, threads)
    with tempfile.TemporaryDirectory(prefix="loopedge.") as folder:
        trials = _Trials(open_artifact(model), rewrite, loss, Path(folder), keep, threads)
        whole = trials.measure(())
        if whole.loss <= max_drop:
            return _result(loss, max_drop, whole, whole, [], [])
        sensitivity = [trials.alone(name) for name in trials.candidates]
        ranked = sorted(sensitivity, key=lambda item: -item.won / max(item.bytes, 1))
        chosen: list[str] = []
        best = whole.loss
        for item in ranked[:-1]:  # with the last one nothing would be int8
            chosen.append(item.name)
            reached = trials.measure(chosen).loss
            best = min(best, reached)
            if reached <= max_drop:
                break
        else:
            raise BudgetError(
                f"int8 loses {best:.3g} of {loss.name} at best, allowed is {max_drop:.3g}, "
                f"with up to {len(chosen)} of {len(ranked)} linears kept in float",
                measured=best,
                allowed=max_drop,
                hint=f"--max-drop {1.1 * best:.2g}, or other --ranges, --method or --samples",
            )
        chosen = _needed(trials, chosen, max_drop)
        times = trials.extra_ms(chosen)
        by_name = {item.name: item for item in sensitivity}
        kept = [
            KeptLinear(name=name, won=by_name[name].won, bytes=by_name[name].bytes, ms=times[name])
            for name in chosen
        ]
        return _result(loss, max_drop, whole, trials.measure(chosen), kept, sensitivity)


def _check_budget(model: str | Path, loss: Loss, max_drop: float, threads: int | None) -> None:
    if not np.isfinite(max_drop) or max_drop < 0:
        raise InputError(f"max-drop is {max_drop}, allowed is 0 or more", hint="--max-drop 0.01")
    other = 1 if threads != 1 else 2
    floor = loss.noise(Session(model, threads=other))
    if max_drop < floor:
        raise InputError(
            f"max-drop is {max_drop:.3g}, but rounding in float32 alone moves {loss.name} by "
            f"{floor:.3g}",
            hint=f"--max-drop {10 * floor:.1g}",
        )


@dataclass(frozen=True, slots=True)
class _Trial:
    loss: float
    score: float | None
    weight_bytes: int


class _Trials:
    """Models with some linears in float: written, measured, and forgotten."""

    def __init__(
        self,
        reference: ir.Model,
        rewrite: Rewrite,
        loss: Loss,
        folder: Path,
        keep: Sequence[str],
        threads: int | None,
    ) -> None:
        self._reference, self._rewrite, self._loss = reference, rewrite, loss
        self._folder, self._always, self._threads = folder, set(keep), threads
        self._known: dict[frozenset[str], _Trial] = {}
        quantized = set(self._write((), folder / "all.onnx")[1].quantized)
        first: dict[ir.Value, str] = {}
        for item in linears(reference):  # linears that share a weight are kept together
            if item.node.name in quantized:
                first.setdefault(item.weight, loop_name(item.node))
        self.candidates = list(dict.fromkeys(first.values()))

    def measure(self, names: Sequence[str]) -> _Trial:
        """Return the loss with these linears in float."""
        key = frozenset(names)
        if key not in self._known:
            path = self._folder / "trial.onnx"
            size = self._write(names, path)[0]
            loss, score = self._loss.of(Session(path, threads=self._threads))
            self._known[key] = _Trial(loss, score, size)
        return self._known[key]

    def alone(self, name: str) -> KeptLinear:
        """Return what one linear in float costs and wins."""
        whole, trial = self.measure(()), self.measure([name])
        won = 0.0 if trial.loss == whole.loss else whole.loss - trial.loss  # inf - inf is none
        return KeptLinear(name=name, won=won, bytes=trial.weight_bytes - whole.weight_bytes)

    def extra_ms(self, names: Sequence[str]) -> dict[str, float]:
        """Return the time that each linear in float adds to a run of one batch, in ms."""
        sessions = {}
        for index, name in enumerate(["", *names]):
            path = self._folder / f"timed{index}.onnx"
            self._write([name] if name else (), path)
            sessions[name] = Session(path, threads=self._threads)
        feeds = self._loss.batches[0]
        taken: dict[str, list[float]] = {name: [] for name in sessions}
        for _ in range(ROUNDS + 1):
            for name, session in sessions.items():
                started = time.perf_counter()
                session.run(feeds)
                taken[name].append(1e3 * (time.perf_counter() - started))
        medians = {name: float(np.median(times[1:])) for name, times in taken.items()}
        return {name: medians[name] - medians[""] for name in names}

    def _write(self, names: Sequence[str], path: Path) -> tuple[int, Coverage]:
        model, wanted = self._reference.clone(), {*names, *self._always}
        kept = {
            item.node.name or "": "kept in float by the budget"
            for item in linears(model)
            if not wanted.isdisjoint({item.node.name, loop_name(item.node)})
        }
        coverage = self._rewrite(model, kept)
        write_artifact(model, path, force=True)
        return weight_bytes(model), coverage


def _needed(trials: _Trials, chosen: list[str], max_drop: float) -> list[str]:
    """Give back what the budget holds without, the last kept first."""
    for name in reversed(chosen):
        fewer = [other for other in chosen if other != name]
        if trials.measure(fewer).loss <= max_drop:
            chosen = fewer
    return chosen


def _result(
    loss: Loss,
    max_drop: float,
    whole: _Trial,
    final: _Trial,
    kept: list[KeptLinear],
    sensitivity: list[KeptLinear],
) -> BudgetResult:
    return BudgetResult(
        metric=loss.name,
        max_drop=max_drop,
        samples=loss.samples,
        float_score=loss.float_score,
        score=final.score,
        loss_int8=whole.loss,
        loss=final.loss,
        kept=kept,
        sensitivity=sorted(sensitivity, key=lambda item: -item.won),
    )


def _power(array: Array) -> float:
    return float(np.square(array.astype(np.float64)).sum())
