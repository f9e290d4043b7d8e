"""Give a language model a cache and decode with it, by a runner of its own: what comes out is what the whole text gives.

The runner binds numpy arrays, one per slot and part, as past and present. It shares nothing with the check of
``loopedge to-generate``, which is judged too: what the pass lets through though it cannot be cached, the check refuses.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from loopedge.errors import InputError, VerificationError
from loopedge.graph.core.unrolling import unroll_loops
from loopedge.graph.decoding.decoding import Decoding, DecodingOptions, give_cache
from loopedge.graph.naming import keep_names_apart
from tests.fuzz.language_models import VOCABULARY, write_language_model
from tests.fuzz.language_specs import FAULTS, LanguageSpec, draw_spec

__all__ = [
    "Decoded",
    "DecodingRunner",
    "draw_numbered_model",
    "judge_decoding",
    "largest_difference",
    "whole_logits",
]

Array = NDArray[Any]

MOST_ERROR = 1e-4
"""Relative to the largest logit of a text."""
LONGEST = 90


@dataclass(frozen=True, slots=True)
class Decoded:
    """What became of a model: ``decoded``, ``refused`` by the pass or by the check, and what is wrong; None: nothing."""

    kind: str
    reason: str = ""
    problem: str | None = None


def draw_numbered_model(name: str) -> tuple[LanguageSpec, bool]:
    """Draw the model of ``SEED.NUMBER``, every second one with a fault, and choose whether the command judges it."""
    number = int(name.rpartition(".")[2])
    fault = FAULTS[number // 2 % len(FAULTS)] if number % 2 else None
    return draw_spec(name, fault=fault), number % 20 == 0


def judge_decoding(spec: LanguageSpec, folder: Path, *, command: bool = False) -> Decoded:
    """Judge a model.

    Args:
        spec: Of the model.
        folder: Where files are written.
        command: Write a file by `loopedge.to_generate` too; a model with a fault always goes that way.
    """
    proto = write_language_model(spec)
    model = ir.from_proto(onnx.ModelProto.FromString(proto.SerializeToString()))
    rng = random.Random(spec.seed)
    try:
        if rng.random() < 0.3 and not spec.counted:
            model = unroll_loops(model, inner=rng.random() < 0.7).model
        standard = rng.random() < 0.25
        decoding = give_cache(
            model, DecodingOptions(operators="standard" if standard else "grouped")
        )
    except InputError as error:
        lines = error.message.splitlines()
        return Decoded("refused", error.message, None if len(lines) == 1 else "of several lines")
    except Exception as error:
        return Decoded("failed", problem=f"{type(error).__name__}: {error}")
    keep_names_apart(decoding.model)
    found: str | None
    try:
        found = largest_difference(proto, decoding, spec, rng)
    except Exception as error:
        found = f"does not run: {(str(error).splitlines() or [''])[0][:300]}"
    if not (command or spec.fault):
        return Decoded("decoded", problem=found)
    return _by_command(spec, proto, folder, found)


def _by_command(
    spec: LanguageSpec, proto: onnx.ModelProto, folder: Path, found: str | None
) -> Decoded:
    import loopedge

    source = folder / "lm.onnx"
    onnx.save(proto, source)
    try:
        loopedge.to_generate(source, threads=1, force=True)
    except (InputError, VerificationError) as error:
        kind = "refused by the check" if isinstance(error, VerificationError) else "refused"
        if sorted(path.name for path in folder.iterdir()) != ["lm.onnx"]:
            return Decoded(kind, error.message, "a file was left")
        wrong = found is None and spec.fault is None and spec.noted == 1.0
        return Decoded(
            kind, error.message, f"refused for nothing: {error.message}" if wrong else None
        )
    if found is not None:
        return Decoded("decoded", problem=f"the check passed, but {found}")
    harmless = f"{spec.fault} changes nothing" if spec.fault else ""
    return Decoded("decoded", reason=harmless)


def whole_logits(session: Any, ids: Array, loops: int | None = None) -> Array:
    """Return logits (batch, sequence, vocabulary) of whole texts without padding."""
    feeds: dict[str, Array] = {}
    for value in session.get_inputs():
        if value.name == "attention_mask":
            feeds[value.name] = np.ones_like(ids)
        elif value.name == "position_ids":
            feeds[value.name] = np.broadcast_to(np.arange(ids.shape[1]), ids.shape).copy()
        elif value.name == "loops":
            feeds[value.name] = np.array(loops, np.int64)
        else:
            feeds[value.name] = ids
    logits: Array = session.run([session.get_outputs()[0].name], feeds)[0]
    return logits


class DecodingRunner:
    """A generate file with arrays of its own.

    Args:
        model: The file, or its bytes.
        slots: (name, rows, kv heads, head size) each; the rows are iterations, those of the outermost Loop first.
    """

    def __init__(
        self, model: bytes | str, slots: Sequence[tuple[str, tuple[int, ...], int, int]]
    ) -> None:
        self.session, self.slots = session_of(model), slots
        self.names = {value.name for value in self.session.get_inputs()}
        (self.ids,) = [n for n in self.names if n != "lengths" and not n.startswith("past.")]
        self.arrays: dict[str, Array] = {}

    def start(self, batch: int, capacity: int, loops: int | None, filler: float = 0.0) -> None:
        """Begin texts with room for ``capacity`` tokens each."""
        self.arrays = {}
        for name, rows, heads, size in self.slots:
            first = rows if loops is None or not rows else (loops, *rows[1:])
            for part in ("key", "value"):
                shape = (*first, batch, heads, capacity, size)
                self.arrays[f"{name}.{part}"] = np.full(shape, filler, np.float32)

    def run(self, ids: Array, lengths: Sequence[int]) -> Array:
        """Compute a chunk; return logits (batch, vocabulary)."""
        binding = self.session.io_binding()
        ids, counts = np.ascontiguousarray(ids, np.int64), np.array(lengths, np.int32)
        self._bind(binding.bind_input, self.ids, ids)
        self._bind(binding.bind_input, "lengths", counts)
        for name, array in self.arrays.items():
            self._bind(binding.bind_input, f"past.{name}", array)
            self._bind(binding.bind_output, f"present.{name}", array)
        binding.bind_output("logits")
        self.session.run_with_iobinding(binding)
        names = [value.name for value in self.session.get_outputs()]
        found = dict(
            zip(
                [*[f"present.{n}" for n in self.arrays], "logits"],
                binding.get_outputs(),
                strict=True,
            )
        )
        assert set(found) == set(names), f"outputs {names}"
        logits: Array = found["logits"].numpy().copy()
        assert logits.shape[:2] == (len(ids), 1), f"logits of shape {logits.shape}"
        return logits[:, 0]

    @staticmethod
    def _bind(bind: Any, name: str, array: Array) -> None:
        bind(name, "cpu", 0, array.dtype.type, list(array.shape), array.ctypes.data)


def session_of(model: bytes | str) -> Any:
    """Return a session with one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def largest_difference(
    proto: onnx.ModelProto, decoding: Decoding, spec: LanguageSpec, rng: random.Random
) -> str | None:
    """Decode and compare with whole texts; say where it differs, or None."""
    source = session_of(proto.SerializeToString())
    slots = [
        (
            slot.name,
            () if slot.loops is None else (slot.loops, *slot.inner),
            slot.kv_heads,
            slot.head_size,
        )
        for slot in decoding.slots
    ]
    runner = DecodingRunner(ir.to_proto(decoding.model).SerializeToString(), slots)
    generator = np.random.default_rng(spec.seed)
    counts: list[int | None] = [1, spec.loops] if spec.counted else [None]
    for loops in counts:
        for what, have, want in _pieces(source, runner, decoding.context, generator, rng, loops):
            scale = max(float(np.abs(want).max()), 1e-6)
            error = float(np.abs(have - want).max()) / scale
            if not error <= MOST_ERROR:
                return f"{what} differs by {error:.1e}" + (f" at {loops} loops" if loops else "")
    return None


Piece = tuple[str, Array, Array]


def _pieces(
    source: Any,
    runner: DecodingRunner,
    context: int | None,
    generator: np.random.Generator,
    rng: random.Random,
    loops: int | None,
) -> Iterator[Piece]:
    """Yield what is compared: its name, what is decoded, what the whole text gives."""
    longest = min(LONGEST, context or LONGEST)
    ids = generator.integers(0, VOCABULARY, (1, longest))
    expected = whole_logits(source, ids, loops)
    runner.start(1, longest, loops)
    done = 0
    while done < longest:
        size = min(rng.choice((1, 1, 1, 2, 3, 8, 17)), longest - done)
        found = runner.run(ids[:, done : done + size], [done + size])
        done += size
        yield f"token {done} of one text, {size} at once", found, expected[:, done - 1]
    yield from _ragged(source, runner, generator, rng, loops)


def _ragged(
    source: Any,
    runner: DecodingRunner,
    generator: np.random.Generator,
    rng: random.Random,
    loops: int | None,
) -> Iterator[Piece]:
    """Yield texts of several lengths that start together, in a buffer with room to spare and old content."""
    batch, steps = rng.choice((2, 4)), rng.choice((3, 9))
    lengths = [rng.choice((1, 2, 6, 12)) for _ in range(batch)]
    first = max(lengths)
    ids = generator.integers(0, VOCABULARY, (batch, first + steps))
    runner.start(batch, first + steps + 3, loops, filler=0.7)
    padded = ids[:, :first].copy()
    for row, length in enumerate(lengths):
        padded[row, length:] = rng.randrange(VOCABULARY)
    rows = np.arange(batch)
    alone = [whole_logits(source, ids[row : row + 1], loops)[0] for row in rows]

    def wanted() -> Array:
        return np.stack([alone[row][lengths[row] - 1] for row in rows])

    yield f"rows of {lengths} tokens", runner.run(padded, lengths), wanted()
    for step in range(steps):
        tokens = ids[rows, lengths][:, None]
        lengths = [length + 1 for length in lengths]
        found = runner.run(tokens, lengths)
        yield f"token {step + 1} behind rows of different lengths", found, wanted()
