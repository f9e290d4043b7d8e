"""Run an exported model: numpy and onnxruntime, nothing else."""

import contextlib
import math
import warnings
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loopedge.artifact.properties import mentions, read_properties
from loopedge.artifact.sizes import check_sizes, described_data
from loopedge.errors import (
    InputError,
    InputLengthWarning,
    LoopCountWarning,
    LoopedgeError,
    ProviderError,
    UntrainedWarning,
)
from loopedge.files.input_files import check_file
from loopedge.files.staging import again_if_replaced
from loopedge.graph.metadata import (
    FOREIGN,
    LOOPS_INPUT,
    TOLERANCE_INPUT,
    Metadata,
    read_metadata,
)
from loopedge.graph.signature import TEXT, InputSpec, shape_text
from loopedge.options import option
from loopedge.runtime.cuda import (
    cuda_failure,
    preload_libraries,
    quiet_provider,
    ran_out_of_memory,
    refusal,
)
from loopedge.runtime.denormals import DenormalsAreZero
from loopedge.runtime.inputs import ModelInputs
from loopedge.runtime.memory_profiles import choose_profile
from loopedge.runtime.placement import (
    RECORD_ASSIGNMENT,
    assigned_operators,
    check_products,
    elsewhere_notes,
)
from loopedge.runtime.providers import CPU_PROVIDER, CUDA_PROVIDER, Provider, find_provider
from loopedge.runtime.session_options import open_session, session_options

__all__ = ["DTYPES", "Session", "failure_reason", "untrained_inputs"]

Array = npt.NDArray[Any]

BODY_WORDS = (b"body", b"then_branch")
"""Attributes that hold bodies, as they stand in a file."""

BAD_FILES = ("InvalidGraph", "InvalidProtobuf", "NoModel", "NoSuchFile")
"""What ONNX Runtime raises of a file that no provider could run."""

MOST_LOOPS, MOST_THREADS = 2**62, 1024
DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(double)": np.dtype(np.float64),
    "tensor(int64)": np.dtype(np.int64),
    "tensor(int32)": np.dtype(np.int32),
    "tensor(int16)": np.dtype(np.int16),
    "tensor(int8)": np.dtype(np.int8),
    "tensor(uint64)": np.dtype(np.uint64),
    "tensor(uint32)": np.dtype(np.uint32),
    "tensor(uint16)": np.dtype(np.uint16),
    "tensor(uint8)": np.dtype(np.uint8),
    "tensor(bool)": np.dtype(np.bool_),
    "tensor(string)": TEXT,
}
"""ONNX Runtime's names of the types that numpy has."""


_untrained = ContextVar("untrained", default=False)


@contextlib.contextmanager
def untrained_inputs() -> Iterator[None]:
    """Let sessions run, without a word, on what no model was trained with: windows of any length, any loop count.

    For checks that compare two files, which ask whether they compute the same and not what that is worth.
    """
    token = _untrained.set(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UntrainedWarning)
            yield
    finally:
        _untrained.reset(token)


class Session:
    """An exported model, ready to run.

    Args:
        path: The ``.onnx`` file, its external data beside it, or an ``.ort`` file.
        threads: Threads inside an operator; default: ONNX Runtime's own choice.
        provider: ``cpu``, ``cuda``, or another execution provider that the installed onnxruntime has, plug-in packages
            included: ``openvino``, ``webgpu``, ``CoreMLExecutionProvider`` (docs/profiling.md, Execution providers).
        memory: ``balanced``, ``low`` or ``mapped`` (docs/memory.md); default: as the file says.
        provider_options: Of the provider, by its own names.

    Attributes:
        memory: The memory profile that runs.
        takes_loops: Whether an input chooses the loop count; one of that name may also be data.
        notes: What a person should know of it.

    Raises:
        InputError: The file is missing, is not an ONNX model, or its data is missing; it was prepared
            for another processor or version of onnxruntime, or ``memory`` does not fit it.
        ProviderError: The execution provider is not available, or runs none of the model's products.
        LoopedgeError: The device's memory does not hold the model.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        threads: int | None = None,
        provider: str = "cpu",
        memory: str | None = None,
        provider_options: Mapping[str, str] | None = None,
    ) -> None:
        source = check_file(path, needed="an ONNX file", hint="loopedge export model.pt")
        if threads is not None and not 1 <= threads <= MOST_THREADS:
            raise InputError(
                f"threads is {threads}, 1 to {MOST_THREADS} are allowed", hint=option("threads", 1)
            )
        found = find_provider(provider, provider_options)
        if found.name == CUDA_PROVIDER:
            preload_libraries()
        again_if_replaced(source, lambda: self._open(source, threads, found, memory))
        self.provider = self.session.get_providers()[0]
        if self.provider != found.name:
            raise (
                refusal()
                if found.name == CUDA_PROVIDER
                else _taken_over(source, found, self.provider)
            )
        if found.name != CPU_PROVIDER:
            assigned = assigned_operators(self.session)
            check_products(assigned, found.name, source, hint=option("provider", "cpu"))
            self.notes += elsewhere_notes(assigned, found.name)
        self.path = source
        self.inputs = {node.name: node for node in self.session.get_inputs()}
        self.optional_inputs = {
            node.name: node for node in self.session.get_overridable_initializers()
        }
        specs = [_spec(node, has_default=False) for node in self.inputs.values()]
        specs += [_spec(node, has_default=True) for node in self.optional_inputs.values()]
        self.expected = ModelInputs.of(source, specs, self.metadata)
        self.takes_loops = any(spec.chooses_loops and not spec.has_default for spec in specs)
        self.output_names = [node.name for node in self.session.get_outputs()]
        if not self.takes_loops and self.metadata.loops is not None:
            note = self.metadata.loops_note(self.metadata.loops)
            self.notes += [] if note is None else [note]

    def __repr__(self) -> str:
        """Return what it runs in one line: file, form, loops, ports, provider, memory profile."""
        known = self.metadata
        form = "not written by loopedge" if known.foreign else known.form
        loops = ""
        if self.takes_loops:
            loops = ", any loops" if known.foreign else f", loops={known.loops} (selectable)"
        elif known.cores is not None:
            loops = f", loops={known.cores}"
        elif not known.foreign:
            loops = f", loops={known.loops}"
        inputs = ", ".join(
            f"{name} {shape_text(spec.shape)}" for name, spec in self.expected.specs.items()
        )
        return (
            f"<Session {self.path}: {form}{loops}, {inputs} -> {', '.join(self.output_names)}, "
            f"{self.provider}, memory={self.memory}>"
        )

    @property
    def axes(self) -> dict[str, list[int | str | None]]:
        """Sizes and names of the axes of each input."""
        return {name: list(node.shape) for name, node in self.inputs.items()}

    def _open(
        self, source: Path, threads: int | None, provider: Provider, memory: str | None
    ) -> None:
        """Read what the file says of itself, and load it."""
        self.metadata = _read_metadata(source)
        if self.metadata.foreign:
            _check_loads(source)
        chosen = choose_profile(memory, self.metadata, source, provider=provider.name)
        self.memory: str = chosen.profile
        self.notes = [] if chosen.note is None else [chosen.note]
        options = session_options(threads, self.memory, model=source, optimize=chosen.optimize)
        elsewhere = provider.name != CPU_PROVIDER
        if elsewhere:
            options.add_session_config_entry(RECORD_ASSIGNMENT, "1")
        named = (provider.name, dict(provider.options))
        try:
            with quiet_provider() if elsewhere else contextlib.nullcontext():
                self.session = open_session(str(source), options, named, self.memory)
        except ProviderError:
            raise
        except Exception as error:  # onnxruntime raises a kind of its own per failure
            raise _refusal(source, error, provider.name) from error

    def run(
        self,
        inputs: Mapping[str, npt.ArrayLike] | npt.ArrayLike,
        loops: int | None = None,
        *,
        tolerance: float | None = None,
        seed: int = 0,
    ) -> dict[str, Array]:
        """Run the model once.

        Args:
            inputs: One array per input of the graph, by name, or for a model of one input the array.
                ``loops``, ``tolerance``, inputs that hold noise and ``attention_mask`` may be left out; a
                window of fewer positions than the task's context is then padded as in training.
            loops: Iterations, for a model exported with ``--dynamic-loops``; default: the count
                it was exported with. Higher counts than the file runs are clamped to it.
            tolerance: For a model exported with ``--exit tolerance=X``: the relative change of its
                state below which a row is done; default: X; 0 runs all iterations.
            seed: Of the noise: ``numpy.random.default_rng(seed).standard_normal(shape)`` times the
                standard deviation that the model was trained with, input after input.

        Returns:
            The outputs by name.

        Raises:
            InputError: The inputs are not what the model takes, as `ModelInputs.accept` says; the
                loop count is fixed or below 1; the model takes no tolerance.
            LoopedgeError: The device ran out of memory.

        Warns:
            LoopCountWarning: The model was not trained with so many loops.
            InputLengthWarning: It was not trained on so few positions.
        """
        if not isinstance(inputs, Mapping):
            inputs = self.expected.name_array(np.asarray(inputs))
        feeds = {name: np.asarray(value) for name, value in inputs.items()}
        feeds.update(self._loops_feed(loops, given=LOOPS_INPUT in feeds))
        if tolerance is not None:
            feeds[TOLERANCE_INPUT] = self._tolerance(tolerance)
        feeds = self.expected.accept(feeds, seed=seed, untrained=_untrained.get()).arrays
        self._warn(feeds)
        try:
            with DenormalsAreZero():
                values = self.session.run(self.output_names, feeds)
        except Exception as error:  # onnxruntime raises a kind of its own per failure
            if self.provider == CUDA_PROVIDER and ran_out_of_memory(error):
                raise _full(self.path, error) from error
            raise InputError(f"{self.path} failed to run: {failure_reason(error)}") from error
        return dict(zip(self.output_names, values, strict=True))

    def _warn(self, feeds: Mapping[str, Array]) -> None:
        known = self.metadata
        if self.takes_loops and LOOPS_INPUT in feeds:
            loops = known.loops_note(int(feeds[LOOPS_INPUT].item()))
            if loops is not None:
                warnings.warn(loops, LoopCountWarning, stacklevel=3)
        positions = self.expected.fewest_positions(feeds)
        length = None if positions is None else known.length_note(positions)
        if length is not None:
            warnings.warn(length, InputLengthWarning, stacklevel=3)

    def _tolerance(self, tolerance: float) -> Array:
        found = self.expected.specs.get(TOLERANCE_INPUT)
        if found is None or not found.is_tolerance or self.metadata.tolerance is None:
            raise InputError(
                f"{self.path} takes no tolerance",
                hint="loopedge export model.pt --exit tolerance=1e-3",
            )
        if not (math.isfinite(tolerance) and tolerance >= 0):
            raise InputError(f"tolerance is {tolerance}, it must be finite and at least 0")
        return np.array(min(tolerance, np.finfo(np.float32).max), np.float32)

    def _loops_feed(self, loops: int | None, *, given: bool) -> dict[str, Array]:
        if loops is not None and (loops < 1 or loops != int(loops)):
            raise InputError(f"loops is {loops}, at least 1 is needed", hint=option("loops", 1))
        if self.takes_loops:
            if given and loops is None:
                return {}
            default = self.metadata.loops
            if loops is None and default is None:
                raise InputError("the model takes a loop count", hint=option("loops", "N"))
            return {LOOPS_INPUT: np.array(min(int(loops or default or 1), MOST_LOOPS), np.int64)}
        fixed = self.metadata.loops if self.metadata.cores is None else None
        if loops is not None and loops != fixed:
            raise InputError(
                f"{self.path} runs {fixed if fixed else 'a fixed number of'} loops, "
                f"{loops} were asked for",
                hint="loopedge export model.pt --dynamic-loops",
            )
        return {}


def _spec(node: Any, *, has_default: bool) -> InputSpec:
    """Return what ONNX Runtime says of an input."""
    return InputSpec(
        name=node.name,
        dtype=DTYPES.get(node.type),
        shape=tuple(node.shape),
        has_default=has_default,
    )


def _read_metadata(source: Path) -> Metadata:
    try:
        if source.suffix == ".ort":
            from loopedge.artifact.reading.ort_format import read_ort_properties  # imports onnx

            properties = read_ort_properties(source)
        else:
            properties = read_properties(source)
    except (ValueError, OSError):
        return FOREIGN  # onnxruntime will say what is wrong with the file
    if source.suffix != ".ort":
        check_sizes(source, described_data(source, properties))
    return read_metadata(properties)


def _check_loads(source: Path) -> None:
    """Refuse a file that ONNX Runtime would end the process at. What loopedge writes is never such a file."""
    if source.suffix == ".ort" or not mentions(source, b"DequantizeLinear"):
        return
    if any(mentions(source, word) for word in BODY_WORDS):
        from loopedge.artifact.artifact import Artifact  # imports onnx

        Artifact.open(source)


def _refusal(source: Path, error: Exception, provider: str) -> LoopedgeError:
    """Say why a session was not created: for want of the device, of its memory, or for the model."""
    if provider == CUDA_PROVIDER and ran_out_of_memory(error):
        return _full(source, error)
    if provider == CUDA_PROVIDER and cuda_failure(error) is not None:
        return refusal(error)
    if provider not in {CPU_PROVIDER, CUDA_PROVIDER} and type(error).__name__ not in BAD_FILES:
        return ProviderError(
            f"{provider} cannot run {source}: {failure_reason(error)}",
            hint=option("provider", "cpu"),
        )
    return InputError(
        f"{source} cannot be loaded: {failure_reason(error)}", hint=f"loopedge inspect {source}"
    )


def _taken_over(source: Path, asked: Provider, runs: str) -> ProviderError:
    return ProviderError(
        f"{asked.name} was asked for, {runs} would run {source}", hint=option("provider", "cpu")
    )


def _full(path: Path, error: Exception) -> LoopedgeError:
    return LoopedgeError(
        f"{path} ran out of GPU memory: {failure_reason(error)}", hint="a smaller batch or sequence"
    )


def failure_reason(error: Exception) -> str:
    """Return what ONNX Runtime says went wrong, in one line."""
    failure = cuda_failure(error)
    if failure is not None:
        return failure
    lines = str(error).strip().splitlines()
    return lines[0].removeprefix("[ONNXRuntimeError] : ") if lines else type(error).__name__
