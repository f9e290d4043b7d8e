"""Write the files of a folder: each subject by each exporter, and what each optimizer makes of it.

Runs in the environment of `requirements.txt`, and prints a line of JSON for each file: its name, and the
reason where there is none. Beside ``SUBJECT.EXPORTER.OPTIMIZER.onnx`` stand the inputs and PyTorch's outputs at two
sizes, ``SUBJECT.0.npz`` and ``SUBJECT.1.npz``.

    python -m benchmarks.reroll.processes.write_files FOLDER [--subject NAME] [--exporter NAME] [--optimizer NAME]
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.reroll.exporters import EXPORTERS, export
from benchmarks.reroll.optimizers import OPTIMIZERS, optimize
from benchmarks.reroll.subjects import SUBJECTS, Subject, feeds_of

PLAIN = "plain"
SIZES: tuple[dict[str, int], ...] = ({}, {"batch": 3, "sequence": 9, "height": 11, "width": 7})
"""Of the free axes: those that were exported with, and others."""

AFTER = {
    "dynamo": (PLAIN, *OPTIMIZERS),
    "dynamo unoptimized": (PLAIN, "onnxsim"),
    "torchscript": (PLAIN, "onnxslim", "ort basic", "ort extended", "float16", "dynamic int8"),
    "transformers": (PLAIN, "onnxslim", "ort extended"),
}
"""What comes after which exporter."""


def write_all(
    folder: Path, subjects: list[str], exporters: list[str], optimizers: list[str]
) -> Iterator[dict[str, str | None]]:
    """Write what is not there yet; yield the name of each file and why it could not be written."""
    folder.mkdir(parents=True, exist_ok=True)
    for subject in (SUBJECTS[name] for name in subjects):
        _write_reference(subject, folder)
        for exporter in exporters:
            if exporter == "transformers" and not subject.transformers:
                continue
            plain = folder / f"{subject.name}.{_word(exporter)}.{PLAIN}.onnx"
            reason = None if plain.exists() else _refusal(export, exporter, subject, plain)
            for optimizer in AFTER[exporter]:
                if optimizer not in optimizers:
                    continue
                path = folder / f"{subject.name}.{_word(exporter)}.{_word(optimizer)}.onnx"
                why = reason
                if reason is None and not path.exists():
                    why = _refusal(optimize, optimizer, plain, path)
                yield {"file": path.stem, "reason": why}


def _word(name: str) -> str:
    return name.replace(" ", "-")


def _refusal(write: object, tool: str, source: object, path: Path) -> str | None:
    assert callable(write)
    try:
        write(tool, source, path)
    except Exception as error:
        path.unlink(missing_ok=True)
        lines = str(error).strip().splitlines() or [""]
        return f"{type(error).__name__}: {lines[0][:200]}"
    return None


def _write_reference(subject: Subject, folder: Path) -> None:
    model = subject.model()
    for i, sizes in enumerate(SIZES):
        path = folder / f"{subject.name}.{i}.npz"
        if path.exists():
            continue
        feeds = feeds_of(subject, **sizes)
        with torch.no_grad():
            given = model(**feeds) if subject.by_keyword else model(*feeds.values())
        arrays = {f"input {name}": value.numpy() for name, value in feeds.items()}
        for k, value in enumerate(_tensors(given)):
            arrays[f"output {k}"] = value.numpy()
        np.savez(path, **arrays)  # type: ignore[arg-type]


def _tensors(given: object) -> list[Tensor]:
    values = list(given.values()) if isinstance(given, Mapping) else given
    if isinstance(values, Tensor):
        return [values]
    assert isinstance(values, list | tuple)
    return list(values)


def main() -> None:
    """Write files and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--subject", action="append", choices=SUBJECTS)
    parser.add_argument("--exporter", action="append", choices=EXPORTERS)
    parser.add_argument("--optimizer", action="append", choices=[PLAIN, *OPTIMIZERS])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for row in write_all(
        arguments.folder,
        arguments.subject or list(SUBJECTS),
        arguments.exporter or list(EXPORTERS),
        arguments.optimizer or [PLAIN, *OPTIMIZERS],
    ):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
