"""Rows of what was measured on trained models: judged, kept in a JSON file, written as Markdown."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnxruntime as ort
from trained import NAMES, Judged, Trained

from loopedge.runtime.processor import this_processor
from loopedge.tasks.metrics import Tally

__all__ = ["Row", "Rows"]


@dataclass(frozen=True, slots=True)
class Row:
    """A file of a model, on the test part; ``failed``: why there is none.

    ``worse`` is against float, in the metric's unit, and ``noise`` how much of that may be chance;
    ``worse_than_unrefined``: by how much the metric got worse by refining, beyond noise. ``chosen``: the candidate that
    quantization chose.
    """

    model: str
    name: str
    metric_name: str
    float_metric: float
    metric: float = float("nan")
    worse: float = float("nan")
    noise: float = float("nan")
    sqnr_db: float = float("nan")
    file_bytes: int = 0
    seconds: float = 0.0
    worse_than_unrefined: float | None = None
    chosen: str = ""
    failed: str = ""
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def lost(self) -> bool:
        """Whether the metric is worse than float's by more than its noise."""
        return self.worse > max(0.0, self.noise)

    @property
    def cell(self) -> str:
        """Metric and SQNR, as a table shows them."""
        if self.failed:
            return "failed"
        text = f"{self.metric:.4f}"
        return f"{f'**{text}**' if self.lost else text} ({self.sqnr_db:.1f})"

    @property
    def line(self) -> str:
        """The row, as it is printed while it is measured."""
        took = f", {self.seconds:.1f} s" if self.seconds else ""
        what = self.failed or f"{self.cell}, float {self.float_metric:.4f}{took}"
        return f"{self.model}: {self.name}: {what} {self.chosen}".rstrip()


class Rows:
    """What was measured, by model and name.

    Args:
        folder: Where it is kept; None: nowhere.
        stem: What the files are called.
        rows: What is there already.
    """

    def __init__(self, folder: Path | None, stem: str, rows: list[Row]) -> None:
        self.folder, self.stem, self.rows = folder, stem, rows

    @classmethod
    def open(cls, folder: Path | None, stem: str, *, again: bool) -> Self:
        """Read what an earlier run wrote."""
        path = None if folder is None else folder / f"{stem}.json"
        if path is None or again or not path.exists():
            return cls(folder, stem, [])
        stored = json.loads(path.read_text(encoding="utf-8"))["rows"]
        return cls(folder, stem, [Row(**row) for row in stored])

    def has(self, model: Trained, name: str) -> bool:
        """Tell whether a row is there."""
        return self.get(model.stem, name) is not None

    def get(self, stem: str, name: str) -> Row | None:
        """Return a row."""
        return next((row for row in self.rows if (row.model, row.name) == (stem, name)), None)

    def of(self, name: str) -> list[Row]:
        """Return the rows of a name that did not fail."""
        return [row for row in self.rows if row.name == name and not row.failed]

    def stems(self) -> list[str]:
        """Return the models, in the order of their subjects."""
        found = dict.fromkeys(row.model for row in self.rows)
        order = [name.replace(" ", "-") for name in NAMES]
        return sorted(found, key=lambda stem: (order.index(stem.rpartition(".")[0]), stem))

    def subject_of(self, stem: str) -> str:
        """Return the subject's name of a model."""
        return stem.rpartition(".")[0].replace("-", " ")

    def gains(self, before: str, after: str) -> dict[str, float]:
        """Return by model how many dB the one is above the other."""
        return {
            row.model: row.sqnr_db - earlier.sqnr_db
            for row in self.of(after)
            if (earlier := self.get(row.model, before)) is not None and not earlier.failed
        }

    def judged(
        self,
        model: Trained,
        name: str,
        path: Path,
        *,
        seconds: float = 0.0,
        result: dict[str, Any] | None = None,
        judged: Judged | None = None,
        more: dict[str, Any] | None = None,
    ) -> Row:
        """Judge a file and keep the row."""
        found = judged or model.judge(path)
        self._keep_scored(model, name, found.scored)
        row = Row(
            model=model.stem,
            name=name,
            metric_name=model.subject.task.metric,
            float_metric=model.metric,
            metric=found.metric,
            worse=found.worse,
            noise=found.noise,
            sqnr_db=found.sqnr_db,
            file_bytes=found.file_bytes,
            seconds=round(seconds, 2),
            chosen=chosen_of(result or {}),
            more=more or {},
        )
        return self._keep(row)

    def failed(self, model: Trained, name: str, error: BaseException | str) -> Row:
        """Keep why there is no file."""
        reason = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
        row = Row(
            model=model.stem,
            name=name,
            metric_name=model.subject.task.metric,
            float_metric=model.metric,
            failed=" ".join(reason.split())[:300],
        )
        return self._keep(row)

    def compare(self, model: Trained, before: Row, after: Row) -> None:
        """Note by how much the later row's metric is worse than the earlier one's, beyond noise."""
        if before.failed or after.failed:
            return
        one, other = (self._scored_of(model, row.name) for row in (before, after))
        beyond = model.loss(one, other) - model.noise(one, other)
        self._keep(replace(after, worse_than_unrefined=max(0.0, beyond)))

    def _keep_scored(self, model: Trained, name: str, scored: list[Tally]) -> None:
        """Keep what a row's metric is made of, beside the models: a later run compares others with it."""
        path = _scored_path(model, name)
        path.parent.mkdir(exist_ok=True)
        text = json.dumps(
            [{key: np.asarray(value).tolist() for key, value in tally.items()} for tally in scored]
        )
        path.write_text(text, encoding="utf-8")

    def _scored_of(self, model: Trained, name: str) -> list[Tally]:
        text = _scored_path(model, name).read_text(encoding="utf-8")
        return [
            {key: np.asarray(value) for key, value in tally.items()} for tally in json.loads(text)
        ]

    def _keep(self, row: Row) -> Row:
        key = (row.model, row.name)
        self.rows = [one for one in self.rows if (one.model, one.name) != key] + [row]
        return row

    def save(self) -> None:
        """Write the JSON."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        content = {
            "machine": this_processor().name,
            "onnxruntime": ort.__version__,
            "rows": [asdict(row) for row in self.rows],
        }
        text = json.dumps(content, indent=1, default=str) + "\n"
        (self.folder / f"{self.stem}.json").write_text(text, encoding="utf-8")

    def write(self, lines: list[str]) -> None:
        """Write both files."""
        self.save()
        if self.folder is not None:
            head = f"{this_processor().name}, ONNX Runtime {ort.__version__}, one thread."
            text = "\n".join([head, "", *lines]) + "\n"
            (self.folder / f"{self.stem}.md").write_text(text, encoding="utf-8")


def chosen_of(result: dict[str, Any]) -> str:
    """Return the candidate that quantization says it chose, and the step that refining took."""
    rounding, refined = result.get("rounding") or {}, result.get("refined") or {}
    parts = [str(rounding.get("chosen", ""))]
    if refined:
        parts.append(f"step {refined['best_step']} of {refined['steps']}")
    return ", ".join(part for part in parts if part)


def _scored_path(model: Trained, name: str) -> Path:
    """Return where a row's scores stand: names of several linears hold slashes, and may be too long for a file."""
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return model.folder / "scored" / f"{model.stem}.{digest}.json"
