"""Which samples calibrate, which choose and which judge: never the same ones, all evenly spread over the data."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from loopedge.artifact.companions import read_companions
from loopedge.data.split import Split
from loopedge.errors import InputError
from loopedge.files.table_names import is_table
from loopedge.graph.inputs import axes_of, input_specs, scaling_of
from loopedge.graph.metadata import read_metadata
from loopedge.options import option
from loopedge.quantizer.held_out.samples import HeldOut, Judge, Kind
from loopedge.quantizer.options import Data
from loopedge.runtime.inputs import ModelInputs
from loopedge.tasks.task import Task, task_from_dict
from loopedge_calibration.loop_counts import LoopCounts
from loopedge_calibration.readers import (
    BATCH,
    Indices,
    SampleBatch,
    Source,
    array_source,
    data_files,
    holds_arrays,
)
from loopedge_calibration.roles import (
    HELD_OUT,
    Taken,
    chooses,
    even_blocks,
    judges,
    left_to_calibrate,
    odd_blocks,
)
from loopedge_calibration.survey import Survey, sample_digests

__all__ = [
    "TASK_SAMPLES",
    "Part",
    "Samples",
    "all_samples",
    "described_task",
    "sample_inputs",
    "survey_of",
]

TASK_SAMPLES = 512
"""Most samples of a task's validation part that a model is measured on."""
ONE_SAMPLE = "SQNR and metric are those of one sample, which says little of others"
CHOSE_TOO = (
    "chosen on the samples that calibrated, which flatters: the data holds no others to choose on"
)
NOTHING_HELD_OUT = "nothing could be held out: SQNR and metric are those of the samples that calibrated, and flatter"


def sample_inputs(model: ir.Model) -> ModelInputs:
    """Return what samples of a model must hold: its inputs but for those that choose how it runs."""
    found = ModelInputs.of("the model", input_specs(model), read_metadata(model.metadata_props))
    return replace(found, specs={name: found.specs[name] for name in found.sampled})


def survey_of(model: ir.Model) -> Survey:
    """Return a survey of samples of a model, none noted yet."""
    scales = {
        value.name or "": scale
        for value in model.graph.inputs
        if (scale := scaling_of(value, "input_scale")) is not None
    }
    return Survey(expected=sample_inputs(model), scales=scales)


def described_task(model: ir.Model, data: object, artifact: str | Path | None) -> Task | None:
    """Return the task that a model was trained on; None where the model does not say.

    Args:
        model: The artifact's graph.
        data: What the task reads; arrays are not for the task.
        artifact: The model's file, beside which a tokenizer stands where the task needs one.

    Raises:
        InputError: The task needs other data, or its tokenizer is not there.
    """
    metadata = read_metadata(model.metadata_props)
    if not metadata.task:
        return None
    path = data if isinstance(data, str | Path) and not holds_arrays(data) else None
    companions = {} if artifact is None else read_companions(artifact, metadata)
    return task_from_dict(metadata.task, data=path, companions=companions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Some of the samples, as often as they are asked for: checked, as the model takes them.

    Args:
        expected: The inputs of the model.
        counts: Those that count its iterations.
        read: Yields the samples as they stand in the data.
        left_out: Hashes of samples that are not to come.
        total: Samples that there are in the data for this part; None: as many as one likes.
        alone: There is one sample in all of the data, which needs no number.
    """

    expected: ModelInputs
    counts: LoopCounts
    read: Callable[[], Iterator[SampleBatch]]
    left_out: frozenset[bytes] = frozenset()
    total: int | None = None
    alone: bool = False

    def __iter__(self) -> Iterator[SampleBatch]:
        """Yield batches.

        Raises:
            InputError: A batch does not fit the model, as `ModelInputs.accept` says.
        """
        for batch in self.read():
            accepted = self.expected.accept(
                self.counts.taken_out(batch.feeds),
                source=batch.source,
                seed=None,
                numbers=None if self.alone else batch.numbers,
                calibrates=True,
            ).arrays
            feeds = {name: np.ascontiguousarray(array) for name, array in accepted.items()}
            checked = replace(batch, feeds=feeds)
            if self.left_out:
                kept = np.array([each not in self.left_out for each in sample_digests(feeds)])
                if not kept.any():
                    continue
                if len(kept) > 1 and not kept.all():
                    checked = checked.rows(kept)
            yield replace(checked, feeds={**checked.feeds, **self.counts.fed(batch.feeds)})


def fixed_batch(model: ir.Model) -> int | None:
    """Return the batch size that a model fixes; None where it takes any."""
    for name, sizes in axes_of(model).items():
        if name not in model.graph.initializers and sizes and isinstance(sizes[0], int):
            return sizes[0]
    return None


def all_samples(
    data: Data, model: ir.Model, samples: int | None, *, loops: int | None = None
) -> Part:
    """Return the samples of data, evenly thinned to so many; an iterator is read into memory.

    Raises:
        InputError: A file is missing or cannot be used, or the data is of another kind.
    """
    expected = sample_inputs(model)
    source = array_source(data, expected, fixed=fixed_batch(model))
    chosen = _thinned(np.arange(source.total), samples)
    return Part(
        expected=expected,
        counts=LoopCounts.of(model, loops),
        read=lambda: source.read(chosen),
        total=source.total,
        alone=source.total == 1,
    )


def _thinned(places: Indices, most: int | None) -> Indices:
    """Return at most so many places, evenly spread."""
    if most is None or len(places) <= most:
        return places
    return places[np.linspace(0, len(places) - 1, most).round().astype(np.int64)]


class Samples:
    """What a user names as data, split into samples that calibrate and samples that judge.

    A task has parts: the training part calibrates, the validation part judges. Of arrays every fourth sample
    judges, of fewer the last. What judges does not depend on the scheme. Where something is chosen, a scheme, how
    weights are rounded or what is lifted, samples of their own do that: of the validation part blocks of twice as many
    samples, in turns with those that judge; of arrays a quarter, which does not calibrate.

    Args:
        data: As `loopedge.quantize` says; None: the generated task that the model was trained on.
        model: The artifact's graph.
        samples: Most samples that calibrate, and most of arrays that judge.
        artifact: The model's file.
        loops: Iterations to run where an input counts them; None: as exported, or as the data says.
        metric: As `loopedge.quantize` says: ``task`` judges on the task, whatever calibrates.
        scores: Whether the model's outputs answer the task.
        chooses: Whether some samples choose.

    Attributes:
        task: What judges; None for arrays.
        calibrating: Samples that calibrate.
        choosing: Samples that choose; None where none do.
        notes: What a person should know of the data, a line each.

    Raises:
        InputError: The data is missing, cannot be used, or the model does not say what it was trained on.
    """

    def __init__(
        self,
        data: Data | None,
        model: ir.Model,
        *,
        samples: int,
        artifact: str | Path | None = None,
        loops: int | None = None,
        metric: str | None = None,
        scores: bool = True,
        chooses: bool = False,
    ) -> None:
        self.choosing: Part | None = None
        self._chooses = chooses
        self._counts = LoopCounts.of(model, loops)
        self.samples, self._model, self._scores = samples, model, scores
        self._expected = sample_inputs(model)
        self._names = self._expected.sampled
        self.task: Task | None = None
        self._judging: Part | None
        self._apart = False
        path = Path(data) if isinstance(data, str | Path) else None
        if path is not None and not path.exists():
            raise InputError(f"{path} does not exist", hint=option("data", "samples.npz"))
        if path is not None and path.is_dir() and not data_files(path):
            raise InputError(
                f"the folder {path} holds no .npz and no text", hint=option("data", "samples.npz")
            )
        self._name = None if path is None else path.name
        self.notes: tuple[str, ...] = ()
        arrays = data is not None and (path is None or holds_arrays(path))
        if not arrays:
            self.task = described_task(model, data, artifact)
            if self.task is None and (path is None or not is_table(path)):
                raise InputError(
                    "the model does not say what it was trained on",
                    hint=option("data", "samples.npz"),
                )
        if self.task is not None:
            self.notes = tuple(self.task.notes)
            self.calibrating, judging = self._parts_of_task(self.task)
            self._judging, self._apart = judging, not self.task.named_parts
            return
        assert data is not None
        source = array_source(data, self._expected, fixed=fixed_batch(model))
        self.notes = source.notes
        self.calibrating, self._judging = self._parts_of_arrays(source)
        if metric == "task":
            self.task = described_task(model, data, artifact)
            if self.task is not None:
                self._judging = self._parts_of_task(self.task)[1]

    def _parts_of_arrays(self, source: Source) -> tuple[Part, Part | None]:
        places = np.arange(source.total)
        total = source.total
        judging = judges(places, total) if total > 1 else np.zeros(total, np.bool_)
        if self._chooses and total >= HELD_OUT:
            self.choosing = self._part(source, places[chooses(places, total)])
        calibrating = self._part(
            source, places[~judging & left_to_calibrate(self._chooses)(places, total)]
        )
        return calibrating, self._part(source, places[judging]) if judging.any() else None

    def _part(self, source: Source, places: Indices) -> Part:
        chosen = _thinned(places, self.samples)
        return Part(
            expected=self._expected,
            counts=self._counts,
            read=lambda: source.read(chosen),
            total=len(places),
            alone=source.total == 1,
        )

    def _parts_of_task(self, task: Task) -> tuple[Part, Part]:
        if task.named_parts:  # the data is one of the parts: it is all there is
            there = task.available("validation") or 0
            most = min(there, max(2, self.samples * HELD_OUT // (HELD_OUT - 1)))
            if self._chooses and most >= HELD_OUT:
                self.choosing = self._task_part(task, "validation", most, chooses)
            return (
                self._task_part(task, "validation", most, left_to_calibrate(self._chooses)),
                self._task_part(task, "validation", most, judges),
            )
        training = self._task_part(task, "train", self.samples)
        most = 2 * TASK_SAMPLES
        most = min(most, task.available("validation") or most)
        if not self._chooses or most < 2:
            return training, self._task_part(task, "validation", TASK_SAMPLES)
        self.choosing = self._task_part(task, "validation", most, even_blocks)
        return training, self._task_part(task, "validation", most, odd_blocks)

    def _task_part(self, task: Task, split: Split, most: int, taken: Taken | None = None) -> Part:
        """Return samples of a split: so many at most, and of these the ones that are taken."""

        def read() -> Iterator[SampleBatch]:
            start = 0
            for batch in task.evaluation(split, BATCH, most):
                places = np.arange(start, start + len(batch.targets))
                start += len(places)
                found = SampleBatch(
                    feeds=batch.feeds(self._names),
                    numbers=tuple((places + 1).tolist()),
                    source=f"the {split} part" + (f" of {self._name}" if self._name else ""),
                    asked=batch,
                )
                if taken is None:
                    yield found
                    continue
                kept = taken(places, most)
                if kept.any():
                    yield found.rows(kept)

        return Part(
            expected=self._expected, counts=self._counts, read=read, total=task.available(split)
        )

    def held_out(self, *, calibrates: bool) -> HeldOut:
        """Return the samples that judge.

        Args:
            calibrates: Ranges are found on the others. What equals one of those judges under no scheme.

        Raises:
            InputError: The data cannot be used, as `Survey.check` says.
        """
        others, judged = survey_of(self._model), survey_of(self._model)
        chose = survey_of(self._model)
        judging = self._judging
        of_data = self.task is None or self.task.named_parts
        if calibrates or (judging is not None and not self._apart):
            for batch in self.calibrating:
                others.note(batch)
            others.check()  # its notes are the collector's
        if judging is not None and not self._apart:  # else the task keeps its parts apart
            for batch in self.choosing or ():
                chose.note(batch)
            judging = replace(judging, left_out=frozenset(others.digests | chose.digests))
        batches = [] if judging is None else list(judging)
        kind: Kind = "data" if of_data else "validation"
        notes = self.notes
        if not batches:
            batches = list(self.calibrating)
            if calibrates:
                kind, notes = "calibrating", (*notes, NOTHING_HELD_OUT)
        if not calibrates:
            for batch in batches:
                judged.note(batch)
            notes += (*judged.check(), *self._length_notes(judged))
        if sum(len(batch.numbers) for batch in batches) == 1:
            notes += (ONE_SAMPLE,)
        return HeldOut(
            kind=kind,
            batches=[batch.feeds for batch in batches],
            places=[tuple(map(batch.where, range(len(batch.numbers)))) for batch in batches],
            judge=self._judge(batches),
            calibrating=others.samples if calibrates else None,
            calibrating_of=self.calibrating.total if calibrates else None,
            notes=notes,
        )

    def chooser(self) -> HeldOut:
        """Return the samples that choose; where there are none of their own, those that calibrate.

        Raises:
            InputError: The data cannot be used.
        """
        choosing = self.choosing
        if choosing is not None and not self._apart:
            others = survey_of(self._model)
            for batch in self.calibrating:
                others.note(batch)
            choosing = replace(choosing, left_out=frozenset(others.digests))
        batches = list(choosing or ())
        kind: Kind = "data" if self.task is None or self.task.named_parts else "validation"
        if not batches:
            batches, kind = list(self.calibrating), "calibrating"
        return HeldOut(
            kind=kind,
            batches=[batch.feeds for batch in batches],
            places=[tuple(map(batch.where, range(len(batch.numbers)))) for batch in batches],
            judge=self._judge(batches),
            notes=(CHOSE_TOO,) if kind == "calibrating" else (),
        )

    def _length_notes(self, judged: Survey) -> list[str]:
        """Say that the longest of the samples is shorter than what the model was trained on."""
        if not judged.lengths:
            return []
        note = read_metadata(self._model.metadata_props).length_note(max(judged.lengths))
        return [] if note is None else [f"the longest sample: {note}"]

    def _judge(self, batches: list[SampleBatch]) -> Judge | None:
        asked = [batch.asked for batch in batches if batch.asked is not None]
        if self.task is None or not self._scores or len(asked) != len(batches):
            return None
        return Judge(task=self.task, batches=asked)
