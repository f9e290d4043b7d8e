"""The buffers of a generate file's cache: one per slot and side, bound as past and as present.

In place: what a step adds is written where it stays. Nobody but the runtime touches them.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from loopedge.errors import InputError, LoopedgeError
from loopedge.units import size_text

__all__ = ["CacheBuffers", "CachePort", "cache_ports"]

PAST = re.compile(r"past\.((?P<place>[a-z][a-z0-9]*)(\.\d+){1,2}\.(key|value))")
SHARED = re.compile(r"([a-z][a-z0-9]*)\.\d+(\.\d+\.(?:key|value))")
"""A present of the cache ``last-loop``: ``core.<t>.<i>.key``, whose past is ``core.<i>.key``."""

ONE_SLOT = ("batch", "kv_heads", "max_length", "head_size")
"""The axes of a slot outside of a Scan; ahead of them stand the iterations, and those of Scans inside."""

POSITIONS = -2
"""The axis along which positions lie."""

STEP = 256
"""Positions that a buffer grows by. Copying it then costs less than reading it once in each of so many steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePort:
    """The keys, or the values, of one slot.

    Args:
        name: ``core.0.key``.
        place: Where its layer stands: ``core``, ``core2``, ``prelude``, ``coda``.
        dtype: Of the cache.
        axes: float32 (loops, batch, kv heads, max_length, head size), without loops outside of a Scan; an axis that
            varies is a name.
        looped: Whether the first axis is the iterations.
        presents: The outputs that are written into the buffer.
    """

    name: str
    place: str
    dtype: np.dtype[Any]
    axes: tuple[int | str | None, ...]
    looped: bool
    presents: tuple[str, ...]

    @property
    def past(self) -> str:
        """The input."""
        return f"past.{self.name}"

    @property
    def loops(self) -> int | None:
        """The iterations, where the file fixes them."""
        first = self.axes[0]
        return first if self.looped and isinstance(first, int) else None

    @property
    def longest(self) -> int | None:
        """The positions, where the file fixes them."""
        size = self.axes[POSITIONS]
        return size if isinstance(size, int) else None

    def shape(self, rows: int, batch: int, capacity: int) -> tuple[int, ...]:
        """Return the shape of the buffer.

        Raises:
            InputError: The file fixes an axis at another size.
        """
        inner = [None] * (len(self.axes) - len(ONE_SLOT) - 1)
        sizes = [*([rows, *inner] if self.looped else []), batch, None, capacity, None]
        shape = []
        for axis, size in zip(self.axes, sizes, strict=True):
            if size is None or (isinstance(axis, int) and axis == size):
                if not isinstance(axis, int):
                    raise InputError(f"input {self.past} has an axis of unknown size: {self.axes}")
                shape.append(axis)
            elif isinstance(axis, int):
                raise InputError(f"input {self.past} takes {axis} of what {size} were asked for")
            else:
                shape.append(size)
        return tuple(shape)


def cache_ports(
    session: ort.InferenceSession, dtypes: Mapping[str, np.dtype[Any]]
) -> tuple[CachePort, ...]:
    """Return the ports of a file's cache; none where it has no cache.

    Args:
        session: The file.
        dtypes: ONNX Runtime's names of types.

    Raises:
        InputError: A past has no present, or the other way round, or the sizes are none of a cache.
    """
    presents: dict[str, list[str]] = {}
    inputs = {node.name: node for node in session.get_inputs() if PAST.fullmatch(node.name)}
    for node in session.get_outputs():
        if not node.name.startswith("present."):
            continue
        name = node.name.removeprefix("present.")
        if f"past.{name}" not in inputs:
            name = SHARED.sub(r"\1\2", name)
        if f"past.{name}" not in inputs:
            raise InputError(f"output {node.name} of the file has no past: its cache is damaged")
        presents.setdefault(name, []).append(node.name)
    ports = []
    for node in inputs.values():
        found = PAST.fullmatch(node.name)
        assert found is not None
        dtype, axes = dtypes.get(node.type), tuple(node.shape)
        if found[1] not in presents or dtype is None or len(axes) < len(ONE_SLOT):
            raise InputError(f"input {node.name} of the file is no cache that goes on")
        ports.append(
            CachePort(
                name=found[1],
                place=found["place"],
                dtype=dtype,
                axes=axes,
                looped=len(axes) > len(ONE_SLOT),
                presents=tuple(presents[found[1]]),
            )
        )
    return tuple(ports)


class CacheBuffers:
    """The buffers of one stream.

    Args:
        ports: Of the file.
        rows: Iterations by port, for those of a Scan.
        batch: Sequences side by side.
        capacity: Positions that there is room for; they are taken from the system when they are written first.

    Raises:
        InputError: The file fixes an axis at another size.
        LoopedgeError: There is no memory for it.
    """

    def __init__(
        self,
        ports: Sequence[CachePort],
        *,
        rows: Mapping[str, int],
        batch: int,
        capacity: int,
    ) -> None:
        self.ports = tuple(ports)
        self.batch = batch
        self.capacity = capacity
        self._rows = dict(rows)
        self._arrays: dict[str, npt.NDArray[Any]] = {}
        self._values: dict[str, ort.OrtValue] = {}
        for port in self.ports:
            self._set(port, self._zeros(port, capacity))

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers; of those on the CPU only what was written takes memory."""
        return sum(
            math.prod(port.shape(self._rows.get(port.name, 0), self.batch, self.capacity))
            * port.dtype.itemsize
            for port in self.ports
        )

    def grow(self, capacity: int, used: int) -> None:
        """Make room for more positions; buffer after buffer, so that one alone is there twice.

        Args:
            capacity: Positions.
            used: Positions that hold something.
        """
        for port in self.ports:
            larger = self._zeros(port, capacity)
            old = self._arrays[port.name]
            larger[..., :used, :] = old[..., :used, :]
            self._set(port, larger)
        self.capacity = capacity

    def clear(self, used: int) -> None:
        """Set the first positions to zero, those that hold something."""
        for array in self._arrays.values():
            array[..., :used, :] = 0

    def hold(self, rows: Mapping[str, int]) -> bool:
        """Tell whether there are buffers for so many iterations of each port."""
        return all(count <= self._rows[name] for name, count in rows.items())

    def bind(self, binding: Any, rows: Mapping[str, int]) -> None:
        """Bind each buffer as past and present.

        Args:
            binding: Of a session.
            rows: Iterations that run, by port, at most those that there are buffers for: the first ones are bound.
        """
        for port in self.ports:
            value = self._values[port.name]
            asked = rows.get(port.name)
            if port.looped and asked is not None and asked < self._rows[port.name]:
                value = self._part(port, asked)
            binding.bind_ortvalue_input(port.past, value)
            for name in port.presents:
                binding.bind_ortvalue_output(name, value)

    def _part(self, port: CachePort, rows: int) -> ort.OrtValue:
        return ort.OrtValue.ortvalue_from_numpy(self._arrays[port.name][:rows])

    def _zeros(self, port: CachePort, capacity: int) -> npt.NDArray[Any]:
        shape = port.shape(self._rows.get(port.name, 0), self.batch, capacity)
        try:
            return np.zeros(shape, port.dtype)
        except (MemoryError, ValueError) as error:  # ValueError: more than an address
            size = math.prod(shape) * port.dtype.itemsize * len(self.ports)
            raise LoopedgeError(
                f"there is no memory for a cache of {capacity} positions, about {size_text(size)}",
                hint="a smaller context",
            ) from error

    def _set(self, port: CachePort, array: npt.NDArray[Any]) -> None:
        self._arrays[port.name] = array  # what the value points to
        self._values[port.name] = ort.OrtValue.ortvalue_from_numpy(array)
