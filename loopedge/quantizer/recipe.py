"""How a graph is to be quantized: a scheme, its ranges, and the linears that are treated otherwise."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.graph.core.cores import Cores
from loopedge.graph.core.names import loop_name
from loopedge.graph.integer_weights.block_weights import BlockWeights
from loopedge.graph.integer_weights.blocks import Blocks, best_block_size, quantize_blocks
from loopedge.graph.integer_weights.channels import INT8_LIMIT, REDUCED_LIMIT, quantize_weight
from loopedge.graph.integer_weights.embedding_rows import find_embeddings
from loopedge.graph.integer_weights.rounded_weights import Channels, RoundedWeights
from loopedge.graph.metadata import read_metadata
from loopedge.graph.passes.windows import fold_windows, round_before_windows
from loopedge.graph.weights import linears
from loopedge.options import by_face, option
from loopedge.quantizer.activations.gates import fold_gates
from loopedge.quantizer.activations.ranges import RangeTable, weights_sha256
from loopedge.quantizer.coverage import Coverage
from loopedge.quantizer.emulation import OtherRounding
from loopedge.quantizer.named_linears import core_like_nodes, kept_in_float, weight_only_nodes
from loopedge.quantizer.refined import Refined
from loopedge.quantizer.schemes.dynamic import DynamicWeights, quantize_dynamic
from loopedge.quantizer.schemes.operators import PAIRS
from loopedge.quantizer.schemes.pairs import check_pairs, quantize_pairs
from loopedge.quantizer.schemes.rewriting import Scheme, rewrite_linears
from loopedge.quantizer.schemes.rule import ByPlace, Large, Treated, treated, treated_by_place
from loopedge.quantizer.schemes.static import quantize_static
from loopedge.quantizer.schemes.targets import target_of
from loopedge.quantizer.schemes.weight_only import WEIGHT_BITS, check_weight_options
from loopedge.quantizer.weights.embedding import quantize_embeddings
from loopedge.quantizer.weights.rounding_result import RoundingResult

__all__ = ["BLOCKS_OPSET", "SCHEMES", "Recipe", "Rewritten", "check_one_loop"]

Array = npt.NDArray[Any]
LIFTED = "lifted for accuracy"
SCHEMES = ("static", "dynamic", *WEIGHT_BITS)
BLOCKS_OPSET = 23
"""Needs ONNX Runtime 1.23, the first release with all that reads blocks of eight bits: benchmarks/reach/versions.py."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewritten:
    """What a recipe made of a graph.

    ``kept`` are the nodes and tables that stay in float because the recipe's names or its rule say so,
    ``weight_only`` the nodes that became so beside another scheme, ``treatments`` all linears that are not treated
    as the scheme treats the core's; ``moved`` what linears gave before their gates were folded, and
    the value that they give now.
    """

    coverage: Coverage
    embeddings: Coverage
    kept: set[str]
    weight_only: list[str]
    treatments: list[Treated]
    moved: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a graph is to be quantized; the fields are those of `loopedge.quantize`.

    Args:
        scheme: One of `SCHEMES`.
        table: Calibrated ranges, for ``static``.
        ops: ``microsoft``, ``standard`` or ``qdq``.
        target: Of ``qdq``: the engine that the file is for; None: what most share.
        keep: Linears and tables that stay in float.
        weight_only: Linears whose weights alone are stored in eight bits.
        as_core: Linears that static int8 treats as the core's, wherever they stand; ``all``: every one.
        lifted: Those of ``keep`` and ``weight_only`` that a budget or a choice lifted, for the reason that is shown.
        block_size: Most values that share a scale in a weight-only linear; default: by the bits.
        reduce_range: Weights in seven bits.
        memory: The memory profile that the file will name; default: the source's.
        rounded: Weights whose integers were chosen already, by name; the others are rounded to nearest.
        rounding: How those were chosen by data, which the file will say; None where they were not.
        refined: How they were trained, which the file will say; None where they were not.
    """

    scheme: str
    table: RangeTable | None = None
    ops: str = "microsoft"
    target: str | None = None
    keep: tuple[str, ...] = ()
    weight_only: tuple[str, ...] = ()
    as_core: tuple[str, ...] = ()
    lifted: tuple[str, ...] = ()
    block_size: int | None = None
    reduce_range: bool = False
    memory: str | None = None
    rounded: RoundedWeights = field(default_factory=dict)
    rounding: RoundingResult | None = None
    refined: Refined | None = None

    def check_options(self, *, lifting: bool = False) -> None:
        """Refuse what does not go together.

        Args:
            lifting: Linears may still become weight-only: a block size is for those.

        Raises:
            InputError: The scheme cannot take an option, or lacks its ranges.
        """
        if self.scheme == "static" and self.table is None:
            ranges = by_face("--data samples.npz", "ranges= of loopedge_calibration.collect")
            raise InputError(
                "static int8 needs ranges", hint=f"{ranges}, or {option('scheme', 'dynamic')}"
            )
        if self.scheme == "dynamic" and self.table is not None:
            raise InputError(
                "dynamic finds its ranges while it runs: it takes none",
                hint=option("scheme", "static"),
            )
        if self.ops == PAIRS:
            check_pairs(self.scheme)
        blocks = self.block_size is not None
        by_place = self.scheme == "static" and self.ops == "microsoft"
        alone = self.weight_only and self.ops != PAIRS
        if self.scheme in WEIGHT_BITS or alone or (blocks and not (lifting or by_place)):
            check_weight_options(
                self.scheme,
                self.weight_only,
                ranges=self.table is not None,
                ops=self.ops,
                reduce_range=self.reduce_range,
            )

    def check_model(self, model: ir.Model, source: str | Path) -> None:
        """Refuse a graph that cannot be quantized so.

        Args:
            model: The graph.
            source: What errors call it.

        Raises:
            InputError: It is quantized already, holds a Loop inside another, has no float linear, holds a weight that is not
                finite, or is not the one that the ranges were found on.
        """
        metadata, hint = read_metadata(model.metadata_props), "loopedge export model.pt"
        if metadata.quantization is not None:
            raise InputError(f"{source} is quantized already", hint=hint)
        check_one_loop(model, source)
        if self.ops == PAIRS:
            target_of(self.target).check_opset(model.opset_imports.get("") or 0, source)
        if not linears(model):
            raise InputError(f"{source} has no float linear: nothing can be quantized", hint=hint)
        for item in linears(model):
            stored = item.weight.const_value
            if stored is not None and not np.isfinite(stored.numpy()).all():
                raise InputError(f"{source}: {item.weight.name} holds a value that is not finite")
        if self.table is not None:
            _check_ranges(self.table, model, source)

    def apply(self, model: ir.Model) -> Rewritten:
        """Quantize a float graph, in place.

        Raises:
            InputError: A name means no linear, or the table lacks one.
        """
        names = {node.name or "": loop_name(node) for node in model.graph.all_nodes()}
        plan = self._plan(model)
        keep, blocks = plan.kept, BlockWeights(8, self.block_size, rounded=self.rounded)
        if self.ops == PAIRS:
            return self._apply_pairs(model, plan, names)
        others: dict[str, Scheme] = dict.fromkeys(plan.packed, blocks)
        found_later = DynamicWeights(self._limit, ops=self.ops, rounded=self.rounded)
        others |= dict.fromkeys(plan.dynamic, found_later)
        moved: dict[str, str] = {}
        tables = find_embeddings(model)  # before a head's scheme replaces their nodes
        if self.scheme == "static" and self.table is not None:
            coverage = quantize_static(
                model,
                self.table,
                ops=self.ops,
                keep=keep,
                others=others,
                limit=self._limit,
                rounded=self.rounded,
            )
            moved = fold_gates(model)
        elif self.scheme in WEIGHT_BITS:
            bits = WEIGHT_BITS[self.scheme]
            weights = BlockWeights(bits, self.block_size, rounded=self.rounded)
            coverage = rewrite_linears(model, weights, keep=keep, others=others)
        else:
            coverage = quantize_dynamic(
                model,
                ops=self.ops,
                keep=keep,
                others=others,
                limit=self._limit,
                rounded=self.rounded,
            )
        embeddings = quantize_embeddings(tables, keep=keep)
        round_before_windows(model)
        fold_windows(model)
        table = self.table if self.scheme == "static" else None
        return Rewritten(
            coverage=coverage,
            embeddings=embeddings,
            kept={*keep, *plan.by_place},
            weight_only=[name for name in coverage.quantized if name in plan.packed],
            treatments=treated(coverage, plan.packed, plan.dynamic, table, names),
            moved=moved,
        )

    def _apply_pairs(self, model: ir.Model, plan: "_Plan", names: Mapping[str, str]) -> Rewritten:
        """Quantize a float graph without a Loop as pairs, in place."""
        assert self.table is not None  # `check_options`
        tables = find_embeddings(model)
        coverage = quantize_pairs(
            model,
            self.table,
            target=target_of(self.target),
            keep=plan.kept,
            weight_only=plan.packed,
            limit=self._limit,
            rounded=self.rounded,
        )
        embeddings = quantize_embeddings(tables, keep=plan.kept)
        round_before_windows(model)
        fold_windows(model)
        return Rewritten(
            coverage=coverage,
            embeddings=embeddings,
            kept={*plan.kept, *plan.by_place},
            weight_only=[name for name in coverage.quantized if name in plan.packed],
            treatments=treated(coverage, plan.packed, {}, self.table, names),
            moved={},
        )

    def _plan(self, model: ir.Model) -> "_Plan":
        """Return what the names of the recipe and its rule mean in a float graph; names go first."""
        kept = kept_in_float(model, self.keep)
        packed = weight_only_nodes(model, self.weight_only, kept)
        reasons = dict.fromkeys(sorted(packed), "stored by its weight alone on request")
        for node in model.graph.all_nodes():
            for found in (kept, reasons):
                if node.name in found and loop_name(node) in self.lifted:
                    found[node.name] = LIFTED
        as_core = core_like_nodes(model, self.as_core, {*kept, *packed})
        ruled: dict[str, ByPlace] = {}
        if self.scheme == "static":
            ruled = treated_by_place(model, large=self._large(model), as_core=as_core)
        by_place: dict[str, dict[str, str]] = {"float": {}, "weight-int8": {}, "dynamic": {}}
        for name, item in ruled.items():
            if name not in kept and name not in packed:
                by_place[item.treatment][name] = item.reason
        return _Plan(
            kept=kept | by_place["float"],
            packed=reasons | by_place["weight-int8"],
            dynamic=by_place["dynamic"],
            by_place=set().union(*by_place.values()),
        )

    def _large(self, model: ir.Model) -> Large:
        """Return how static int8 treats large linears that stand outside of the core.

        Blocks have no standard form; without packing they are made floats at each run; and a file of an earlier
        opset is for releases of ONNX Runtime that have no product with blocks of eight bits.
        """
        memory = self.memory or read_metadata(model.metadata_props).memory
        recent = (model.opset_imports.get("") or 0) >= BLOCKS_OPSET
        if self.ops == PAIRS:
            return "pairs"
        blocks = self.ops == "microsoft" and memory != "low" and recent
        return "weight-int8" if blocks else "dynamic"

    @property
    def activations(self) -> RangeTable | Literal["dynamic", "float"]:
        """How activations are rounded, for `loopedge.quantizer.emulation`."""
        if self.scheme in WEIGHT_BITS:
            return "float"
        return self.table if self.scheme == "static" and self.table is not None else "dynamic"

    def others(self, model: ir.Model) -> dict[str, OtherRounding | None]:
        """Return the linears that stand otherwise than the scheme has them, for `emulate`.

        Args:
            model: The float graph.

        Returns:
            By name in the loop form; None for a linear that stays float.
        """
        known: dict[str, OtherRounding | None] = {
            "float": None,
            "weight-int8": OtherRounding(
                weight=self.round_weight if self.ops == PAIRS else self._round_blocks,
                activations="float",
            ),
            "dynamic": OtherRounding(weight=self.round_weight, activations="dynamic"),
        }
        after = self.apply(model.clone()).treatments
        return {item.name: known[item.treatment] for item in after if item.treatment in known}

    def _round_blocks(self, name: str, weight: Array, axis: int) -> Array:
        return self._in_blocks(name, weight, axis, bits=8)

    def round_weight(self, name: str, weight: Array, axis: int) -> Array:
        """Return the weight that the stored one stands for.

        Args:
            name: Of the weight: one whose integers were chosen already is what they stand for.
            weight: float32, of two dimensions.
            axis: Its axis of outputs.

        Returns:
            float32 of the same shape.
        """
        if self.scheme in WEIGHT_BITS:
            return self._in_blocks(name, weight, axis, bits=WEIGHT_BITS[self.scheme])
        rows = weight if axis == 0 else weight.T  # (outputs, inputs)
        chosen = self.rounded.get(name)
        if isinstance(chosen, Channels):
            rounded = chosen.floats()
        else:
            values, scales = quantize_weight(rows, axis=0, limit=self._limit)
            rounded = values * scales[:, None]
        return np.ascontiguousarray(rounded if axis == 0 else rounded.T, np.float32)

    def _in_blocks(self, name: str, weight: Array, axis: int, *, bits: int) -> Array:
        """Return the weight that one stored in blocks stands for; ``axis`` is its axis of outputs."""
        rows, chosen = weight if axis == 0 else weight.T, self.rounded.get(name)
        if isinstance(chosen, Blocks) and chosen.bits == bits:
            rounded = chosen.floats()
        else:
            largest = BlockWeights(bits, self.block_size).block_size
            size = best_block_size(rows.shape[1], bits=bits, largest=largest)
            rounded = quantize_blocks(rows, bits=bits, block_size=size).floats()
        return np.ascontiguousarray(rounded if axis == 0 else rounded.T, np.float32)

    @property
    def _limit(self) -> int:
        return REDUCED_LIMIT if self.reduce_range else INT8_LIMIT


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What stays float, what is stored by its weight alone, and what finds its range while it runs.

    Each by node name, with the reason; ``by_place``: the nodes among them that the rule chose.
    """

    kept: dict[str, str]
    packed: dict[str, str]
    dynamic: dict[str, str]
    by_place: set[str]


def check_one_loop(model: ir.Model, source: str | Path) -> None:
    """Refuse a Loop inside another: what its linears read cannot be measured.

    Raises:
        InputError: The graph holds one.
    """
    cores = Cores(model)
    found, metadata = cores.inner_loops, cores.metadata
    if not found:
        return
    command = "export model.pt"
    if metadata.foreign or metadata.source_sha256 is not None:
        command = f"unroll {source}"
    raise InputError(
        f"{source} holds the inner Loop {found[0].name}, whose linears cannot be calibrated",
        hint=f"loopedge {command} --inner unrolled",
    )


def _check_ranges(table: RangeTable, model: ir.Model, source: str | Path) -> None:
    hint = f"calibrate again: {option('data', 'samples.npz', command='quantize model.onnx')}"
    if table.weights_sha256 != weights_sha256(model):
        raise InputError(f"the ranges belong to another model than {source}", hint=hint)
    cores = Cores(model)
    for core in cores:
        rows, count = table.rows_of(core.name), core.iterations
        if len(cores) > 1 and core.name not in table.cores:
            raise InputError(f"the ranges hold no core {core.name} of {source}", hint=hint)
        if count is not None and rows != count:
            raise InputError(
                f"the ranges hold {rows} iterations, {source} runs {count}{_in(core.name, cores)}",
                hint=hint,
            )
    for item in linears(model):
        found, own = table.tensors.get(loop_name(item.node)), cores.of(item.node)
        if found is None or own is None:
            continue
        rows = table.rows_of(own.name)
        if len(found.low) != rows:
            raise InputError(
                f"the ranges of {loop_name(item.node)} have {len(found.low)} rows, {source} runs "
                f"{rows} iterations{_in(own.name, cores)}",
                hint=hint,
            )


def _in(core: str, cores: Cores) -> str:
    return f" in {core}" if len(cores) > 1 else ""
