"""Five trained models, three seeds each: what the benchmarks of low bits and of `--scheme auto` judge.

Sorting, edit distance, a byte language model on the Python standard library of this machine, sunspots, CO2. Data that
quantization may see (`Trained.data`) is drawn from the training part, or is the validation part of a text; what judges
here is the test part, which neither training nor quantization has seen.

    python benchmarks/int8/trained.py [FOLDER]     # trains and exports what is not there yet: half an hour
"""

import argparse
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from held_out import edit_distance
from numpy.typing import NDArray
from subjects import SUNSPOTS, Subject, sorting, sunspots

import loopedge
from loopedge.artifact.artifact import Artifact
from loopedge.graph.agreement import NoiseRatio, at_kept
from loopedge.graph.offsets import output_offsets
from loopedge.quantizer.held_out.significance import certain, loss_error
from loopedge.runtime.inputs import MASK
from loopedge.tasks.metrics import Tally, metric_value, total
from loopedge.tasks.series import SeriesTask
from loopedge.tasks.task import Batch
from loopedge.tasks.text import TextTask

__all__ = [
    "CHOSEN_ON",
    "MODELS",
    "NAMES",
    "SEEDS",
    "Judged",
    "Trained",
    "subject_of",
    "trained_models",
]

SEEDS = (0, 1, 2)
NAMES = ("sorting", "edit distance", "bytes", "sunspots", "co2")
CHOSEN_ON = ("sorting", "sunspots")
"""Defaults were chosen on these. The others are reported once."""

SHORTER: dict[str, dict[str, int]] = {
    "sorting": {"batch_size": 32},
    "edit distance": {"steps": 3000, "batch_size": 32},
}
"""Smaller batches: a model that never errs hides what rounding costs."""
MODELS = SUNSPOTS.parents[2] / "build" / "int8"
"""Where trained models are kept if no folder is named."""
CO2 = SUNSPOTS.with_name("co2.csv")
CORPUS = SUNSPOTS.parents[1] / "language-model" / "corpus.py"
SAMPLES, JUDGED, BATCH = 512, 1024, 16
"""Samples of a generated task that quantization may see, and the most that judge."""
Feeds = dict[str, NDArray[Any]]


def co2() -> Subject:
    """Return the forecaster of a series that rises."""
    return Subject(
        "co2",
        SeriesTask.from_file(CO2, targets=["co2"], context=48, horizon=12, missing="interpolate"),
        {"d_model": 64, "heads": 4, "loops": 8},
        {"steps": 300, "batch_size": 32, "lr": 1e-3},
    )


def language_model(folder: Path) -> Subject:
    """Return a language model of bytes, on text that is on any machine."""
    text = {part: folder / "text" / f"{part}.txt" for part in ("train", "validation", "test")}
    if not all(path.exists() for path in text.values()):
        subprocess.run([sys.executable, CORPUS, folder / "text"], check=True)
    task = TextTask.from_path(
        text["train"], context=64, validation=text["validation"], test=text["test"]
    )
    return Subject(
        "bytes",
        task,
        {"d_model": 64, "heads": 4, "loops": 4, "positions": "rotary"},
        {"steps": 600, "batch_size": 16, "lr": 2e-3},
    )


def subject_of(name: str, folder: Path) -> Subject:
    """Return how a model is trained."""
    if name == "bytes":
        return language_model(folder)
    makers = {"sorting": sorting, "edit distance": edit_distance, "sunspots": sunspots}
    found = makers.get(name, co2)()
    return replace(found, training=found.training | SHORTER.get(name, {}))


@dataclass(frozen=True, slots=True)
class Judged:
    """A file on the test part.

    ``worse``: by how much its metric is worse than float's, in the metric's unit; ``noise``: how much of that may be
    chance (two standard errors of the difference on the same samples, a jackknife); ``scored``: by batch, what the
    metric is made of.
    """

    metric: float
    worse: float
    noise: float
    sqnr_db: float
    file_bytes: int
    scored: list[Tally]


@dataclass(frozen=True)
class Trained:
    """A trained model of one seed, the data that quantization may see, and the test part that judges."""

    name: str
    seed: int
    folder: Path

    @cached_property
    def subject(self) -> Subject:
        """How it is trained."""
        found = subject_of(self.name, self.folder)
        training = {"samples": 128, **found.training, "seed": self.seed}
        return replace(found, name=f"{self.name}.{self.seed}", training=training)

    @property
    def stem(self) -> str:
        """What its files are called."""
        return f"{self.name.replace(' ', '-')}.{self.seed}"

    @property
    def checkpoint(self) -> Path:
        """The trained weights."""
        return self.folder / f"{self.stem}.pt"

    @property
    def path(self) -> Path:
        """The float Loop."""
        return self.folder / f"{self.stem}.onnx"

    @property
    def unrolled(self) -> Path:
        """The same written out, for tools that do not look into a Loop: opset 21, the last that they write."""
        return self.folder / f"{self.stem}.unrolled.onnx"

    def make(self) -> None:
        """Train and export what is not there yet."""
        if not self.path.exists():
            self.subject.export(self.folder, self.path)
        if not self.unrolled.exists():
            self.subject.export(self.folder, self.unrolled, form="unrolled", opset=21)

    @cached_property
    def data(self) -> Path:
        """What ``--data`` names: the table, the validation text, or samples of the training part."""
        files = {
            "sunspots": SUNSPOTS,
            "co2": CO2,
            "bytes": self.folder / "text" / "validation.txt",
        }
        if self.name in files:
            return files[self.name]
        path = self.folder / f"{self.name.replace(' ', '-')}.npz"
        if not path.exists():
            drawn = self.subject.task.batch("train", SAMPLES, 1_000_000).feeds(self.inputs)
            np.savez(path, **drawn)  # type: ignore[arg-type]
        return path

    @cached_property
    def inputs(self) -> list[str]:
        """The names of the model's inputs."""
        return [value.name or "" for value in Artifact.open(self.path).float32_graph().graph.inputs]

    @cached_property
    def judging(self) -> tuple[list[Feeds], list[Batch]]:
        """The test part, as the model takes it and as the task gives it."""
        batches = list(self.subject.task.evaluation("test", BATCH, JUDGED))
        return [batch.feeds(self.inputs) for batch in batches], batches

    @cached_property
    def reference(self) -> tuple[list[Feeds], list[Tally]]:
        """What the float model gives, and how it scores."""
        outputs = self.run(self.path)
        return outputs, self.score(outputs)

    @property
    def metric(self) -> float:
        """The float model's metric."""
        return self.total(self.reference[1])

    def run(self, path: Path) -> list[Feeds]:
        """Return the outputs of a model of this one's inputs on the test part."""
        session = loopedge.Session(path, threads=1)
        return [session.run(feeds) for feeds in self.judging[0]]

    def score(self, outputs: list[Feeds]) -> list[Tally]:
        """Return what each batch adds to the task's own metric."""
        first, task = next(iter(outputs[0])), self.subject.task
        pairs = zip(outputs, self.judging[1], strict=True)
        return [task.tally_batch(given[first], batch) for given, batch in pairs]

    def total(self, scored: list[Tally]) -> float:
        """Return the metric of some batches."""
        task = self.subject.task
        return metric_value(task.metrics(total(scored)), task.metric)

    def loss(self, one: list[Tally], other: list[Tally]) -> float:
        """Return by how much the other's metric is worse than the one's."""
        drop = self.total(one) - self.total(other)
        return drop if self.subject.task.higher_is_better else -drop

    def noise(self, one: list[Tally], other: list[Tally]) -> float:
        """Return how much of a loss may be chance."""
        error = loss_error(one, other, self.loss)
        return 0.0 if error is None else certain(len(one)) * error

    def judge(self, path: Path) -> Judged:
        """Measure a file: the metric, and the noise of all outputs."""
        return self.judge_outputs(self.run(path), path)

    def judge_outputs(self, outputs: list[Feeds], path: Path) -> Judged:
        """The same of outputs that are there already; what the file does not give is left out."""
        exact, scored = self.reference
        found = self.score(outputs)
        ratio, offsets = NoiseRatio(), self._offsets
        for feeds, one, other in zip(self.judging[0], exact, outputs, strict=True):
            for name, values in other.items():
                kept = feeds.get(MASK)
                ratio.add(at_kept(one[name], kept), at_kept(values, kept), offsets.get(name))
        return Judged(
            metric=self.total(found),
            worse=self.loss(scored, found),
            noise=self.noise(scored, found),
            sqnr_db=ratio.db,
            file_bytes=path.stat().st_size,  # small models: weights stand in the file itself
            scored=found,
        )

    @cached_property
    def _offsets(self) -> dict[str, Any]:
        return dict(output_offsets(Artifact.open(self.path).float32_graph()))


def trained_models(
    folder: Path, names: tuple[str, ...] = NAMES, seeds: tuple[int, ...] = SEEDS
) -> list[Trained]:
    """Return models, trained where they are not yet; all of a seed before those of the next."""
    folder.mkdir(parents=True, exist_ok=True)
    found = [Trained(name, seed, folder) for seed in seeds for name in names]
    for item in found:
        item.make()
    return found


def main() -> None:
    """Train, and print what was reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=MODELS)
    parser.add_argument("--only", choices=NAMES, nargs="+", default=list(NAMES))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    arguments = parser.parse_args()
    for seed in arguments.seeds:
        for name in arguments.only:
            (model,) = trained_models(arguments.folder, (name,), (seed,))
            task = model.subject.task
            print(f"{model.stem}: {task.metric} {model.metric:.4f}, data {model.data}", flush=True)


if __name__ == "__main__":
    main()
