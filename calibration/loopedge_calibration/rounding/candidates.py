"""Every weight, rounded in each of several ways; a part of the Hessians is in memory at a time."""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.files.scratch import never_named
from loopedge.graph.core.names import loop_name
from loopedge.graph.integer_weights.blocks import Blocks
from loopedge.graph.integer_weights.gptq import DAMPING, Gptq
from loopedge.graph.weights import linears
from loopedge_calibration.options import CollectOptions
from loopedge_calibration.probes import linears_by_name, same_activation
from loopedge_calibration.readers import SampleBatch
from loopedge_calibration.rounding.hessians import HessianSums, collect_hessians
from loopedge_calibration.rounding.weightings import WEIGHTINGS, IterationErrors, Weighting

__all__ = [
    "CANDIDATES",
    "LARGE_CANDIDATES",
    "Candidate",
    "Rounder",
    "StoredBlocks",
    "Subject",
    "is_large",
    "subjects_of",
]

Array = npt.NDArray[Any]

HESSIAN_BYTES = 256 * 2**20
"""Of all Hessians at once; more are found in several passes over the data."""


STRONG_DAMPING = 0.1
"""Better in two bits and where samples are few: 10.3 against 8.1 dB on sorting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A way to round all weights: `Gptq` and `weightings` say what the fields mean."""

    weighting: Weighting
    act_order: bool = True
    damping: float = DAMPING
    fits: bool = False

    @property
    def name(self) -> str:
        """What results call it."""
        order = "" if self.act_order else "/in-order"
        damping = "" if self.damping == DAMPING else f"/damped-{self.damping:g}"
        return f"gptq/{self.weighting}{order}{damping}{'/fitted' if self.fits else ''}"

    def variants(self, *, large: bool) -> list["Candidate"]:
        """Return what is tried where this one does best; of a large model less."""
        fitted, other = replace(self, fits=True), STRONG_DAMPING
        if self.damping == STRONG_DAMPING:
            other = DAMPING
        return [fitted] if large else [fitted, replace(self, damping=other)]


CANDIDATES = (
    *(Candidate(weighting=weighting) for weighting in WEIGHTINGS),
    Candidate(weighting="uniform", act_order=False),
    Candidate(weighting="uniform", damping=STRONG_DAMPING),
)
"""Tried first, beside rounding to nearest; of the best `Candidate.variants` then."""
LARGE_CANDIDATES = (
    *(Candidate(weighting=weighting) for weighting in ("uniform", "normalised", "output-error")),
)
"""The same of a large model: each takes seconds."""
LARGE = 2e9
"""Products that rounding takes, inputs^2 x outputs of all weights, from which on a model is large."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBlocks:
    """How a recipe stores a weight in blocks."""

    bits: int
    block_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A weight that is to be rounded: how it is stored, its axis of outputs, and the linears that show what it reads.

    ``groups``: of the linears that read one value the first, by name; a weight that several linears read may have several.
    """

    weight: ir.Value
    stored: StoredBlocks
    axis: int
    groups: tuple[str, ...]

    @property
    def rows(self) -> Array:
        """The weight, float32 (outputs, inputs)."""
        if self.weight.const_value is None:
            raise ValueError(f"{self.weight.name} is not a stored weight")
        values = self.weight.const_value.numpy()
        return values if self.axis == 0 else values.T

    @property
    def inputs(self) -> int:
        """Values of a row."""
        return int(self.rows.shape[1])


def is_large(subjects: Sequence[Subject]) -> bool:
    """Tell whether rounding takes so long that fewer ways are tried; by sizes alone, whatever the machine does."""
    return sum(subject.inputs**2 * len(subject.rows) for subject in subjects) > LARGE


def stored_blocks(model: ir.Model) -> dict[str, StoredBlocks]:
    """Return which weights of a quantized graph stand in blocks, by name."""
    found: dict[str, StoredBlocks] = {}
    for node in model.graph.all_nodes():
        weight = node.inputs[1] if node.op_type == "MatMulNBits" else None
        if weight is not None and weight.name:
            attributes = node.attributes
            found[weight.name] = StoredBlocks(
                bits=attributes["bits"].as_int(), block_size=attributes["block_size"].as_int()
            )
    return found


def subjects_of(model: ir.Model, quantized: ir.Model) -> tuple[list[Subject], list[str]]:
    """Return the weights that can be rounded by data, and the names of those that no linear shows the inputs of.

    Args:
        model: The float graph.
        quantized: The same, with its weights in blocks.
    """
    stored, seen = stored_blocks(quantized), linears_by_name(model)
    first = {name: group for group, names in same_activation(seen, model).items() for name in names}
    axes: dict[ir.Value, int] = {}
    groups: dict[ir.Value, dict[str, None]] = {}
    for item in linears(model):
        axes.setdefault(item.weight, item.index)
        own = groups.setdefault(item.weight, {})
        name = loop_name(item.node)
        if name in first and seen[name].weight is item.weight:
            own[first[name]] = None
    subjects, unseen = [], []
    for weight, axis in axes.items():
        blocks = stored.get(weight.name or "")
        if blocks is None:
            continue
        if not groups[weight]:
            unseen.append(weight.name or "")
            continue
        subjects.append(
            Subject(weight=weight, stored=blocks, axis=axis, groups=tuple(groups[weight]))
        )
    return subjects, unseen


class Rounder:
    """Rounds the weights of a model.

    Args:
        model: The float graph.
        subjects: The weights.
        batches: The samples, as often as they are asked for.
        options: Threads, and the bytes of activations at once.
        errors: How much each iteration counts.
        hessian_bytes: Most bytes of Hessians at once.
    """

    def __init__(
        self,
        model: ir.Model,
        subjects: Sequence[Subject],
        batches: Iterable[SampleBatch],
        options: CollectOptions,
        *,
        errors: IterationErrors,
        hessian_bytes: int = HESSIAN_BYTES,
    ) -> None:
        self._model, self._subjects, self._batches = model, subjects, batches
        self._options, self._errors, self._most = options, errors, hessian_bytes
        self._kept: dict[str, HessianSums] = {}

    def round(self, candidates: Sequence[Candidate]) -> dict[Candidate, dict[str, Blocks]]:
        """Round all weights in every way; Hessians that fit at once are kept for the next time."""
        weightings = tuple(dict.fromkeys(item.weighting for item in candidates))
        rounded: dict[Candidate, dict[str, Blocks]] = {item: {} for item in candidates}
        parts = _parts(self._subjects, len(weightings), self._most)
        for part in parts:
            sums = self._kept or self._sums(part, weightings)
            if len(parts) == 1:
                self._kept = sums
            for candidate in candidates:
                rounded[candidate] |= _round(part, sums, candidate)
        return rounded

    def _sums(
        self, part: Sequence[Subject], weightings: tuple[Weighting, ...]
    ) -> dict[str, HessianSums]:
        """Find the Hessians of some weights; one that would not fit is of the first weighting alone."""
        groups: dict[str, Sequence[Weighting]] = {}
        for subject in part:
            fitting = max(1, self._most // (4 * subject.inputs**2 * len(subject.groups)))
            groups |= dict.fromkeys(subject.groups, weightings[:fitting])
        with (
            tempfile.TemporaryDirectory(prefix="loopedge.") as folder,
            never_named(Path(folder), "the model"),
        ):
            return collect_hessians(
                self._model,
                self._batches,
                Path(folder),
                self._options,
                groups=groups,
                errors=self._errors,
            )


def _round(
    subjects: Sequence[Subject], sums: Mapping[str, HessianSums], candidate: Candidate
) -> dict[str, Blocks]:
    """Round weights in one way; those that read one value share what is prepared for it."""
    prepared: dict[tuple[str, ...], Gptq] = {}
    found = {}
    for subject in subjects:
        if subject.groups not in prepared:
            own = [sums[group] for group in subject.groups]
            weighting = candidate.weighting
            if not all(weighting in each.weightings for each in own):
                weighting = own[0].weightings[0]
            prepared = {
                subject.groups: Gptq.of(
                    _sum([each.sums[weighting] for each in own]),
                    damping=candidate.damping,
                    act_order=candidate.act_order,
                )
            }
        found[subject.weight.name or ""] = prepared[subject.groups].round(
            subject.rows,
            bits=subject.stored.bits,
            block_size=subject.stored.block_size,
            fits=candidate.fits,
        )
    return found


def _sum(hessians: Sequence[Array]) -> Array:
    if len(hessians) == 1:
        return hessians[0]
    return np.asarray(np.sum(hessians, axis=0))


def _parts(subjects: Sequence[Subject], weightings: int, most: int) -> list[list[Subject]]:
    """Divide weights so that the Hessians of each part fit, those that read one value together."""
    whole = _connected(subjects)
    parts: list[list[Subject]] = []
    size = 0
    for together in whole:
        widths = {group: subject.inputs for subject in together for group in subject.groups}
        needed = sum(4 * weightings * inputs**2 for inputs in widths.values())
        if not parts or size + needed > most:
            parts.append([])
            size = 0
        parts[-1] += together
        size += needed
    return parts


def _connected(subjects: Sequence[Subject]) -> list[list[Subject]]:
    """Return the weights by what they read: two that share a group are in one list."""
    lists: list[tuple[set[str], list[Subject]]] = []
    for subject in subjects:
        names, own = set(subject.groups), [subject]
        apart = []
        for known, others in lists:
            if known.isdisjoint(names):
                apart.append((known, others))
            else:
                names |= known
                own = [*others, *own]
        lists = [*apart, (names, own)]
    return [own for _, own in lists]
