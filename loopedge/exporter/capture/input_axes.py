"""Name the axes of the inputs: which follow the batch, which the sequence, and which are lengths of their own.

Two inputs may have positions of different numbers: five new ones, four past ones. A graph that gives both axes one
name fails there, since ONNX Runtime takes axes of one name to be of one size. So where a model has several inputs it is
run with the size of one axis changed: an axis that may change alone gets a name of its own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from loopedge.errors import InputError
from loopedge.options import by_face, option_name

__all__ = [
    "AxisNames",
    "InputAxes",
    "as_asked",
    "names_of_sizes",
    "read_dynamic_shapes",
    "resize",
    "tell_apart",
]

AxisNames = dict[int, str]
"""Axis number to ``batch``, ``sequence``, a name of its own, or a sum of names."""

InputAxes = tuple[AxisNames, ...]
SUM = " + "
FIXED = "-"
"""Stands for an axis without a name, in text."""

ROLES = ("batch", "sequence")
TRIED = (2, 5)
"""Sizes that an axis must run at to be free, with one that is larger than the example's."""
LARGER = 3


def names_of_sizes(inputs: InputAxes, batch: int, sequence: int) -> dict[str, int]:
    """Return the size of every name of the axes of inputs, for a batch and a sequence.

    Lengths of their own go up and down with the sequence in steps of their own, so that what follows one is never taken
    for what follows another.
    """
    sizes = {"batch": batch, "sequence": sequence}
    names = dict.fromkeys(name for axes in inputs for name in axes.values())
    atoms = dict.fromkeys(atom for name in names for atom in name.split(SUM))
    for place, atom in enumerate(atom for atom in atoms if atom not in ROLES):
        sizes[atom] = (3 * sequence + 5 * place) % 7 + 2
    return sizes | {name: _sum(name, sizes) for name in names}


def _sum(name: str, sizes: Mapping[str, int]) -> int:
    return sum(sizes[atom] for atom in name.split(SUM))


def resize(tensor: Tensor, sizes: Mapping[str, int], names: AxisNames) -> Tensor:
    """Repeat or cut the named axes of ``tensor`` to the sizes of their names."""
    for axis, name in names.items():
        index = torch.arange(sizes[name], device=tensor.device) % tensor.shape[axis]
        tensor = tensor.index_select(axis, index)
    return tensor


def read_dynamic_shapes(texts: Sequence[str]) -> dict[str, AxisNames] | None:
    """Read ``NAME=batch,sequence,-``: the names of an input's axes in their order, ``-`` where one is fixed.

    Returns:
        The names by axis, by input; None where there is no text.

    Raises:
        InputError: A text is something else, or an input is named twice.
    """
    found: dict[str, AxisNames] = {}
    for text in texts:
        name, equals, axes = text.partition("=")
        words = [" ".join(word.split()) for word in axes.split(",")]
        if not (name and equals and all(words)) or name in found:
            twice = "names an input twice" if name in found else "is not NAME=AXIS,AXIS"
            raise InputError(
                f"{option_name('dynamic_shapes')} {text!r} {twice}",
                hint=f"--dynamic-shapes past=batch,past --dynamic-shapes mask=batch,'past{SUM}sequence'",
            )
        found[name] = {axis: word for axis, word in enumerate(words) if word != FIXED}
    return found or None


def as_asked(
    asked: object, example: tuple[Tensor, ...], names: Sequence[str], found: InputAxes
) -> InputAxes:
    """Return the axes of inputs as a user names them.

    Args:
        asked: ``dynamic_shapes``: per input, in order or by name, a dict from axis to a name. Inputs that are not named
            keep what was found.
        example: Example inputs.
        names: Of the inputs.
        found: What their axes are without.

    Raises:
        InputError: It is something else, or names an input or an axis that there is not.
    """
    given: object = asked
    if isinstance(asked, Mapping):
        unknown = next((name for name in asked if name not in names), None)
        if unknown is not None:
            raise InputError(
                f"dynamic_shapes names the input {unknown!r}, the model takes {', '.join(names)}"
            )
        given = tuple(asked.get(name, axes) for name, axes in zip(names, found, strict=True))
    fine = (
        isinstance(given, tuple | list)
        and len(given) == len(example)
        and all(
            isinstance(axes, Mapping)
            and all(isinstance(axis, int) and 0 <= axis < tensor.dim() for axis in axes)
            and all(isinstance(name, str) and all(name.split(SUM)) for name in axes.values())
            for axes, tensor in zip(given, example, strict=True)
        )
    )
    if not fine or not isinstance(given, tuple | list):
        raise InputError(
            f"dynamic_shapes is {asked!r}; per input a dict from axis to 'batch', 'sequence' or another name "
            "is needed",
            hint=by_face(
                f"--dynamic-shapes {names[0]}=batch,sequence",
                'dynamic_shapes=({0: "batch", 1: "sequence"},)',
            ),
        )
    return tuple(dict(axes) for axes in given)


def tell_apart(
    example: tuple[Tensor, ...],
    names: Sequence[str],
    runs: Callable[[tuple[Tensor, ...]], bool],
    tied: frozenset[int] = frozenset(),
) -> InputAxes:
    """Name axis 0 and axis 1 of every input.

    The first input's are the batch and the sequence. An axis of another input that may change alone, at any size, gets a
    name of its own; axes that may change together share one; one whose size is the sum of two others is their sum, where
    it runs as such; one of another size that may not change at all is fixed.

    Args:
        example: Example inputs.
        names: Of the inputs.
        runs: Tells whether the model runs on such inputs.
        tied: Inputs whose axes are those of the first one where they are as long: masks, noise.
    """
    inputs: InputAxes = tuple(
        {axis: role for axis, role in enumerate(ROLES) if axis < tensor.dim()} for tensor in example
    )
    if len(example) > 1:
        for axis, role in reversed(list(enumerate(ROLES))):
            told = _Axis(example=example, axis=axis, runs=runs)
            told.name(role, names, tied)
            for place, found in enumerate(inputs):
                found.pop(axis, None)
                if place in told.found:
                    found[axis] = told.found[place]
    return tuple(dict(sorted(found.items())) for found in inputs)


@dataclass(slots=True, kw_only=True)
class _Axis:
    """One axis number of all inputs; ``found`` are the names, by input."""

    example: tuple[Tensor, ...]
    axis: int
    runs: Callable[[tuple[Tensor, ...]], bool]
    found: dict[int, str] = field(default_factory=dict)

    def name(self, role: str, names: Sequence[str], tied: frozenset[int]) -> None:
        """Find the names; the first input that has the axis gives it the name of the role."""
        sizes = {
            place: tensor.shape[self.axis]
            for place, tensor in enumerate(self.example)
            if tensor.dim() > self.axis
        }
        if not sizes:
            return
        first = next(iter(sizes))
        left: dict[int, list[int]] = {}
        for place, size in sizes.items():
            together = size == sizes[first]
            if place == first or (place in tied and together):
                self.found[place] = role
            elif self._free([place]):
                self.found[place] = f"{names[place]}_{role}"
            elif together:
                self.found[place] = role
            else:
                left.setdefault(size, []).append(place)
        for size, places in list(left.items()):
            if len(places) > 1 and self._free(places):
                self.found |= dict.fromkeys(places, f"{names[places[0]]}_{role}")
                del left[size]
        self._sums(left, sizes, names, role)

    def _sums(
        self, left: dict[int, list[int]], sizes: Mapping[int, int], names: Sequence[str], role: str
    ) -> None:
        """Find sizes that are the sum of two others, as the length of a mask over past and new positions."""
        groups: dict[int, list[int]] = {}
        for place, size in sizes.items():
            if size in left or self.found.get(place) == role:
                groups.setdefault(size, []).append(place)
        for total in left:
            for one in groups:
                other = total - one
                if other < one or other not in groups:
                    continue
                if all(self._free(groups[part], also=groups[total]) for part in {one, other}):
                    parts = [self.found.get(groups[part][0]) for part in (one, other)]
                    words = [
                        word or f"{names[groups[part][0]]}_{role}"
                        for word, part in zip(parts, (one, other), strict=True)
                    ]
                    for part, word in zip((one, other), words, strict=True):
                        self.found |= dict.fromkeys(groups[part], word)
                    ordered = sorted(words, key=lambda word: word != role)
                    self.found |= dict.fromkeys(groups[total], SUM.join(ordered))
                    return

    def _free(self, places: Sequence[int], *, also: Sequence[int] = ()) -> bool:
        """Tell whether the axis may have any size in these inputs, and as much more or less in others."""
        size = self.example[places[0]].shape[self.axis]
        twice = bool(also) and 2 * size == self.example[also[0]].shape[self.axis]
        return all(
            self.runs(self._changed(places, other - size, also, (1 + twice) * (other - size)))
            for other in (*TRIED, size + LARGER)
            if other != size
        )

    def _changed(
        self, places: Sequence[int], more: int, also: Sequence[int], also_more: int
    ) -> tuple[Tensor, ...]:
        changed = list(self.example)
        for some, by in ((places, more), (also, also_more)):
            for place in some:
                size = self.example[place].shape[self.axis] + by
                changed[place] = resize(self.example[place], {"": size}, {self.axis: ""})
        return tuple(changed)
