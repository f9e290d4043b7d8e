"""Stored weights that hold the same, also one beside its transpose: what tying would save."""

from dataclasses import dataclass

import onnx_ir as ir

from loopedge.graph.rolling.content import Contents, is_constant, sizes, turned_digest
from loopedge.graph.weights import all_initializers, is_weight

__all__ = ["EqualCopies", "equal_copies"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EqualCopies:
    """Weights of equal content.

    Attributes:
        names: Of those that are equal in type, shape and content, in the order of the graph.
        transposed: Names of those that hold the transpose of the first.
        bytes: Of one of them.
        saved_bytes: What storing it once would save.
    """

    names: list[str]
    transposed: list[str]
    bytes: int
    saved_bytes: int


def equal_copies(model: ir.Model) -> list[EqualCopies]:
    """List the stored weights that hold the same as another one, those that would save most first.

    Contents are compared by hashes that are streamed. A weight is what has two dimensions above one: rows and scalars are
    often equal by chance.
    """
    contents = Contents()
    weights = [
        value for value in all_initializers(model) if is_constant(value) and _is_matrix(value)
    ]
    groups = contents.groups(weights)
    grouped = {value for members in groups for value in members}
    groups += [[value] for value in weights if value not in grouped]
    groups.sort(key=lambda members: weights.index(members[0]))
    found = []
    for members, turned in _with_transposes(groups, contents):
        tensor = members[0].const_value
        if tensor is not None and len(members) + len(turned) > 1:
            found.append(
                EqualCopies(
                    names=[value.name or "" for value in members],
                    transposed=[value.name or "" for value in turned],
                    bytes=int(tensor.nbytes),
                    saved_bytes=int(tensor.nbytes) * (len(members) + len(turned) - 1),
                )
            )
    return sorted(found, key=lambda copies: -copies.saved_bytes)


def _is_matrix(value: ir.Value) -> bool:
    tensor = value.const_value
    return tensor is not None and is_weight(value) and sum(size > 1 for size in sizes(tensor)) > 1


def _with_transposes(
    groups: list[list[ir.Value]], contents: Contents
) -> list[tuple[list[ir.Value], list[ir.Value]]]:
    """Join groups of matrices that hold each other's transposes: the earlier one keeps its names."""
    by_shape: dict[tuple[object, ...], list[int]] = {}
    for place, members in enumerate(groups):
        tensor = members[0].const_value
        if tensor is not None and len(tensor.shape) == 2:
            by_shape.setdefault((tensor.dtype, *sizes(tensor)), []).append(place)
    joined: dict[int, int] = {}
    for place, members in enumerate(groups):
        tensor = members[0].const_value
        if tensor is None or len(tensor.shape) != 2 or place in joined:
            continue
        dtype, rows, columns = tensor.dtype, *sizes(tensor)
        later = [
            other
            for other in by_shape.get((dtype, columns, rows), [])
            if other > place and other not in joined
        ]
        if not later:
            continue
        wanted = turned_digest(tensor, (1, 0))
        for other in later:
            twin = groups[other][0].const_value
            if twin is not None and contents.digest(twin) == wanted:
                joined[other] = place
    return [
        (
            members,
            [value for other, first in joined.items() if first == place for value in groups[other]],
        )
        for place, members in enumerate(groups)
        if place not in joined
    ]
