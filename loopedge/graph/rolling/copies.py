"""Stored weights that hold the same, also one beside its transpose: what tying would save."""

from dataclasses import dataclass

import onnx_ir as ir

from loopedge.graph.rolling.canonical_passes.content import Contents, is_constant
from loopedge.graph.rolling.canonical_passes.tensors import sizes, turned_beginning, turned_digest
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
    waiting: dict[tuple[object, ...], list[tuple[list[ir.Value], list[ir.Value]]]] = {}
    found = []
    for members in groups:
        tensor = members[0].const_value
        if tensor is None:
            continue
        first = None
        if len(tensor.shape) == 2:
            alike = (tensor.dtype, *reversed(sizes(tensor)))
            begins = contents.beginning(tensor)
            for group in waiting.get((*alike, begins), []):
                source = group[0][0].const_value
                if source is not None and turned_digest(source, (1, 0)) == contents.digest(tensor):
                    first = group
                    break
        if first is not None:
            first[1].extend(members)
            continue
        found.append((members, list[ir.Value]()))
        if len(tensor.shape) == 2:
            key = (tensor.dtype, *sizes(tensor), turned_beginning(tensor, (1, 0)))
            waiting.setdefault(key, []).append(found[-1])
    return found
