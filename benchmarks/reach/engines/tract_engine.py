"""Compute with tract; runs in an environment of its own."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import tract

VERSION = f"tract {version('tract')}"


def compute(path: Path, feeds: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Return the outputs of a model; outputs go by their order, tract calls them otherwise."""
    model = tract.onnx().load(str(path))
    order = [model.input_name(i) for i in range(model.input_count())]
    results = model.into_model().into_runnable().run([feeds[name] for name in order])
    return {name: result.to_numpy() for name, result in zip(names, results, strict=True)}
