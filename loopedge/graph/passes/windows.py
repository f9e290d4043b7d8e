"""Write a convolution as a linear over windows of its input, which int8 knows, and back.

The windows are cut out of the padded input, channels last, and stand side by side: (batch, ..., channels) becomes
(batch, ..., kernel x channels). Where the linear becomes int8, its input is rounded before it is cut: each value once.
Of ONNX Runtime's operators for bytes ConvInteger is slower than a convolution of floats; QLinearConv is as fast as this,
and rounds its outputs, too (benchmarks/int8/convolutions.py).
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from loopedge.graph.editing import add_initializer, insert_before, make_node, replace_node

__all__ = ["fold_windows", "round_before_windows", "unfold_convolutions"]

WINDOWS = ".windows"
"""Ending of the node that puts windows side by side."""
TO_THE_END = np.iinfo(np.int64).max
SAME = {"SAME_UPPER": 1, "SAME_LOWER": 0}
"""``auto_pad``, and which end of an axis gets the odd value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Geometry:
    """How a window moves, per axis behind batch and channels."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def axes(self) -> int:
        return len(self.kernel)

    @property
    def of_one(self) -> bool:
        """Whether each window is one place as it stands: a linear over the channels."""
        return {*self.kernel, *self.strides} == {1} and not any((*self.before, *self.after))

    @property
    def turned(self) -> list[int]:
        """The order of axes that puts the channels last."""
        return [0, *range(2, self.axes + 2), 1]

    @property
    def back(self) -> list[int]:
        """The order of axes that puts them second again."""
        return [0, self.axes + 1, *range(1, self.axes + 1)]

    def windows(self) -> Iterator[tuple[list[int], list[int]]]:
        """Yield the first and the last place of each position of the kernel, which is counted from the end."""
        for place in itertools.product(*map(range, self.kernel)):
            starts = [at * step for at, step in zip(place, self.dilations, strict=True)]
            left = [
                step * (size - 1) - start
                for step, size, start in zip(self.dilations, self.kernel, starts, strict=True)
            ]
            yield starts, [-rest if rest else TO_THE_END for rest in left]


def unfold_convolutions(model: ir.Model) -> bool:
    """Write convolutions with stored weights as Transpose, Pad, Slice, Concat, MatMul, Add, Transpose, in place.

    Requires: the weights are initializers of the main graph.

    Ensures: a weight stands where it stood, as [kernel x in, out]. A convolution stays as it is where it has groups, its
    weight is no float32, or something else reads the weight; `fold_windows` writes it as it was.

    Returns:
        Whether anything changed.
    """
    changed = False
    for weight in list(model.graph.initializers.values()):
        readers = [(node, index) for node, index in weight.uses()]
        found = [_geometry(node) if index == 1 else None for node, index in readers]
        if not readers or weight.is_graph_output() or None in found:
            continue
        stored = weight.const_value
        if stored is None or stored.dtype != ir.DataType.FLOAT:
            continue
        array = stored.numpy()
        matrix = np.moveaxis(array, (1, 0), (-2, -1)).reshape(-1, array.shape[0])
        for (node, _), geometry in zip(readers, found, strict=True):
            if geometry is not None:
                _unfold(model.graph, node, weight, geometry, (array.shape[1], array.shape[0]))
        weight.const_value = ir.tensor(np.ascontiguousarray(matrix), name=weight.name)
        weight.shape = ir.Shape(matrix.shape)
        changed = True
    return changed


def _geometry(node: ir.Node) -> _Geometry | None:
    """Return how the window of a convolution moves; None where a linear cannot say it."""
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    if node.op_type != "Conv" or node.domain or weight is None or weight.const_value is None:
        return None
    kernel = tuple(weight.const_value.shape.numpy()[2:])
    if not kernel or node.attributes.get_int("group", 1) != 1:
        return None
    ones, padding = [1] * len(kernel), node.attributes.get_string("auto_pad", "NOTSET")
    strides = tuple(node.attributes.get_ints("strides", ones))
    dilations = tuple(node.attributes.get_ints("dilations", ones))
    pads = list(node.attributes.get_ints("pads", [0] * 2 * len(kernel)))
    before, after = pads[: len(kernel)], pads[len(kernel) :]
    if padding == "VALID":
        before = after = [0] * len(kernel)
    if padding in SAME:
        if set(strides) != {1}:
            return None
        around = [step * (size - 1) for step, size in zip(dilations, kernel, strict=True)]
        after = [(total + SAME[padding]) // 2 for total in around]
        before = [total - end for total, end in zip(around, after, strict=True)]
    if min(*before, *after) < 0:
        return None
    return _Geometry(
        kernel=kernel,
        strides=strides,
        dilations=dilations,
        before=tuple(before),
        after=tuple(after),
    )


def _unfold(
    graph: ir.Graph, node: ir.Node, weight: ir.Value, geometry: _Geometry, channels: tuple[int, int]
) -> None:
    x, _, *bias = node.inputs
    if x is None:
        return
    name = node.name or node.outputs[0].name or "Conv"
    turned = make_node("Transpose", [x], f"{name}.turn", {"perm": geometry.turned})
    _describe(turned.outputs[0], x, geometry, channels[0], moved=False)
    new = [turned]
    if not geometry.of_one:
        new += _cut(graph, turned.outputs[0], geometry, name)
        _describe(new[-1].outputs[0], x, geometry, math.prod(geometry.kernel) * channels[0])
    new.append(make_node("MatMul", [new[-1].outputs[0], weight], name))
    _describe(new[-1].outputs[0], x, geometry, channels[1])
    if bias and bias[0] is not None:
        new.append(make_node("Add", [new[-1].outputs[0], bias[0]], f"{name}.bias"))
        _describe(new[-1].outputs[0], x, geometry, channels[1])
    back = make_node("Transpose", [new[-1].outputs[0]], f"{name}.back", {"perm": geometry.back})
    replace_node(node, [*new, back])


def _cut(
    graph: ir.Graph,
    source: ir.Value,
    geometry: _Geometry,
    name: str,
    zero: ir.Value | None = None,
) -> list[ir.Node]:
    """Return the nodes that put the windows of (batch, ..., channels) side by side; ``zero`` is what pads, else 0."""

    def constant(what: str, numbers: list[int]) -> ir.Value:
        title = f"loopedge.{what}.{'.'.join(map(str, numbers))}".replace("-", "m")
        return add_initializer(graph, title, np.array(numbers, np.int64))

    nodes: list[ir.Node] = []
    if any((*geometry.before, *geometry.after)):
        pads = constant("pads", [0, *geometry.before, 0, 0, *geometry.after, 0])
        filled = [source, pads, *([] if zero is None else [zero])]
        nodes.append(make_node("Pad", filled, f"{name}.padded"))
        source = _typed(nodes[-1], source)
    axes, steps = (
        constant("axes", list(range(1, geometry.axes + 1))),
        constant("steps", list(geometry.strides)),
    )
    windows = []
    for number, (starts, ends) in enumerate(geometry.windows()):
        ranges = [constant("places", starts), constant("places", ends), axes, steps]
        nodes.append(make_node("Slice", [source, *ranges], f"{name}.window.{number}"))
        windows.append(_typed(nodes[-1], source))
    nodes.append(make_node("Concat", windows, f"{name}{WINDOWS}", {"axis": geometry.axes + 1}))
    _typed(nodes[-1], source)
    return nodes


def _typed(node: ir.Node, source: ir.Value) -> ir.Value:
    """Give the output of a node the type of what it reads; sizes change, the number of axes does not."""
    made = node.outputs[0]
    made.type = source.type
    if source.shape is not None:
        made.shape = ir.Shape([source.shape[0], *[None] * (len(source.shape) - 1)])
    return made


def _describe(
    value: ir.Value, x: ir.Value, geometry: _Geometry, channels: int, *, moved: bool = True
) -> None:
    """Give a value the type of x, (batch, channels, ...), and the shape (batch, ..., channels)."""
    value.type = x.type
    if x.shape is None:
        return
    sizes: list[int | ir.SymbolicDim | None] = list(x.shape[2:])
    if moved:
        sizes = [_moved(size, geometry, axis) for axis, size in enumerate(x.shape[2:])]
    value.shape = ir.Shape([x.shape[0], *sizes, channels])


def _moved(
    size: int | ir.SymbolicDim, geometry: _Geometry, axis: int
) -> int | ir.SymbolicDim | None:
    """Return how many places the window takes along an axis; None where that is not known."""
    reach = geometry.dilations[axis] * (geometry.kernel[axis] - 1)
    grown = geometry.before[axis] + geometry.after[axis] - reach
    if geometry.strides[axis] == 1 and grown == 0:
        return size
    return (size + grown - 1) // geometry.strides[axis] + 1 if isinstance(size, int) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unfolded:
    """What `_cut` made, found again: ``source`` is (batch, ..., channels)."""

    source: ir.Value
    geometry: _Geometry


def _unfolded(value: ir.Value | None) -> _Unfolded | None:
    """Find what windows were cut from; None where a value holds no windows of this module."""
    joined = None if value is None else value.producer()
    if joined is None or joined.op_type != "Concat" or not (joined.name or "").endswith(WINDOWS):
        return None
    slices = [part.producer() for part in joined.inputs if part is not None]
    places = [_numbers(node, 1) for node in slices]
    first = slices[0]
    if first is None or None in places or any(node.op_type != "Slice" for node in slices if node):
        return None
    starts = [place for place in places if place is not None]
    along = [sorted(set(numbers)) for numbers in zip(*starts, strict=True)]
    source, before, after = first.inputs[0], (0,) * len(along), (0,) * len(along)
    pad = None if source is None else source.producer()
    if pad is not None and pad.op_type == "Pad" and (pad.name or "").endswith(".padded"):
        pads = _numbers(pad, 1) or ()
        source, ends = pad.inputs[0], len(pads) // 2
        before, after = tuple(pads[1 : ends - 1]), tuple(pads[ends + 1 : -1])
    geometry = _Geometry(
        kernel=tuple(len(numbers) for numbers in along),
        strides=tuple(_numbers(first, 4) or ()),
        dilations=tuple(numbers[1] if len(numbers) > 1 else 1 for numbers in along),
        before=before,
        after=after,
    )
    return None if source is None else _Unfolded(source=source, geometry=geometry)


def _numbers(node: ir.Node | None, index: int) -> list[int] | None:
    value = None if node is None else node.inputs[index]
    tensor = None if value is None else value.const_value
    return None if tensor is None else [int(number) for number in tensor.numpy()]


def round_before_windows(model: ir.Model) -> bool:
    """Let windows be cut from what was rounded, not rounded after they were cut, in place.

    Requires: windows as `unfold_convolutions` writes them, which QuantizeLinear may read.

    Ensures: every value is rounded once, and the numbers are the same: what pads is the zero point.

    Returns:
        Whether anything changed.
    """
    changed = False
    for node in list(model.graph.all_nodes()):
        found = _unfolded(node.inputs[0]) if node.op_type == "QuantizeLinear" else None
        if found is None or node.graph is None:
            continue
        name = (node.name or "rounded").removesuffix(".rounded")
        joined = node.inputs[0].producer() if node.inputs[0] is not None else None
        rounded = make_node("QuantizeLinear", [found.source, *node.inputs[1:]], f"{name}.source")
        rounded.outputs[0].type, rounded.outputs[0].shape = node.outputs[0].type, found.source.shape
        insert_before(node, rounded)
        new = _cut(model.graph, rounded.outputs[0], found.geometry, name, node.inputs[2])
        new[-1].outputs[0].shape = node.outputs[0].shape
        replace_node(node, new)
        _remove_unread(joined)
        changed = True
    return changed


def fold_windows(model: ir.Model) -> bool:
    """Write linears of floats over windows as the convolutions that they were, in place.

    Requires: windows as `unfold_convolutions` writes them.

    Ensures: a weight is stored as a convolution reads it, unless a linear in another form reads it, too.

    Returns:
        Whether anything changed.
    """
    changed = False
    for weight in list(model.graph.initializers.values()):
        readers = [node for node, index in weight.uses() if index == 1]
        found = [_unfolded(node.inputs[0]) for node in readers if node.op_type == "MatMul"]
        stored = weight.const_value
        if stored is None or not found or None in found or len(found) < len(weight.uses()):
            continue
        for node, unfolded in zip(readers, found, strict=True):
            if unfolded is not None:
                kernel = unfolded.geometry.kernel
                _fold(node, weight, unfolded)
        matrix = stored.numpy()
        array = np.moveaxis(matrix.reshape(*kernel, -1, matrix.shape[1]), (-2, -1), (1, 0))
        array = np.ascontiguousarray(array)
        weight.const_value = ir.tensor(array, name=weight.name)
        weight.shape = ir.Shape(array.shape)
        changed = True
    return changed


def _fold(node: ir.Node, weight: ir.Value, unfolded: _Unfolded) -> None:
    """Put a convolution between the Transposes in the place of a product and its windows."""
    geometry, turn = unfolded.geometry, unfolded.source.producer()
    joined = node.inputs[0].producer() if node.inputs[0] is not None else None
    last, bias = node, []
    added = list(node.outputs[0].consumers())
    if len(added) == 1 and added[0].name == f"{node.name}.bias" and added[0].op_type == "Add":
        last, bias = added[0], [added[0].inputs[1]]
    backs = list(last.outputs[0].consumers())
    if turn is None or len(backs) != 1 or backs[0].op_type != "Transpose":
        raise ValueError(f"the windows of {node.name} stand in no convolution")
    attributes = {
        "kernel_shape": list(geometry.kernel),
        "strides": list(geometry.strides),
        "dilations": list(geometry.dilations),
        "pads": [*geometry.before, *geometry.after],
    }
    back = backs[0]
    convolution = make_node(
        "Conv", [turn.inputs[0], weight, *bias], node.name or "Conv", attributes
    )
    replace_node(back, [convolution])
    for each in (last, node):
        if each.graph is not None and not each.outputs[0].uses():
            each.graph.remove(each, safe=True)
    _remove_unread(joined)


def _remove_unread(node: ir.Node | None) -> None:
    """Remove a node that nothing reads, and what it alone read, up to the convolution's input."""
    waiting = [node]
    while waiting:
        current = waiting.pop()
        if current is None or current.graph is None:
            continue
        if any(value.uses() or value.is_graph_output() for value in current.outputs):
            continue
        sources = [value.producer() for value in current.inputs if value is not None]
        current.graph.remove(current, safe=True)
        waiting += sources
