"""The check of a staged file against its float source, which writing calls."""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from loopedge.artifact.artifact import open_artifact
from loopedge.deployment.optimizers import nothing_to_optimize
from loopedge.files.scratch import never_named
from loopedge.graph.core.names import loop_name
from loopedge.graph.inputs import axes_of, sample_count
from loopedge.graph.integer_weights.block_weights import BlockWeights
from loopedge.graph.metadata import ITERATIONS_OUTPUT, Metadata, read_metadata
from loopedge.graph.offsets import OutputOffsets
from loopedge.graph.weights import linears
from loopedge.quantizer.activations.smoothing import rescaled_products
from loopedge.quantizer.choice.recorded import recorded
from loopedge.quantizer.floors import Floors
from loopedge.quantizer.held_out.measurement import HeldOutResult, measure_held_out
from loopedge.quantizer.held_out.samples import HeldOut
from loopedge.quantizer.noise import Feeds, QuantizationNoise, generated_batches, outputs_db
from loopedge.quantizer.recipe import Recipe, Rewritten
from loopedge.quantizer.schemes.weight_only import WEIGHT_BITS
from loopedge.quantizer.source import FloatSource
from loopedge.quantizer.timing import TimeRatio, time_against
from loopedge.quantizer.whole_and_written import compare_whole_and_written
from loopedge.runtime.session import Session

__all__ = ["SourceCheck", "quantization_fields"]


@dataclass(slots=True, kw_only=True)
class SourceCheck:
    """Compares a staged file with its float source when it is called, and keeps what it measured.

    Args:
        source: The float model.
        recipe: How it was quantized.
        rewritten: What the recipe made of it.
        graph: The quantized graph, as it is written.
        metadata: What the file shall say of itself, but for what is measured.
        floors: How far it may be from its source.
        held_out: Samples to compare on; None: generated ones.
        threads: Threads of ONNX Runtime.

    Attributes:
        exit_note: How often rounding moved an early exit, where there is one.
        seconds: How long it took.
    """

    source: FloatSource
    recipe: Recipe
    rewritten: Rewritten
    graph: ir.Model
    metadata: Metadata
    floors: Floors
    held_out: HeldOut | None
    threads: int | None
    exit_note: list[str] = field(default_factory=list, init=False)
    seconds: float = field(default=0.0, init=False)
    _measured: tuple[QuantizationNoise, TimeRatio, HeldOutResult] | None = field(
        default=None, init=False
    )

    @property
    def noise(self) -> QuantizationNoise:
        """The SQNR, once the file was compared."""
        assert self._measured is not None  # writing calls the check
        return self._measured[0]

    @property
    def time_ratio(self) -> TimeRatio:
        """The time of one inference against the source's, once the file was compared."""
        assert self._measured is not None
        return self._measured[1]

    @property
    def measured(self) -> HeldOutResult:
        """The metric and the SQNR of the samples, once the file was compared."""
        assert self._measured is not None
        return self._measured[2]

    def __call__(self, staged: Path) -> Metadata | None:
        with never_named(staged.parent, "the quantized file"):
            return self._compare(staged)

    def _compare(self, staged: Path) -> Metadata | None:
        begun = time.perf_counter()
        source = self.source
        factors = self.recipe.table.factors() if self.recipe.table else {}
        batches = self._generated() if self.held_out is None else self.held_out.few()
        noise = compare_whole_and_written(
            source.graph,
            open_artifact(staged),
            staged.parent,
            inputs=batches,
            random_rows=self.recipe.scheme != "static",
            rescaled=rescaled_products(source.graph, factors),
            moved=self.rewritten.moved,
            threads=self.threads,
        )
        measured = self._measure(staged, noise, batches)
        noise = replace(noise, sqnr_db=measured.sqnr_db)
        self.floors.check(noise, measured)
        feeds = batches[-1] if self.held_out is None else batches[0]
        ratio = time_against(source.reference.path, staged, feeds, threads=self.threads)
        if self.metadata.exit is not None:
            self.exit_note = [_exit_note(source.path, staged, feeds, self.threads)]
        source.artifact.check_unchanged()
        self._measured = noise, ratio, measured
        self.seconds = time.perf_counter() - begun
        return None if self.metadata.foreign else self._describe(staged, noise, measured)

    def _generated(self) -> list[Feeds]:
        """Return generated inputs, of the lengths that static ranges were found on."""
        table = self.recipe.table
        lengths = table.lengths if table is not None and self.recipe.scheme == "static" else []
        return generated_batches(self.source.graph, lengths)

    def _measure(
        self, staged: Path, noise: QuantizationNoise, batches: Sequence[Feeds]
    ) -> HeldOutResult:
        """Measure the file as it runs; what an early exit leaves out is no noise."""
        source, held_out = self.source, self.held_out
        if held_out is None:
            axes, sqnr_db = axes_of(source.graph), noise.sqnr_db
            if (
                self.metadata.exit is None
            ):  # against the file itself, not the graph that was made of it to work on
                sqnr_db = outputs_db(
                    source.reference.graph,
                    open_artifact(staged),
                    staged.parent,
                    inputs=batches,
                    threads=self.threads,
                )
            return HeldOutResult(
                source="generated",
                samples=sum(sample_count(feeds, axes) for feeds in batches),
                sqnr_db=sqnr_db,
                clipped={},
            )
        done = {*self.rewritten.coverage.quantized} - {*self.rewritten.weight_only}
        ranged = {i.name for i in self.rewritten.treatments if i.treatment == "dynamic"}
        clipped = {name: shares for name, shares in held_out.clipped.items() if name not in ranged}
        measured = measure_held_out(
            source.reference.path,
            staged,
            replace(held_out, clipped=_of_linears(source.graph, clipped, done)),
            offsets=OutputOffsets(source.graph),
            threads=self.threads,
        )
        if self.metadata.exit is None:
            return measured
        whole = outputs_db(
            source.graph,
            open_artifact(staged),
            staged.parent,
            inputs=held_out.batches,
            threads=self.threads,
        )
        return replace(measured, sqnr_db=whole)

    def _describe(
        self, staged: Path, noise: QuantizationNoise, measured: HeldOutResult
    ) -> Metadata:
        """Return what the file says of itself, with what was measured."""
        held = self.graph.graph.initializers
        idle = self.metadata.memory == "low" and nothing_to_optimize(staged)
        quantization = quantization_fields(self.recipe, self.rewritten, measured, self.source.graph)
        if noise.states:
            quantization["state_cosines"] = [state.to_metadata() for state in noise.states]
        return read_metadata(self.graph.metadata_props).model_copy(
            update={
                "quantization": quantization,
                "tables": [name for name in self.metadata.tables if name in held],
                "optimized": idle,
            }
        )


def _of_linears(
    model: ir.Model, clipped: Mapping[str, list[float]], nodes: Collection[str]
) -> dict[str, list[float]]:
    """Keep what clips at linears whose inputs are rounded; a file may hold them in float all the same."""
    names = {loop_name(item.node) for item in linears(model) if item.node.name in nodes}
    return {name: shares for name, shares in clipped.items() if name in names}


def _exit_note(source: Path, quantized: Path, feeds: Mapping[str, Any], threads: int | None) -> str:
    """Say how often rounding moved an early exit; SQNR is measured over all iterations."""
    before, after = (
        Session(path, threads=threads).run(feeds)[ITERATIONS_OUTPUT] for path in (source, quantized)
    )
    return (
        f"{int((before != after).sum())} of {before.size} batch rows stop at another iteration than in "
        "float; the SQNR is measured without early exit"
    )


def quantization_fields(
    recipe: Recipe, rewritten: Rewritten, measured: HeldOutResult, source: ir.Model
) -> dict[str, Any]:
    """Return what a file says of its quantization.

    Args:
        recipe: How it was quantized.
        rewritten: What the recipe made of it.
        measured: What it does on samples.
        source: The float graph.
    """
    fields: dict[str, Any] = {
        "scheme": recipe.scheme,
        "quantized": len(rewritten.coverage.quantized),
        "total": rewritten.coverage.total,
        "sqnr_db": measured.sqnr_db,
        "measured_on": measured.source,
        "measured_samples": measured.samples,
        "treatments": [asdict(item) for item in rewritten.treatments],
        "recipe": recorded(recipe, source),
    }
    if measured.metric is not None:
        fields |= {
            "metric": measured.metric,
            "float_score": measured.float_score,
            "score": measured.score,
            "loss": measured.loss,
            "loss_error": measured.loss_error,
            "moved": measured.moved,
        }
    table = recipe.table
    if table is not None and recipe.scheme == "static":
        fields |= {
            "ranges": table.granularity,
            "method": table.method,
            "samples": table.samples,
            "data_sha256": table.data_sha256,
        }
    if recipe.scheme in WEIGHT_BITS or rewritten.weight_only:
        bits = {8} if rewritten.weight_only else set()
        bits |= {WEIGHT_BITS[recipe.scheme]} if recipe.scheme in WEIGHT_BITS else set()
        sizes = {
            str(each): BlockWeights(each, recipe.block_size).block_size for each in sorted(bits)
        }
        fields |= {"weight_only": rewritten.weight_only, "block_size": sizes}
    if recipe.rounding is not None:
        fields["rounding"] = recipe.rounding.summary
    if recipe.refined is not None:
        fields["refined"] = recipe.refined.summary
    return fields
