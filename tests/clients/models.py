"""Small models of every kind that a client must run, trained for a few steps or not at all."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import loopedge
from loopedge.model.checkpoint import save
from loopedge.tasks.labelled_series import LabelledSeriesTask
from loopedge.tasks.series import SeriesTask
from loopedge.tasks.text import TextTask
from loopedge.trainer.config import make_model_config, make_train_config
from loopedge.trainer.pipeline import train

if TYPE_CHECKING:
    from pathlib import Path

    from loopedge.tasks.task import Task

__all__ = ["CONTEXT", "HORIZON", "LONGEST", "TEXT", "table_of", "write_model"]

CONTEXT, LEAST, HORIZON = 24, 10, 6
LONGEST = 200
TEXT = "".join(f"line {n}: the loop keeps its weights, the loop is short\n" for n in range(60))
SMALL: dict[str, Any] = {"d_model": 16, "heads": 2, "loops": 3}


def write_model(kind: str, folder: Path) -> Path:
    """Write a kind of model, and what it is made from, into a folder; return its ``.onnx`` file."""
    return {
        "forecast": _forecast,
        "int8": _int8,
        "loops": _loops,
        "gaps": _gaps,
        "labels": _labels,
        "text": _text,
        "tokens": _tokens,
        "large": _large,
        "lengths": _lengths,
    }[kind](folder)


def table_of(folder: Path) -> Path:
    """Return a table of 300 days, written when it is first asked for: two columns of numbers and a label."""
    path = folder / "table.csv"
    if path.exists():
        return path
    generator = np.random.default_rng(3)
    lines = ["day,sales,degrees,state"]
    for day in range(300):
        date = np.datetime64("2024-01-01") + day
        sales = 20 + 5 * np.sin(day / 3) + generator.normal() / 5
        degrees = "" if day % 11 == 4 else f"{10 + generator.normal():.2f}"
        lines.append(f"{date},{sales:.3f},{degrees},{'busy' if sales > 20 else 'quiet'}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _forecast(folder: Path) -> Path:
    return _exported(folder, "forecast")


def _loops(folder: Path) -> Path:
    return _exported(folder, "loops", dynamic_loops=True)


def _int8(folder: Path) -> Path:
    source, target = _exported(folder, "forecast"), folder / "int8.onnx"
    options: dict[str, Any] = {"scheme": "static", "reduce_range": True, "min_sqnr_db": 0.0}
    loopedge.quantize(source, target, data=table_of(folder), threads=1, **options)
    return target


def _exported(folder: Path, name: str, **options: Any) -> Path:
    path = folder / f"{name}.onnx"
    if not path.exists():
        loopedge.export(_forecaster(folder), path, **options)
    return path


@cache
def _forecaster(folder: Path) -> Path:
    task = SeriesTask.from_file(
        table_of(folder), targets=["sales"], context=CONTEXT, horizon=HORIZON, time_column="day"
    )
    return _trained(task, folder / "forecast.pt")


def _gaps(folder: Path) -> Path:
    task = SeriesTask.from_file(
        table_of(folder), targets=["sales"], covariates=["degrees"], context=CONTEXT, horizon=HORIZON,
        min_context=LEAST, missing="indicator", time_column="day", scaling="window",
    )  # fmt: skip
    loopedge.export(_trained(task, folder / "gaps.pt"), folder / "gaps.onnx")
    return folder / "gaps.onnx"


def _labels(folder: Path) -> Path:
    task = LabelledSeriesTask.from_file(
        table_of(folder), label="state", covariates=["sales"], context=CONTEXT, time_column="day"
    )
    loopedge.export(_trained(task, folder / "labels.pt"), folder / "labels.onnx")
    return folder / "labels.onnx"


def _trained(task: Task, path: Path) -> Path:
    steps = make_train_config(steps=4, batch_size=8, evaluate_every=2, samples=64)
    train(task, make_model_config(task, **SMALL, gate_init=0.5), steps, path)
    return path


def _text(folder: Path) -> Path:
    return _writer(folder, "text")


def _tokens(folder: Path) -> Path:
    return _writer(folder, "tokens", train_tokenizer=280)


def _writer(folder: Path, name: str, **options: Any) -> Path:
    """An untrained model of text with a cache; its gates are open, so that the text is not one letter."""
    corpus = folder / "corpus.txt"
    corpus.write_text(TEXT, encoding="utf-8")
    task = TextTask.from_path(corpus, context=48, **options)
    torch.manual_seed(1)
    model = loopedge.LoopedTransformer(make_model_config(task, **SMALL, gate_init=0.5)).eval()
    save(model, folder / f"{name}.pt", task=task.describe(), companions=task.companions())
    loopedge.export(folder / f"{name}.pt", folder / f"{name}.onnx", dynamic_loops=True)
    target = folder / f"{name}.generate.onnx"
    loopedge.to_generate(folder / f"{name}.onnx", target)
    return target


def _large(folder: Path) -> Path:
    """More weights than a browser gets in one file."""
    return _untrained(folder, "large", d_model=256, heads=4, vocab_size=64, max_length=32)


def _lengths(folder: Path) -> Path:
    return _untrained(folder, "lengths", d_model=32, heads=2, vocab_size=64, max_length=LONGEST)


def _untrained(folder: Path, name: str, **sizes: Any) -> Path:
    torch.manual_seed(2)
    config = loopedge.LoopedConfig(layers=1, loops=3, causal=True, gate_init=0.5, **sizes)
    path = folder / f"{name}.onnx"
    loopedge.export(loopedge.LoopedTransformer(config).eval(), path)
    return path
