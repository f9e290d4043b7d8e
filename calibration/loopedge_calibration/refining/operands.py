"""Which weights of a graph stand behind what a module multiplies with: found by value."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Operand", "Operands", "Tile"]

Span = tuple[int, int]

EXACT, HALF = 1e-6, 1e-3
"""How far a stored weight may be from the module's, of its largest value: as it is, and rounded to float16."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A part of an operand (outputs, inputs) that is a part of a graph's weight of this name.

    The spans are (first, end): of the operand's outputs and inputs, and of the weight's outputs and inputs.
    """

    name: str
    outputs: Span
    inputs: Span
    own_outputs: Span
    own_inputs: Span


Operand = tuple[Tile, ...]
"""Tiles that cover what a module multiplies with: one, or several where the graph computes a layer in parts."""


class Operands:
    """Finds the weights behind an operand.

    A graph may hold a layer in parts, or several layers as one weight; the same values in the other layout are for the caller to
    ask for. Equal weights of several names are taken by the name that the module has for them, else in the graph's order.

    Args:
        exact: float32 (outputs, inputs) by name, of the graph.
        names: What the module calls its tensors, by their place in memory.
        half: The graph stores its weights in float16.
    """

    def __init__(
        self, exact: Mapping[str, Tensor], names: Mapping[int, str], *, half: bool = False
    ) -> None:
        self._exact, self._names = dict(exact), names
        self._share = HALF if half else EXACT
        self._known: dict[tuple[object, ...], Operand | None] = {}
        self.found: set[str] = set()

    def find(self, matrix: Tensor) -> Operand | None:
        """Return the tiles of an operand (outputs, inputs); None: it holds no weight of the graph."""
        storage = matrix.untyped_storage().data_ptr()
        key = (storage, matrix.storage_offset(), tuple(matrix.shape), matrix.stride())
        lasting = (
            storage in self._names
        )  # what is computed anew may take the place of something else
        if not lasting or key not in self._known:
            self._known[key] = self._search(matrix.detach().float(), self._names.get(storage))
        return self._known[key]

    def _search(self, matrix: Tensor, name: str | None) -> Operand | None:
        order = sorted(self._exact, key=lambda other: (other != name, other in self.found))
        for other in order:
            tile = self._whole(other, matrix)
            if tile is not None:
                self.found.add(other)
                return (tile,)
        parts = self._cover(matrix, order)
        if parts is not None:
            self.found |= {tile.name for tile in parts}
        return parts

    def _whole(self, name: str, matrix: Tensor) -> Tile | None:
        """Return an operand as a weight, or as neighbouring outputs of it."""
        weight = self._exact[name]
        rows, width = matrix.shape
        if weight.shape[1] != width or weight.shape[0] < rows:
            return None
        for at in self._places(weight, matrix[0], 1, rows):
            if self._equal(matrix, weight[at : at + rows]):
                return Tile(name, (0, rows), (0, width), (at, at + rows), (0, width))
        return None

    def _cover(self, matrix: Tensor, order: list[str]) -> Operand | None:
        """Return an operand whose layer the graph computes in parts: of its outputs, or of its inputs."""
        for axis in (0, 1):
            tiles: list[Tile] = []
            for name in order:
                weight = self._exact[name]
                length = weight.shape[axis]
                if weight.shape[1 - axis] != matrix.shape[1 - axis] or length >= matrix.shape[axis]:
                    continue
                taken = {(tile.outputs, tile.inputs)[axis][0] for tile in tiles}
                for at in self._places(matrix, weight.select(axis, 0), 1 - axis, length):
                    if at not in taken and self._equal(weight, matrix.narrow(axis, at, length)):
                        place, other = (at, at + length), (0, matrix.shape[1 - axis])
                        spans = (place, other) if axis == 0 else (other, place)
                        tiles.append(Tile(name, *spans, (0, weight.shape[0]), (0, weight.shape[1])))
                        break
            tiles.sort(key=lambda tile: (tile.outputs, tile.inputs))
            ends = [0, *((tile.outputs, tile.inputs)[axis][1] for tile in tiles)]
            starts = [(tile.outputs, tile.inputs)[axis][0] for tile in tiles]
            if tiles and starts == ends[:-1] and ends[-1] == matrix.shape[axis]:
                return tuple(tiles)
        return None

    def _places(self, searched: Tensor, line: Tensor, axis: int, length: int) -> Iterator[int]:
        """Yield where a line stands in a matrix and as many others follow as a part has."""
        near = (searched - line.unsqueeze(1 - axis)).abs().amax(axis)
        allowed = self._share * line.abs().max() + torch.finfo(torch.float32).tiny
        for at in (near <= allowed).nonzero().flatten().tolist():
            if at + length <= searched.shape[1 - axis]:
                yield int(at)

    def _equal(self, one: Tensor, other: Tensor) -> bool:
        allowed = self._share * other.abs().max() + torch.finfo(torch.float32).tiny
        return bool((one - other).abs().max() <= allowed)
