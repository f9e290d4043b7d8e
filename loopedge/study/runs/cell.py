"""One run of a pilot: train, export, quantize, and judge the model on the test split."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopedge.errors import DivergedError, InputError, InterruptedRunError, LoopedgeError
from loopedge.exporter.pipeline import export
from loopedge.files.json_text import read_json
from loopedge.files.plain_json import dump_json, finite
from loopedge.files.targets import write_text_atomic
from loopedge.options import by_face, option
from loopedge.quantizer.pipeline import quantize
from loopedge.runtime.session import Session
from loopedge.study.design import Cell, Design
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

    A run that failed is not finished, unless ``failed`` ones are asked for too.

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
    return result if failed or result["status"] != "failed" else None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSetup:
    """What all runs of a pilot share.

    Args:
        design: Their options.
        folder: Of the pilot.
        threads: Of a training; default: PyTorch's choice.
    """

    design: Design
    folder: Path
    threads: int | None = None


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
    result["gradient_norm_max"] = _largest_gradient(model)
    write_text_atomic(path, dump_json(result) + "\n")
    plain: dict[str, Any] = finite(result)
    return plain


def _attempt(task: Task, cell: Cell, setup: RunSetup, model: Path) -> dict[str, Any]:
    """Train a model and judge it; say how the run ended.

    Raises:
        InterruptedRunError: Ctrl-C, SIGTERM or SIGHUP.
    """
    design = setup.design
    found: dict[str, Any] = {}
    try:
        trained = train(
            task,
            design.model_config(task, cell),
            design.train_config(cell),
            model,
            threads=setup.threads,
            device=design.device,
            resume=state_path(model).exists() and not model.exists(),
            force=True,
        )
        found |= _trained(trained) | {"stability": trained.to_json()["stability"]}
        if not math.isfinite(metric_value(trained.test, task.metric)):
            return found | {"status": "diverged", "reason": f"{task.metric} is not finite"}
        return found | {"status": "done"} | _deployed(task, model, setup)
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
        "train_seconds": round(result.seconds, 2),
    }


def _deployed(task: Task, model: Path, setup: RunSetup) -> dict[str, Any]:
    """Export and quantize a model; judge the int8 file as the float model was judged."""
    exported, lower = model.with_name("model.onnx"), model.with_name("model.int8.onnx")
    export(model, exported, force=True)
    session = Session(exported, threads=1)
    names = session.expected.sampled
    samples = task.batch("train", CALIBRATED, 0).feeds(names)
    try:
        quantize(exported, lower, data=samples, scheme="static", threads=1, force=True)
    except LoopedgeError as error:
        return {"int8": None, "int8_reason": error.message}
    most = int(setup.design.train.get("samples") or 1024)
    return {"int8": _judge(task, lower, most), "int8_reason": None}


def _judge(task: Task, path: Path, samples: int) -> Metrics:
    session = Session(path, threads=1)
    names, output = session.expected.sampled, session.output_names[0]
    return task.metrics(
        total(
            task.tally_batch(session.run(batch.feeds(names))[output], batch)
            for batch in task.evaluation("test", BATCH_SIZE, samples)
        )
    )


def _largest_gradient(model: Path) -> float | None:
    """Return the largest gradient norm of a run, as its metrics say."""
    path = metrics_path(model)
    if not path.exists():
        return None
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return max((line["gradient_norm_max"] for line in lines), default=None)
