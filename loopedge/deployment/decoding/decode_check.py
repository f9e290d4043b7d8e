"""Verify a generate file: what it computes piece by piece is what its source computes of the whole text.

Computing the first chunk right shows nothing of the cache: a core that mixes positions outside of attention is exact there,
and wrong with the next token. So texts are computed in chunks of several sizes, token by token, in rows of several lengths,
and with fewer loops, each piece against the source's logits at the same position.
"""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime as ort

from loopedge.artifact.artifact import Artifact
from loopedge.deployment.decoding.plain_decoder import DTYPES
from loopedge.errors import LoopedgeError, UntrainedWarning, VerificationError
from loopedge.graph.agreement import NoiseRatio, largest_error
from loopedge.graph.decoding.chunk import IDS_INPUT, LENGTHS_INPUT
from loopedge.graph.decoding.text_inputs import BESIDE_IDS, held_beside
from loopedge.graph.metadata import LOOPS_INPUT, Generation
from loopedge.graph.operators import Fact, having
from loopedge.runtime.session import Session
from loopedge.runtime.session_options import session_options

__all__ = ["DecodeDifference", "compare_decoding", "tolerated"]

Array = npt.NDArray[Any]

FIRST, CHUNKS = 5, (1, 1, 7, 1, 1, 1, 3, 1)
"""Tokens that are computed at once, one after the other, in a text of one row."""

RAGGED, STEPS = (9, 4, 1), 4
"""Batch rows of different lengths that start together, and tokens that are added to each."""

WIDEST = 4096
"""Of the windows that are passed in the check; a model with a wider one is checked within it."""

EXACT = 1e-4
"""Largest allowed max |y - ref| / max |ref| of floats."""

ROUNDED_DB, RANGED_DB = 30.0, 20.0
"""Least SQNR where activations are rounded to integers: a last bit grows to a step. Where a chunk chooses its own range,
what it computes depends on the chunk (36 dB measured); a mask or position that is wrong gives less than 10."""

WORST_DB = 10.0
"""Least SQNR of each token there: one that reads a wrong position among many that are right lowers all of them together little."""

RANGED = having(Fact.RANGED)
ROUNDS = having(Fact.ROUNDING) | having(Fact.INT8) | having(Fact.BLOCKS)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeDifference:
    """How far decoded logits are from those of the whole text.

    ``sqnr_db`` is of all of them together; ``cases`` counts texts and rows, ``tokens`` the logits that were compared;
    ``iterations`` are those that a token ran in the mean, where tokens exit early.
    """

    max_abs_error: float
    max_rel_error: float
    sqnr_db: float
    cases: int
    tokens: int
    iterations: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerated:
    """What decoded logits may differ by: one of both."""

    relative: float | None = None
    least_db: float | None = None


def tolerated(graph: ir.Model) -> Tolerated:
    """Return what a decoding graph may differ by from its source, whose types and products count."""
    operators = {node.op_type for node in graph.graph.all_nodes()}
    if operators & RANGED:
        return Tolerated(least_db=RANGED_DB)
    if operators & ROUNDS:
        return Tolerated(least_db=ROUNDED_DB)
    values = graph.graph.initializers.values()
    narrow = any(value.dtype in {ir.DataType.FLOAT16, ir.DataType.BFLOAT16} for value in values)
    return Tolerated(relative=2e-3 if narrow else EXACT)


def compare_decoding(
    source: Artifact,
    written: Path,
    generation: Generation,
    allowed: Tolerated,
    *,
    reference: "LastLoop | None" = None,
    threads: int | None,
) -> DecodeDifference:
    """Compare what a generate file computes in pieces with what its source computes of whole texts.

    Args:
        source: That the file was made from.
        written: The file.
        generation: What it says of itself.
        allowed: What it may differ by.
        reference: What it is compared with instead: chunk by chunk, where what is computed depends on the chunks.
        threads: Threads of ONNX Runtime.

    Raises:
        VerificationError: It differs by more, or does not run.
    """
    whole = _WholeText(source, threads)
    found = _Found(source, allowed)
    try:
        decoder = _Decoder(written, generation, threads)
        for loops in [None] if reference else whole.loop_counts(generation):
            for text in _texts(whole, generation):
                found.cases += 1
                case = text.name + ("" if loops is None else f", {loops} loops")
                want = reference or Recomputation(whole, text, loops)
                for each in (want, decoder):
                    each.start(*text.shape, loops)
                for inputs, lengths in text.chunks():
                    expected = want.run(inputs, lengths)
                    found.add(case, expected, decoder.run(inputs, lengths), int(lengths.max()))
    except LoopedgeError:
        raise
    except Exception as error:  # onnxruntime raises a kind of its own per failure
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise VerificationError(f"the generate file does not run: {reason[:300]}") from error
    return found.judged()


class _Found:
    """Errors as they are found; the first that is too large ends the comparison."""

    def __init__(self, source: Artifact, allowed: Tolerated) -> None:
        self.source, self.allowed = source, allowed
        self.noise = NoiseRatio()
        self.absolute = self.relative = 0.0
        self.tokens = self.cases = 0

    def add(self, case: str, expected: Array, found: Array, place: int) -> None:
        """Count the logits (batch, vocabulary) of a piece whose last token stands at ``place``."""
        self.tokens += len(expected)
        error = largest_error(found, expected)
        self.noise.add(expected, found)
        self.absolute = max(self.absolute, error.absolute)
        self.relative = max(self.relative, error.relative)
        if self.allowed.least_db is not None:
            one = NoiseRatio()
            one.add(expected, found)
            if not one.db >= WORST_DB:
                raise self._too_far(f" ({case}, token {place})", one.db, WORST_DB)
        most = self.allowed.relative
        if most is not None and not error.relative <= most:
            raise VerificationError(
                f"the generate file differs from {self.source.path} ({case}, token {place}): relative error "
                f"{error.relative:.2e}, allowed {most:.0e}",
                measured=error.relative,
                allowed=most,
                hint="a core that mixes positions outside of attention cannot be cached: "
                f"loopedge run {self.source.path}",
            )

    def _too_far(self, where: str, found_db: float, least_db: float) -> VerificationError:
        return VerificationError(
            f"the generate file differs from {self.source.path}{where}: SQNR {found_db:.1f} dB, at least "
            f"{least_db:.0f} dB is asked",
            measured=found_db,
            allowed=least_db,
        )

    def judged(self) -> DecodeDifference:
        """Return what was found.

        Raises:
            VerificationError: All of it together is too much.
        """
        least = self.allowed.least_db
        if least is not None and not self.noise.db >= least:
            raise self._too_far("", self.noise.db, least)
        return DecodeDifference(
            max_abs_error=self.absolute,
            max_rel_error=self.relative,
            sqnr_db=self.noise.db,
            cases=self.cases,
            tokens=self.tokens,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Text:
    """Inputs by name, (batch, sequence, ...) each, that are computed in chunks of ``sizes``.

    Rows begin with as many tokens as ``first`` says, padded to the longest; behind these they grow alike.
    """

    name: str
    inputs: dict[str, Array]
    first: Array
    sizes: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and positions."""
        batch, sequence = next(iter(self.inputs.values())).shape[:2]
        return batch, sequence

    def chunks(self) -> Iterator[tuple[dict[str, Array], Array]]:
        """Yield the inputs of a chunk, and how long each row is after it."""
        yield {name: self._padded(array) for name, array in self.inputs.items()}, self.first
        now = self.first
        for size in self.sizes:
            places = now[:, None] + np.arange(size)
            rows = np.arange(len(now))[:, None]
            now = now + size
            yield {name: array[rows, places] for name, array in self.inputs.items()}, now

    def _padded(self, array: Array) -> Array:
        """Return the first tokens of each row, zeros behind them."""
        padded = array[:, : self.first.max()].copy()
        for row, length in enumerate(self.first):
            padded[row, length:] = 0
        return padded


def _texts(whole: "_WholeText", generation: Generation) -> Iterator[_Text]:
    """Yield what is computed: one row in uneven chunks, and rows of different lengths token by token."""
    windows = [slot.window for slot in generation.slots if slot.window is not None]
    longest = max([FIRST + sum(CHUNKS), *(window + 8 for window in windows if window <= WIDEST)])
    length = min(longest, generation.context or longest)
    sizes: list[int] = []
    for size in CHUNKS:
        if 1 + sum(sizes) + size <= length:
            sizes.append(size)
    yield _Text(
        name="in uneven chunks",
        inputs=whole.draw(1, length),
        first=np.array([length - sum(sizes)]),
        sizes=tuple(sizes),
    )
    steps = min(STEPS, length - 1)
    first = np.minimum(RAGGED, length - steps)
    yield _Text(
        name="rows of different lengths",
        inputs=whole.draw(len(first), int(first.max()) + steps),
        first=first,
        sizes=(1,) * steps,
    )


class _WholeText:
    """The source, which computes whole texts."""

    def __init__(self, source: Artifact, threads: int | None) -> None:
        self.session = Session(source.path, threads=threads)
        self.metadata = source.metadata
        specs = self.session.expected.specs
        self.ids = next(
            name
            for name, spec in specs.items()
            if spec.dtype is not None
            and np.issubdtype(spec.dtype, np.integer)
            and spec.shape is not None
            and len(spec.shape) == 2
            and name not in BESIDE_IDS
        )
        self.dtype = specs[self.ids].dtype
        self.vocabulary = specs[self.ids].ids or _vocabulary(source) or 2
        self._generator = np.random.default_rng(0)

    def loop_counts(self, generation: Generation) -> list[int | None]:
        """Return the loop counts that both can run: 1 and the trained one, or the only one."""
        trained = self.metadata.loops
        looped = any(slot.loops for slot in generation.slots)
        if not (self.session.takes_loops and looped) or trained is None:
            return [None]
        return [1, trained] if trained > 1 else [1]

    def draw(self, batch: int, length: int) -> dict[str, Array]:
        """Return token ids, and noise where the model takes some."""
        drawn = self._generator.integers(0, self.vocabulary, (batch, length))
        found = {IDS_INPUT: drawn.astype(np.int64)}
        for name, deviation in self.metadata.random_inputs.items():
            sizes = [
                size if isinstance(size, int) else 1 for size in self.session.inputs[name].shape
            ]
            noise = self._generator.standard_normal((batch, length, *sizes[2:])) * deviation
            found[name] = noise.astype(self.session.expected.specs[name].dtype or np.float32)
        return found

    def logits(self, inputs: Mapping[str, Array], loops: int | None) -> Array:
        """Return (batch, sequence, vocabulary), of each row alone: a row must not depend on those beside it."""
        batch = len(inputs[IDS_INPUT])
        alone = [
            self._one_row({name: array[row : row + 1] for name, array in inputs.items()}, loops)
            for row in range(batch)
        ]
        return np.concatenate(alone)

    def _one_row(self, inputs: Mapping[str, Array], loops: int | None) -> Array:
        feeds = dict(inputs)
        ids = feeds[self.ids] = feeds.pop(IDS_INPUT).astype(self.dtype)
        for name in self.session.inputs:
            dtype = self.session.expected.specs[name].dtype or np.int64
            held = held_beside(name, ids.shape, dtype)
            if held is not None:
                feeds[name] = held
        counted = self.session.takes_loops and loops is None and LOOPS_INPUT not in feeds
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UntrainedWarning)
            found = self.session.run(feeds, loops=self.metadata.loops if counted else loops)
        return found[self.session.output_names[0]]


class Recomputation:
    """A text as the source computes it, whole."""

    def __init__(self, whole: _WholeText, text: _Text, loops: int | None) -> None:
        self._logits = whole.logits(text.inputs, loops)

    def start(self, batch: int, length: int, loops: int | None) -> None:
        """Begin a text: it is computed already."""

    def run(self, inputs: Mapping[str, Array], lengths: Array) -> Array:
        """Return the logits of each row's last token, (batch, vocabulary)."""
        found: Array = self._logits[np.arange(len(lengths)), lengths - 1]
        return found


def _vocabulary(source: Artifact) -> int | None:
    """Return the size of the vocabulary by the table that the ids select from."""
    for node in source.graph.graph:
        if node.op_type == "Gather" and node.inputs[1] in source.graph.graph.inputs:
            table = node.inputs[0]
            shape = None if table is None else table.shape
            size = None if shape is None else shape[0]
            return size if isinstance(size, int) else None
    return None


class _Decoder:
    """The generate file as it is used: with its cache in one buffer per slot, which `PlainDecoder` copies."""

    def __init__(self, path: Path, generation: Generation, threads: int | None) -> None:
        self.session = ort.InferenceSession(
            str(path), session_options(threads, model=path), providers=["CPUExecutionProvider"]
        )
        self.generation = generation
        self.outputs = [node.name for node in self.session.get_outputs()]
        self.buffers: Mapping[str, ort.OrtValue] = {}

    def start(self, batch: int, length: int, loops: int | None) -> None:
        """Begin a text."""
        dtype = DTYPES[self.generation.cache_type]
        self.buffers = {}
        for slot in self.generation.slots:
            rows = [] if slot.loops is None else [min(loops or slot.loops, slot.loops)]
            size = slot.head_size // (2 if self.generation.cache_type == "int4" else 1)
            for part in ("key", "value"):
                zeros = np.zeros((*rows, *slot.inner, batch, slot.kv_heads, length, size), dtype)
                self.buffers[f"{slot.name}.{part}"] = ort.OrtValue.ortvalue_from_numpy(zeros)

    def run(self, inputs: Mapping[str, Array], lengths: Array) -> Array:
        """Compute the next tokens; return (batch, vocabulary)."""
        binding = self.session.io_binding()
        for name, array in inputs.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(array))
        binding.bind_cpu_input(LENGTHS_INPUT, lengths.astype(np.int32))
        for name, buffer in self.buffers.items():
            binding.bind_ortvalue_input(f"past.{name}", buffer)
        for name in self.outputs[1:]:
            part = self.generation.past_of(name.removeprefix("present."))
            binding.bind_ortvalue_output(name, self.buffers[part])
        binding.bind_output(self.outputs[0])
        self.session.run_with_iobinding(binding)
        logits: Array = binding.get_outputs()[-1].numpy()
        return logits[:, 0]


class LastLoop:
    """What decoding with the cache ``last-loop`` computes, by a file whose iterations keep their own.

    Before each chunk every iteration is handed what the last one kept, in memory of its own. So nothing here stands on how
    the slots of the file that is checked share their buffer.

    Args:
        path: A generate file of the form unrolled and the cache ``per-loop``.
        generation: What it says of itself.
        threads: Threads of ONNX Runtime.
    """

    def __init__(self, path: Path, generation: Generation, *, threads: int | None) -> None:
        self._decoder = _Decoder(path, generation, threads)
        last: dict[tuple[str, str], tuple[int, str]] = {}
        for slot in generation.slots:
            core, *places = slot.name.split(".")
            if len(places) > 1:
                last[core, places[1]] = max(
                    last.get((core, places[1]), (-1, "")), (int(places[0]), slot.name)
                )
        self._last = last

    def start(self, batch: int, length: int, loops: int | None) -> None:
        """Begin a text."""
        self._decoder.start(batch, length, loops)

    def run(self, inputs: Mapping[str, Array], lengths: Array) -> Array:
        """Compute the next tokens; return (batch, vocabulary)."""
        found = self._decoder.run(inputs, lengths)
        arrays = {name: buffer.numpy() for name, buffer in self._decoder.buffers.items()}
        self._decoder.buffers = {
            name: ort.OrtValue.ortvalue_from_numpy(arrays[self._kept(name)].copy())
            for name in arrays
        }
        return found

    def _kept(self, name: str) -> str:
        """Return whose keys or values a part of the cache is handed: the last iteration's of the same attention."""
        core, *places, part = name.split(".")
        return name if len(places) < 2 else f"{self._last[core, places[1]][1]}.{part}"
