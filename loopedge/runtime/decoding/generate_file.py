"""A generate file that was opened: its session, its cache, and what it says that it can do."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from loopedge.artifact.properties import read_properties
from loopedge.errors import InputError, ProviderError
from loopedge.files.input_files import check_file
from loopedge.graph.metadata import FOREIGN, Generation, Metadata, read_metadata
from loopedge.options import option, option_name
from loopedge.runtime.decoding.cache_buffers import CachePort, cache_ports
from loopedge.runtime.decoding.token_noise import NoiseInput
from loopedge.runtime.providers import CPU_PROVIDER, full_name
from loopedge.runtime.session import DTYPES, Session, failure_reason

__all__ = ["GenerateFile", "needed_runtime"]

WINDOWS, QUANTIZED, SCATTERED, CAPPED = (1, 24), (1, 27), (1, 25), (1, 27)
"""The first ONNX Runtime with right windows of attention (1.23 is silently wrong), with int8 and int4 caches, and with
TensorScatter, and with an Attention that caps scores before the mask (1.26 does it behind it: silently wrong)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GenerateFile:
    """A file with a cache.

    Args:
        path: Of the file.
        session: That runs it; several streams share it.
        generation: What the file says of its cache.
        ports: Of its cache.
    """

    path: Path
    session: Session
    generation: Generation
    ports: tuple[CachePort, ...]

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        threads: int | None = None,
        provider: str = "cpu",
        memory: str | None = None,
    ) -> "GenerateFile":
        """Open a file.

        Raises:
            InputError: It has no cache, its cache is damaged, onnxruntime is too old for it; or as `Session`.
            ProviderError: The provider is not the CPU.
        """
        source = check_file(path, needed="an ONNX file", hint="loopedge export model.pt")
        asked = full_name(provider)
        if asked != CPU_PROVIDER:
            raise ProviderError(
                f"{source} decodes on the CPU: on {asked} it was never tried",
                hint=option("provider", "cpu"),
            )
        _check_runtime(source, _stored(source), ort.__version__)
        session = Session(source, threads=threads, provider=provider, memory=memory)
        generation = session.metadata.generate
        if generation is None:
            raise without_cache(source)
        _check_runtime(
            source, session.metadata, ort.__version__
        )  # a file in ORT format says it now
        try:
            ports = cache_ports(session.session, DTYPES)
        except InputError as error:
            raise InputError(f"{source}: {error.message}") from error
        opened = cls(path=source, session=session, generation=generation, ports=ports)
        opened._check_ports()
        return opened

    @property
    def metadata(self) -> Metadata:
        """What the file says of itself."""
        return self.session.metadata

    @cached_property
    def vocabulary(self) -> int:
        """Tokens that the logits are of; where the file does not say it, a first token does."""
        size = self._logits.shape[-1]
        return size if isinstance(size, int) else self._try_token()

    @property
    def ids(self) -> int:
        """Tokens that it takes: less than `vocabulary` where a table was padded."""
        return self.generation.vocab_size or self.vocabulary

    @property
    def longest(self) -> int | None:
        """Positions that it takes at most; None: any number."""
        fixed = [port.longest for port in self.ports]
        known = [self.generation.context, self.metadata.max_length, *fixed]
        return min((length for length in known if length is not None), default=None)

    @property
    def id_type(self) -> np.dtype[Any]:
        """Type of the ids."""
        return DTYPES.get(self.session.inputs["input_ids"].type, np.dtype(np.int64))

    @property
    def noise(self) -> tuple[NoiseInput, ...]:
        """The inputs of noise beside the tokens.

        Raises:
            InputError: One does not go with the tokens.
        """
        found = []
        for name, deviation in self.metadata.random_inputs.items():
            node = self.session.inputs.get(name)
            if node is None:
                continue
            features, dtype = tuple(node.shape[2:]), DTYPES.get(node.type)
            if dtype is None or dtype.kind != "f" or not all(isinstance(n, int) for n in features):
                raise InputError(
                    f"{self.path}: input {name} is {node.shape}, noise of tokens is needed"
                )
            found.append(NoiseInput(name=name, deviation=deviation, features=features, dtype=dtype))
        return tuple(found)

    @property
    def takes_loops(self) -> bool:
        """Whether the loop count is chosen when it runs."""
        looped = [port for port in self.ports if port.looped]
        one = self.metadata.cores is None and len({port.place for port in looped}) == 1
        return one and all(port.loops is None for port in looped)

    @property
    def lowering_is_exact(self) -> bool:
        """Whether what was computed with more loops serves fewer: no layer behind the core keeps what it gave."""
        return self.takes_loops and not any(port.place == "coda" for port in self.ports)

    def loops_of(self, asked: int | None) -> int | None:
        """Return the loop count that runs.

        Raises:
            InputError: The file does not choose it, or has fewer.
        """
        metadata = self.metadata
        if asked is None or (asked == metadata.loops and metadata.cores is None):
            return metadata.loops
        if asked < 1 or asked != int(asked):
            raise InputError(f"loops is {asked}, at least 1 is needed", hint=option("loops", 1))
        if not self.takes_loops:
            runs = "several loop counts" if metadata.cores else f"{metadata.loops} loops"
            raise InputError(
                f"{self.path} runs {runs}, {asked} were asked for",
                hint="leave the loops out, or write the file in the form scan: loopedge to-generate model.onnx",
            )
        most = metadata.max_loops or metadata.loops
        if most is not None and asked > most:
            raise InputError(
                f"{self.path} runs at most {most} loops, {asked} were asked for",
                hint=option("loops", most),
            )
        return int(asked)

    def rows_of(self, loops: int | None) -> dict[str, int]:
        """Return the iterations of each port of a Scan."""
        slots = {slot.name: slot.loops for slot in self.generation.slots}
        rows = {}
        for port in self.ports:
            if not port.looped:
                continue
            stored = slots.get(port.name.rpartition(".")[0])
            chosen = (
                loops if self.takes_loops else stored or (self.metadata.cores or {}).get(port.place)
            )
            count = port.loops or chosen or loops
            if count is None:
                raise InputError(f"{self.path} does not say how often {port.place} runs")
            rows[port.name] = count
        return rows

    def context_of(self, asked: int | None) -> int | None:
        """Return the positions at most of a text; None: any number.

        Raises:
            InputError: More were asked for than the file takes.
        """
        if asked is None:
            return self.longest
        if asked < 1 or asked != int(asked):
            raise InputError(f"{option_name('context')} is {asked}, at least 1 is needed")
        if self.longest is not None and asked > self.longest:
            raise InputError(
                f"{self.path} takes at most {self.longest} positions, a context of {asked} was asked for",
                hint=option("context", self.longest),
            )
        return int(asked)

    @property
    def _logits(self) -> ort.NodeArg:
        return next(node for node in self.session.session.get_outputs() if node.name == "logits")

    def _try_token(self) -> int:
        rows = self.rows_of(self.loops_of(None))
        feeds = {
            port.past: np.zeros(
                port.shape(rows.get(port.name, 0), 1, port.longest or 1), port.dtype
            )
            for port in self.ports
        }
        for noise in self.noise:
            feeds[noise.name] = np.zeros((1, 1, *noise.features), noise.dtype)
        feeds |= {"input_ids": np.zeros((1, 1), self.id_type), "lengths": np.ones(1, np.int32)}
        try:
            logits = self.session.session.run(["logits"], feeds)[0]
        except Exception as error:  # onnxruntime raises a kind of its own per failure
            raise InputError(f"{self.path} failed to run: {failure_reason(error)}") from error
        return int(logits.shape[-1])

    def _check_ports(self) -> None:
        inputs, outputs = set(self.session.inputs), set(self.session.output_names)
        missing = {"input_ids", "lengths"} - inputs | {"logits"} - outputs
        known = {"input_ids", "lengths", *self.metadata.random_inputs}
        more = inputs - known - {port.past for port in self.ports}
        if missing or more or not self.ports:
            wrong = (
                f"no {min(missing)}" if missing else f"an input {min(more)}" if more else "no slot"
            )
            raise InputError(
                f"{self.path} is damaged: it says that it has a cache, and has {wrong}",
                hint="loopedge to-generate model.onnx",
            )
        shape = self._logits.shape
        if self._logits.type != "tensor(float)" or len(shape) != 3:
            raise InputError(
                f"{self.path} is damaged: its logits are {self._logits.type} {shape}, "
                "float32 (batch, 1, vocabulary) is needed"
            )
        lengths = self.session.inputs["lengths"].type
        if (
            self.id_type not in (np.dtype(np.int64), np.dtype(np.int32))
            or lengths != "tensor(int32)"
        ):
            raise InputError(
                f"{self.path} is damaged: its ids are {self.id_type} and its lengths {lengths}, integers are needed"
            )
        if self.ids > self.vocabulary:
            raise InputError(
                f"{self.path} is damaged: it says {self.ids} tokens, its logits are of {self.vocabulary}"
            )


def without_cache(path: Path) -> InputError:
    """Return the error of a file that has no cache."""
    return InputError(
        f"{path} has no cache: it computes the whole text for each token",
        hint=f"loopedge to-generate {path}",
    )


def needed_runtime(metadata: Metadata) -> tuple[tuple[int, int], str] | None:
    """Return the version of onnxruntime that a file's cache needs at least, and what needs it; None: any."""
    generation = metadata.generate
    if generation is None:
        return None
    needs: list[tuple[tuple[int, int], str]] = []
    if generation.cache_type in {"int8", "int4"}:
        needs.append((QUANTIZED, f"a cache of {generation.cache_type}"))
    if metadata.form == "tensorscatter":
        needs.append((SCATTERED, "the form tensorscatter"))
    if metadata.form == "tensorscatter" and any(slot.softcap for slot in generation.slots):
        needs.append((CAPPED, "a soft cap of attention in the form tensorscatter"))
    if any(slot.window is not None for slot in generation.slots):
        needs.append((WINDOWS, "attention with a window"))
    return max(needs, default=None)


def _stored(source: Path) -> Metadata:
    """Return what a file says of itself; of one that cannot be read, nothing: the session says what is wrong."""
    if source.suffix == ".ort":
        return FOREIGN
    try:
        properties = read_properties(source)
    except (ValueError, OSError):
        return FOREIGN
    return read_metadata(properties)


def _check_runtime(source: Path, metadata: Metadata, version: str) -> None:
    need = needed_runtime(metadata)
    if need is None:
        return
    (major, minor), what = need
    found = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if found < (major, minor):
        raise InputError(
            f"{source} needs onnxruntime {major}.{minor} for {what}, this is {version}",
            hint=f"pip install 'onnxruntime>={major}.{minor}'",
        )
