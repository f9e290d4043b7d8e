"""The models that every toolchain gets, and the data that they are calibrated and judged on.

The block of the paper with random weights, for several loop counts, and a model that was trained to sort.
Inputs are written as ``.npy``, int64 (samples, 1, sequence): every toolchain runs one sequence at a time.
"""

import json
from pathlib import Path

import numpy as np
import torch

import loopedge
from benchmarks.peers.subject import SORTING, Subject
from loopedge.trainer.config import make_model_config, make_train_config
from loopedge.trainer.pipeline import train

__all__ = ["LOOPS", "write_sorting", "write_tmlt"]

LOOPS = (1, 12, 48)
SORTING_LOOPS = 8
VOCABULARY, SEQUENCE = 4096, 128
CALIBRATION, JUDGED = 16, 4
SORTING_CALIBRATION, SORTING_JUDGED = 128, 512
TRAINING = {"steps": 1200, "batch_size": 64, "lr": 2e-3}


def write_tmlt(folder: Path, loops: int) -> Subject:
    """Write the paper's block; its gates are open, or it would be the identity.

    Args:
        folder: Folder of all subjects.
        loops: Iterations.
    """
    subject = Subject(folder / f"tmlt-{loops}")
    if not subject.reference.exists():
        subject.folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        config = loopedge.LoopedConfig(
            d_model=768, heads=12, loops=loops, vocab_size=VOCABULARY, max_length=SEQUENCE
        )
        model = loopedge.LoopedTransformer(config).eval()
        last = model.get_submodule("timestep.last")
        assert isinstance(last, torch.nn.Linear)
        torch.nn.init.normal_(last.weight, std=0.02)
        torch.nn.init.normal_(last.bias, std=0.3)
        loopedge.save(model, subject.model, force=True)
        generator = np.random.default_rng(0)
        for path, samples in ((subject.calibration, CALIBRATION), (subject.judged, JUDGED)):
            np.save(path, generator.integers(0, VOCABULARY, (samples, 1, SEQUENCE)))
        _write_references(model, subject)
    return subject


def write_sorting(folder: Path) -> Subject:
    """Train the sorting model for a minute and write it."""
    subject = Subject(folder / "sorting")
    if not subject.reference.exists():
        subject.folder.mkdir(parents=True, exist_ok=True)
        config = make_model_config(
            SORTING, d_model=64, heads=4, loops=SORTING_LOOPS, timestep="sinusoidal"
        )
        if not subject.model.exists():
            train(SORTING, config, make_train_config(**TRAINING), subject.model)
        calibration = SORTING.batch("train", SORTING_CALIBRATION, 10_000)
        judged = SORTING.batch("test", SORTING_JUDGED, 0)
        np.save(subject.calibration, calibration.inputs[:, None])
        np.save(subject.judged, judged.inputs[:, None])
        np.save(subject.folder / "targets.npy", judged.targets)
        _write_references(loopedge.load(subject.model), subject)
    return subject


def _write_references(model: loopedge.LoopedTransformer, subject: Subject) -> None:
    judged = torch.from_numpy(np.load(subject.judged))
    half = max(1, model.loops // 2)
    with torch.no_grad():
        for path, loops in ((subject.half, half), (subject.reference, model.loops)):
            logits = [model(sample, loops=loops).numpy() for sample in judged]
            np.save(path, np.stack(logits))
    shape = {"loops": model.loops, "half": half}
    (subject.folder / "shape.json").write_text(json.dumps(shape) + "\n", encoding="utf-8")
