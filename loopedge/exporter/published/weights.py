"""The weights of a published model as tensors of a graph: matrices stay on the disk, vectors are small."""

from collections.abc import Collection, Mapping

import onnx_ir as ir

from loopedge.graph.lazy_weights import LazyWeight
from loopedge.graph.passes.storage import is_float16_storable
from loopedge.model.published.reading import StoredTensor

__all__ = ["graph_tensors", "kept_in_float32"]


def graph_tensors(
    tensors: Mapping[str, StoredTensor], *, kept: Collection[str] = ()
) -> dict[str, ir.TensorProtocol]:
    """Return what the parameters are in a graph.

    Args:
        tensors: Where they stand.
        kept: Those that float16 does not hold.
    """
    return {
        name: LazyWeight(stored, name=name, rounds=name not in kept)
        if len(stored.shape) > 1
        else ir.tensor(stored.read(), name=name)
        for name, stored in tensors.items()
    }


def kept_in_float32(tensors: Mapping[str, StoredTensor]) -> list[dict[str, str]]:
    """Return the matrices that float16 does not hold, with the reason; each is read once, in parts."""
    kept = []
    for name, stored in tensors.items():
        if len(stored.shape) < 2:
            continue
        for start, rows in stored.chunks():
            reason = is_float16_storable(rows)
            if reason is not None:
                where = f"from row {start}: " if start else ""
                kept.append({"name": name, "reason": where + reason})
                break
    return kept
