"""Round a module's weights to what float16 holds."""

import copy
from dataclasses import dataclass

import onnx_ir as ir
import torch
from torch import nn

from loopedge.deployment.conversion import FLOAT16_NOTE
from loopedge.graph.passes.storage import is_float16_storable, widened_tables

__all__ = ["RoundedModule", "round_weights", "storage_notes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundedModule:
    """A module whose weights float16 holds exactly, and what had to stay float32: name to reason."""

    module: nn.Module
    kept: list[dict[str, str]]


def round_weights(module: nn.Module) -> RoundedModule:
    """Return a copy of a module, its parameters of two and more dimensions rounded to float16.

    The timestep table must be taken from the module itself: it stays float32.
    """
    rounded, kept = copy.deepcopy(module), []
    for name, parameter in rounded.named_parameters():
        if parameter.ndim < 2 or parameter.dtype != torch.float32:
            continue
        reason = is_float16_storable(parameter.detach().numpy())
        if reason is not None:
            kept.append({"name": name, "reason": reason})
            continue
        parameter.data = parameter.data.half().float()
    return RoundedModule(module=rounded.eval(), kept=kept)


def storage_notes(
    graph: ir.Model, format: str, kept: list[dict[str, str]], rounding_error: float | None
) -> list[str]:
    """Say what storing weights in float16 moved, what stayed float32, and what it costs."""
    if rounding_error is None:
        return []
    notes = [
        f"float16 weights move the outputs by at most {rounding_error:.1e} of the largest; the file "
        "is verified against the rounded weights"
    ]
    notes += [f"{item['name']} stays float32: {item['reason']}" for item in kept]
    if format == "ort":
        return [*notes, FLOAT16_NOTE]
    notes += [
        f"{name} is read by a product too: beside the mapped table ONNX Runtime keeps a float32 copy "
        f"of {size / 2**20:.1f} MiB in memory"
        for name, size in widened_tables(graph).items()
    ]
    return notes
