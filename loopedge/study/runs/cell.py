"""One run of a pilot: train, export, quantize, and judge the model on the test split."""

import json
import math
from pathlib import Path
from typing import Any

from loopedge.errors import DivergedError, InputError, InterruptedRunError, LoopedgeError
from loopedge.exporter.pipeline import export
from loopedge.files.json_text import read_json
from loopedge.files.plain_json import dump_json, finite
from loopedge.files.targets import write_text_atomic
from loopedge.model.checkpoint import load
from loopedge.options import by_face, option
from loopedge.quantizer.pipeline import quantize
from loopedge.runtime.session import Session
from loopedge.study.design import Cell
from loopedge.study.options import UNLOOPED
from loopedge.study.runs.convergence import judge_convergence, least_gain
from loopedge.study.runs.depth import judge_depths
from loopedge.study.runs.learning_rate import choose_rate
from loopedge.study.runs.samples import SAMPLES_FILE, write_samples
from loopedge.study.runs.setup import RunSetup
from loopedge.tasks.metrics import Metrics, metric_value, total
from loopedge.tasks.task import Task
from loopedge.trainer.logs import metrics_path
from loopedge.trainer.pipeline import TrainResult, train
from loopedge.trainer.state import state_path

__all__ = ["RunSetup", "cell_path", "read_cell", "run_cell"]

CALIBRATED, BATCH_SIZE = 171, 64  # every fourth sample judges: 128 calibrate


def cell_path(folder: Path, cell: Cell) -> Path:
    """Return the file of a finished run's result."""
    return folder / "runs" / cell.name / "cell.json"


def read_cell(folder: Path, cell: Cell, *, failed: bool = False) -> dict[str, Any] | None:
    """Return the result of a finished run; None where it is not finished.

    A run that failed is not finished, unless ``failed`` ones are asked for too; one without the file of its samples is not.

    Raises:
        InputError: The result is damaged.
    """
    path = cell_path(folder, cell)
    if not path.exists():
        return None
    hint = f"rm {path}, then {by_face('the same command', 'the same call')} with {option('resume')}: that run is made again"
    result = read_json(path, needed="the result of a run", hint=hint)
    if not isinstance(result, dict) or not isinstance(result.get("status"), str):
        raise InputError(f"{path} is not the result of a run: it holds no status", hint=hint)
    if result["status"] == "done" and not path.with_name(SAMPLES_FILE).exists():
        return None
    return result if failed or result["status"] != "failed" else None


def run_cell(task: Task, cell: Cell, setup: RunSetup) -> dict[str, Any]:
    """Make one run and write its result; a run that was interrupted goes on where it stopped.

    Args:
        task: With the seed of the run.
        cell: The run.
        setup: What all runs share.

    Returns:
        What stands in ``cell.json``. ``status`` is ``done``, ``diverged``, or ``failed`` with
        ``reason``; ``int8`` is None, with ``int8_reason``, where int8 failed.

    Raises:
        InterruptedRunError: Ctrl-C, SIGTERM or SIGHUP.
    """
    path = cell_path(setup.folder, cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    model = path.with_name("model.pt")
    result = cell.to_json() | _attempt(task, cell, setup, model)
    result["gradient_norm_max"] = max(
        (line["gradient_norm_max"] for line in _lines(model)), default=None
    )
    write_text_atomic(path, dump_json(result) + "\n")
    plain: dict[str, Any] = finite(result)
    return plain


def _attempt(task: Task, cell: Cell, setup: RunSetup, model: Path) -> dict[str, Any]:
    """Choose a learning rate, train a model and judge it; say how the run ended.

    Raises:
        InterruptedRunError: Ctrl-C, SIGTERM or SIGHUP.
    """
    design = setup.design
    found: dict[str, Any] = {}
    try:
        choice = choose_rate(task, cell, setup)
        found |= choice.to_json()
        trained = train(
            task,
            design.model_config(task, cell),
            design.train_config(cell, choice.rate),
            model,
            threads=setup.threads,
            device=design.device,
            resume=state_path(model).exists() and not model.exists(),
            force=True,
        )
        found |= _trained(trained) | _convergence(task, trained, model)
        found |= _judged(task, cell, setup, model)
        if not math.isfinite(metric_value(trained.test, task.metric)):
            return found | {"status": "diverged", "reason": f"{task.metric} is not finite"}
        samples = design.train_config(cell).samples
        return found | {"status": "done"} | _deployed(task, model, samples)
    except InterruptedRunError:
        raise
    except DivergedError as error:
        return found | {"status": "diverged", "reason": error.message}
    except LoopedgeError as error:
        return found | {"status": "failed", "reason": error.message}


def _trained(result: TrainResult) -> dict[str, Any]:
    return {
        "validation": result.validation,
        "test": result.test,
        "baselines": result.baselines,
        "parameters": result.parameters,
        "steps": result.steps,
        "best_step": result.best_step,
        "stopped_early": result.stopped_early,
        "train_seconds": round(result.seconds, 2),
        "stability": result.to_json()["stability"],
    }


def _convergence(task: Task, trained: TrainResult, model: Path) -> dict[str, Any]:
    """Say whether the run was still improving when its steps ended."""
    metric, higher = task.metric, task.higher_is_better
    least = least_gain(trained.baselines, trained.validation, metric, higher_is_better=higher)
    found = judge_convergence(
        _lines(model), metric, higher_is_better=higher, least=least, steps=trained.steps
    )
    return {"converged": found.converged, "last_quarter": found.to_json()}


def _judged(task: Task, cell: Cell, setup: RunSetup, model: Path) -> dict[str, Any]:
    """Judge the model at other depths; keep what each sample adds to its score."""
    config = setup.design.train_config(cell)
    found = judge_depths(
        load(model).to(setup.design.device),
        task,
        config.samples,
        aware=config.quantization_aware,
        looped=cell.arm not in UNLOOPED,
    )
    write_samples(model.with_name(SAMPLES_FILE), found.tallies)
    return {
        "depths": found.depths if cell.arm not in UNLOOPED else None,
        "early_exit": found.early_exit,
    }


def _deployed(task: Task, model: Path, samples: int) -> dict[str, Any]:
    """Export and quantize a model; judge the int8 file on the samples that judged the float model."""
    exported, lower = model.with_name("model.onnx"), model.with_name("model.int8.onnx")
    export(model, exported, force=True)
    session = Session(exported, threads=1)
    names = session.expected.sampled
    data = task.batch("train", CALIBRATED, 0).feeds(names)
    try:
        quantize(exported, lower, data=data, scheme="static", threads=1, force=True)
    except LoopedgeError as error:
        return {"int8": None, "int8_reason": error.message}
    return {"int8": _judge(task, lower, samples), "int8_reason": None}


def _judge(task: Task, path: Path, samples: int) -> Metrics:
    session = Session(path, threads=1)
    names, output = session.expected.sampled, session.output_names[0]
    return task.metrics(
        total(
            task.tally_batch(session.run(batch.feeds(names))[output], batch)
            for batch in task.evaluation("test", BATCH_SIZE, samples)
        )
    )


def _lines(model: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's metrics file."""
    path = metrics_path(model)
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
