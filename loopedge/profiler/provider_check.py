"""Outputs of an execution provider held against those of the CPU, before any of its times counts.

docs/profiling.md says what passes, and what that rests on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from loopedge.artifact.artifact import write_artifact
from loopedge.errors import LoopedgeError, ProviderError, VerificationError
from loopedge.graph.agreement import TOLERANCE, NoiseRatio, at_kept, largest_error, sqnr_db
from loopedge.graph.offsets import OutputOffsets
from loopedge.options import option
from loopedge.profiler.options import ProfileOptions
from loopedge.profiler.processes.measured_process import MeasuredProcess
from loopedge.profiler.processes.setup import ProcessSetup
from loopedge.profiler.result import AgainstCpu
from loopedge.profiler.subjects.bfloat16 import round_to_bfloat16
from loopedge.profiler.subjects.profiled_model import ProfiledModel
from loopedge.runtime.inputs import MASK
from loopedge.runtime.latency import time_in_turns, time_ratios
from loopedge.runtime.placement import elsewhere_notes
from loopedge.runtime.providers import CPU_PROVIDER

__all__ = ["Agreement", "CheckedModel", "check_providers", "judge"]

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]

ROUNDING = 10**0.1
"""How many times the noise of the CPU's own rounding a quantized file may show: 1 dB."""
STORING = 2.0
"""How many times the noise of bfloat16 an engine may show: 3 dB."""
FLIPS = 2 * ROUNDING
"""Two roundings of one file, each with its own noise, against each other."""
LEAST_DB = 20.0
"""What an engine must reach where nothing is known of the file: a tenth of the outputs' norm."""

TIMED_SECONDS, TIMED_RUNS, ROUNDS = 0.5, (3, 30), 5
TURNED = "outputs differ in shape or in values that are not numbers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How far outputs are from those of the CPU, and how far they may be: as `AgainstCpu` says."""

    compared_with: str
    max_rel_error: float
    sqnr_db: float
    cpu_sqnr_db: float | None
    bfloat16_db: float | None
    limit_db: float | None

    @property
    def passed(self) -> bool:
        """Whether the provider computes what the file says."""
        return self.limit_db is None or self.sqnr_db >= self.limit_db


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedModel:
    """A model that may be measured, where its nodes are, and how it does against the CPU."""

    model: ProfiledModel
    assigned: dict[str, dict[str, int]]
    against_cpu: AgainstCpu | None
    notes: list[str]


def check_providers(
    models: Sequence[ProfiledModel],
    options: ProfileOptions,
    scratch: Path,
    report_progress: Callable[[str], None],
) -> list[CheckedModel | LoopedgeError]:
    """Run each model on its provider and on the CPU, and compare.

    Args:
        models: What is to be measured; those on the CPU, and PyTorch's, pass as they are.
        options: Of the profile: inputs are the same for all, and so is the float model of quantized ones.
        scratch: Folder for outputs.
        report_progress: Is called with what is compared next.

    Returns:
        Each model, in their order, or why it must not be measured.
    """
    floats: dict[tuple[object, ...], _OnCpu] = {}
    found: list[CheckedModel | LoopedgeError] = []
    for number, model in enumerate(models):
        if model.setup.provider in (None, CPU_PROVIDER):
            found.append(CheckedModel(model=model, assigned={}, against_cpu=None, notes=[]))
            continue
        report_progress(f"outputs of {model.name} against the CPU")
        work = (model.loops, model.batch, model.sequence)
        try:
            folder = scratch / f"provider.{number}"
            folder.mkdir()
            on_cpu = _OnCpu(model, folder)
            found.append(_check(model, on_cpu, floats.get(work), options))
        except ProviderError as error:
            found.append(_named(error, model))
            continue
        except LoopedgeError as error:
            found.append(error)
            continue
        if model.quantization is None and model.compute == "float32":
            floats.setdefault(work, on_cpu)
    return found


class _OnCpu:
    """A model on the CPU: its setup, its inputs, and its outputs, which are computed once."""

    def __init__(self, model: ProfiledModel, folder: Path) -> None:
        self.model, self.folder = model, folder
        self.setup = on_cpu(model.setup)
        with np.load(model.setup.inputs, allow_pickle=False) as stored:
            self.inputs = {name: stored[name] for name in stored.files}
        self.outputs: dict[str, Array] = {}

    def bfloat16(self) -> dict[str, Array] | None:
        """Return the outputs where every float is rounded to bfloat16; None where that cannot be computed."""
        artifact = self.model.artifact
        if artifact is None or self.model.compute != "float32":
            return None
        rounded = round_to_bfloat16(artifact.graph)
        if rounded is None:
            return None
        target = self.folder / "bfloat16.onnx"
        write_artifact(rounded, target)
        try:
            with MeasuredProcess(replace(self.setup, model=target, optimize=True)) as process:
                return _arrays(process.save_outputs(self.folder / "bfloat16.npz"))
        except LoopedgeError:  # a file that the CPU has no such kernels for
            return None

    def offsets(self) -> dict[str, Array]:
        """Return what the model adds to its outputs last: no part of the signal."""
        if self.model.artifact is None:
            return {}
        known = OutputOffsets(self.model.artifact.graph)
        found = {
            name: known.at_kept(name, array, self.inputs) for name, array in self.outputs.items()
        }
        return {name: offset for name, offset in found.items() if offset is not None}

    def same_inputs(self, other: "_OnCpu") -> bool:
        """Tell whether another model ran on the same inputs."""
        mine, its = self.inputs, other.inputs
        return mine.keys() == its.keys() and all(
            np.array_equal(mine[name], its[name], equal_nan=mine[name].dtype.kind == "f")
            for name in mine
        )


def _named(error: ProviderError, model: ProfiledModel) -> ProviderError:
    """Name the file as its owner does; a twin, whose file is gone afterwards, by what it is called."""
    path, source = str(model.setup.model), str(model.source)
    hint = None if error.hint is None else error.hint.replace(path, source)
    return ProviderError(
        error.message.replace(path, model.name if model.twin else source), hint=hint
    )


def on_cpu(setup: ProcessSetup) -> ProcessSetup:
    """Return how the same file runs on the CPU."""
    return replace(
        setup, provider=CPU_PROVIDER, provider_options=(), cuda_graphs=False, dimensions=()
    )


def _check(
    model: ProfiledModel, own: _OnCpu, exact: _OnCpu | None, options: ProfileOptions
) -> CheckedModel:
    """Compare a model on its provider with the CPU, and take the times of both in turns.

    Raises:
        VerificationError: It computes something else.
        ProviderError: The provider does not run it.
        LoopedgeError: A process died.
    """
    provider = str(model.setup.provider)
    with MeasuredProcess(model.setup) as there:
        assigned: dict[str, dict[str, int]] = there.loaded["assigned"]
        given = _arrays(there.save_outputs(own.folder / "given.npz"))
        with MeasuredProcess(own.setup) as here:
            own.outputs = _arrays(here.save_outputs(own.folder / "cpu.npz"))
            known = exact if exact is not None and own.same_inputs(exact) else None
            agreement = judge(
                given,
                own.outputs,
                exact=None if known is None or model.quantization is None else known.outputs,
                bfloat16=own.bfloat16,
                recorded_db=None if model.fidelity is None else model.fidelity.sqnr_db,
                quantized=model.quantization is not None,
                offsets=own.offsets(),
                mask=own.inputs.get(MASK),
            )
            if not agreement.passed:
                raise _wrong(model, provider, agreement)
            cpu_ms, ratio = _times(here, there, options)
    notes = [f"{model.name}: {note}" for note in elsewhere_notes(assigned, provider)]
    if ratio > 1:
        notes.append(
            f"{model.name}: {provider} takes {ratio:.3g} times as long as the CPU, which takes {cpu_ms:.3g} ms"
        )
    against = AgainstCpu(
        compared_with=agreement.compared_with,
        max_rel_error=agreement.max_rel_error,
        sqnr_db=agreement.sqnr_db,
        cpu_sqnr_db=agreement.cpu_sqnr_db,
        bfloat16_db=agreement.bfloat16_db,
        limit_db=agreement.limit_db,
        cpu_ms=cpu_ms,
        time_ratio=ratio,
    )
    return CheckedModel(model=model, assigned=assigned, against_cpu=against, notes=notes)


def judge(
    given: Arrays,
    on_cpu: Arrays,
    *,
    exact: Arrays | None = None,
    bfloat16: Callable[[], Arrays | None] = lambda: None,
    recorded_db: float | None = None,
    quantized: bool = False,
    offsets: Arrays | None = None,
    mask: Array | None = None,
) -> Agreement:
    """Judge the outputs of a provider.

    They pass where they agree with those of the CPU within the tolerance of float32. Else their noise may be as much as
    the file shows on the CPU, times `ROUNDING`, and what bfloat16 costs, times `STORING`.

    Args:
        given: Outputs of the provider, by name.
        on_cpu: Those of the same file on the CPU.
        exact: Of a quantized file those of its float model on the CPU.
        bfloat16: Computes those of the CPU where every float is rounded to bfloat16.
        recorded_db: SQNR that a quantized file says of itself.
        quantized: Whether the file is quantized.
        offsets: What the model adds to each output last, at the positions that are kept.
        mask: (batch, sequence), 1 = keep; only these positions are compared.
    """
    given, on_cpu, added = _kept(given, mask), _kept(on_cpu, mask), offsets or {}
    error = max((_error(given, on_cpu, added, name) for name in on_cpu), default=0.0)
    reference = on_cpu if exact is None else _kept(exact, mask)
    noise = _noise(reference, given, added)
    own = None if exact is None else _noise(reference, on_cpu, added)
    if error > TOLERANCE and not any(array.dtype.kind == "f" for array in on_cpu.values()):
        noise = float("inf")
    against = "cpu" if exact is None else "float"
    if error <= TOLERANCE:
        return Agreement(
            compared_with=against,
            max_rel_error=error,
            sqnr_db=_db(noise),
            cpu_sqnr_db=None if own is None else _db(own),
            bfloat16_db=None,
            limit_db=None,
        )
    rounded = bfloat16()
    lost = None if rounded is None else _noise(on_cpu, _kept(rounded, mask), added)
    allowed = STORING * (lost or 0.0)
    if own is not None:
        allowed += ROUNDING * own
    elif quantized and recorded_db is not None:
        allowed += FLIPS * 10 ** (-recorded_db / 10)
    least = sqnr_db(1.0, allowed) if allowed > 0 else LEAST_DB
    if own is None and (recorded_db is None or not quantized):
        least = max(least, LEAST_DB)
    return Agreement(
        compared_with=against,
        max_rel_error=error,
        sqnr_db=_db(noise),
        cpu_sqnr_db=None if own is None else _db(own),
        bfloat16_db=None if lost is None else _db(lost),
        limit_db=least,
    )


def _wrong(model: ProfiledModel, provider: str, found: Agreement) -> VerificationError:
    """Return the error of a provider that computes something else; its times mean nothing."""
    limit = found.limit_db
    if not np.isfinite(found.sqnr_db):
        return VerificationError(
            f"{provider} computes {model.name} wrongly: {TURNED}", hint=option("provider", "cpu")
        )
    held = "the float model" if found.compared_with == "float" else "the CPU"
    known = "" if found.cpu_sqnr_db is None else f", the CPU reaches {found.cpu_sqnr_db:.1f}"
    half = "" if found.bfloat16_db is None else f", bfloat16 {found.bfloat16_db:.1f}"
    return VerificationError(
        f"{provider} computes {model.name} wrongly, no time is given: {found.sqnr_db:.1f} dB of signal to noise "
        f"against {held}, at least {limit:.1f} are needed{known}{half}",
        measured=found.sqnr_db,
        allowed=limit,
        hint=option("provider", "cpu"),
    )


def _times(
    here: MeasuredProcess, there: MeasuredProcess, options: ProfileOptions
) -> tuple[float, float]:
    """Return the median time on the CPU in ms, and the time of the provider against it, in turns."""
    fastest = max(min(here.run(2)), min(there.run(2)))
    least, most = TIMED_RUNS
    fitting = min(most, max(least, round(TIMED_SECONDS * 1000 / max(fastest, 1e-3))))
    count = fitting if options.runs is None else min(fitting, max(options.runs, 1))
    rounds = time_in_turns([here.run, there.run], [count, count], most_rounds=ROUNDS)
    return median(ms for one in rounds[0] for ms in one), time_ratios(rounds)[1]


def _arrays(file: Path) -> dict[str, Array]:
    with np.load(file, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def _kept(arrays: Arrays, mask: Array | None) -> dict[str, Array]:
    return {name: at_kept(array, mask) for name, array in arrays.items()}


def _error(given: Arrays, expected: Arrays, offsets: Arrays, name: str) -> float:
    if name not in given:
        return float("inf")
    return largest_error(given[name], expected[name], offsets.get(name)).relative


def _noise(reference: Arrays, given: Arrays, offsets: Arrays) -> float:
    """Return the power of the noise in parts of that of the signal, over all outputs of floats."""
    ratio = NoiseRatio()
    for name, array in reference.items():
        other = given.get(name)
        if array.dtype.kind != "f":
            continue
        if other is None or other.shape != array.shape:
            return float("inf")
        ratio.add(array, other, offsets.get(name))
    return ratio.share**2


def _db(noise: float) -> float:
    return sqnr_db(1.0, noise)
