"""The files of a model: exported, quantized, given a cache, and as GGUF; kept in build/decode.

python -m benchmarks.decode.files [--shape large]
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

import loopedge
from benchmarks.decode.llama.gguf_file import TYPES, write_gguf
from benchmarks.decode.llama.source import FOLDER, SOURCE
from benchmarks.decode.model import SHAPES, NanbeigeShaped, make_model

__all__ = ["MANY", "SCHEMES", "folder_of", "make_files", "make_many"]

SCHEMES = {"int8": "weight-int8", "dynamic": "dynamic", "int4": "weight-int4"}
"""Schemes of `loopedge quantize` by what they are called here."""

CACHED = ("int8", "dynamic", "int4")
"""Which of them are written with a cache of eight bits, too."""

MANY = 12
"""Loops of the file whose session is measured at several counts."""


def folder_of(shape: str) -> Path:
    """Return where the files of a shape stand."""
    return FOLDER / "files" / shape


def make_files(shape: str, *, with_llama: bool) -> Path:
    """Write what is missing and return the folder.

    ``float32``, ``int8``, ``dynamic``, ``int4``: `.onnx`, `.scan.onnx` and `.unrolled.onnx` each; some `.cache-int8.onnx`; `.gguf`.
    """
    folder = folder_of(shape)
    folder.mkdir(parents=True, exist_ok=True)
    model = make_model(shape)
    _export(model, folder / "float32.onnx")
    for name, scheme in SCHEMES.items():
        target = folder / f"{name}.onnx"
        if not target.exists():
            _say(f"{shape}: {name}")
            source = folder / "float32.onnx"
            # Random weights: this is no judgement of the scheme.
            loopedge.quantize(source, target, scheme=scheme, min_sqnr_db=0.0)
    for name in ("float32", *SCHEMES):
        for form in ("scan", "unrolled"):
            target = folder / f"{name}.{form}.onnx"
            if not target.exists():
                _say(f"{shape}: {name}, {form}")
                loopedge.to_generate(folder / f"{name}.onnx", target, form=form)
    for name in CACHED:
        target = folder / f"{name}.cache-int8.onnx"
        if not target.exists():
            _say(f"{shape}: {name}, cache of 8 bits")
            ids = np.random.default_rng(2).integers(0, SHAPES[shape].vocab_size, (8, 256))
            source = folder / f"{name}.onnx"
            loopedge.to_generate(source, target, cache_type="int8", data={"input_ids": ids})
    if with_llama:
        for width in TYPES:
            target = folder / f"{width}.gguf"
            if not target.exists():
                _say(f"{shape}: {target.name}")
                write_gguf(model, width, target, SOURCE)
    return folder


def make_many(shape: str) -> Path:
    """Return a file that takes up to `MANY` loops, its weights in four bits."""
    folder = folder_of(shape)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "many.scan.onnx"
    if not target.exists():
        model = make_model(shape)
        model.loops = MANY  # a Generator runs fewer of them, too
        _export(model, folder / "many.float32.onnx")
        quantized = folder / "many.int4.onnx"
        source = folder / "many.float32.onnx"
        loopedge.quantize(source, quantized, scheme="weight-int4", min_sqnr_db=0.0, force=True)
        loopedge.to_generate(quantized, target)
    return target


def _export(model: NanbeigeShaped, path: Path) -> None:
    if not path.exists():
        _say(f"{path.parent.name}: export")
        loopedge.export(model, path)


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def main() -> int:
    """Write the files of a shape."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--shape", choices=SHAPES, default="large")
    arguments = parser.parse_args()
    print(make_files(arguments.shape, with_llama=SOURCE.exists()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
