"""The bundles that every client is measured with: one small causal model in two forms, four schemes and three loop counts."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import loopedge
import loopedge_calibration

__all__ = ["FORMS", "LOOPS", "SCHEMES", "Bundle", "write_bundles"]

LOOPS = (1, 12, 48)
FORMS = ("loop", "unrolled")
SCHEMES: dict[str, dict[str, Any]] = {
    "float32": {},
    "static": {"scheme": "static", "reduce_range": True},
    "dynamic": {"scheme": "dynamic", "reduce_range": True},
    "weight-int8": {"scheme": "weight-int8"},
}
"""With seven bits: eight overflow on processors without VNNI, each in its own way, and then no two engines agree."""

CONFIG: dict[str, Any] = {
    "d_model": 256, "heads": 4, "layers": 1, "vocab_size": 512, "max_length": 64, "causal": True, "gate_init": 0.1,
}  # fmt: skip
SAMPLES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A bundle for Python, C, Node and the web, and what is in it."""

    form: str
    scheme: str
    loops: int
    folder: Path


def write_bundles(folder: Path, schemes: Sequence[str] = tuple(SCHEMES)) -> Iterator[Bundle]:
    """Write every bundle of some schemes, one at a time: it is removed when the next one is asked for."""
    ids = np.random.default_rng(1).integers(
        0, CONFIG["vocab_size"], (SAMPLES, 1, CONFIG["max_length"])
    )
    for loops in LOOPS:
        torch.manual_seed(0)
        checkpoint = folder / f"model.{loops}.pt"
        config = loopedge.LoopedConfig(loops=loops, **CONFIG)
        loopedge.save(loopedge.LoopedTransformer(config).eval(), checkpoint)
        ranges = None
        for form in FORMS:
            exported = folder / f"{form}.{loops}.onnx"
            loopedge.export(checkpoint, exported, form=form)  # type: ignore[arg-type]
            if ranges is None and "static" in schemes:
                ranges = loopedge_calibration.collect(
                    exported, [{"input_ids": sample} for sample in ids], smoothing=False, threads=1
                )
            for scheme, options in SCHEMES.items():
                if scheme not in schemes:
                    continue
                written = exported
                if options:
                    written = folder / f"{form}.{loops}.{scheme}.onnx"
                    table: dict[str, Any] = {"ranges": ranges} if scheme == "static" else {}
                    loopedge.quantize(
                        exported, written, min_sqnr_db=0.0, threads=1, **options, **table
                    )
                target = folder / "bundle"
                loopedge.package(written, target, clients=("web", "node", "c", "python"), threads=1)
                yield Bundle(form=form, scheme=scheme, loops=loops, folder=target)
                shutil.rmtree(target)
