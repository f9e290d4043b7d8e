"""Round the cache of a generate graph: scales are found on data, and what it costs is measured on other data."""

import importlib
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx_ir as ir
import onnxruntime as ort

from loopedge.artifact.artifact import Artifact, write_scratch
from loopedge.deployment.decoding.cache_check import CacheLoss, measure_loss
from loopedge.errors import InputError
from loopedge.files.scratch import never_named
from loopedge.graph.decoding.cache.quantized_cache import round_cache
from loopedge.graph.metadata import CACHE_BITS, CacheType, Generation
from loopedge.options import option, option_name

__all__ = ["CALIBRATION", "SAMPLES", "CacheRounding", "check_cache_type", "rounding"]

CALIBRATION = "loopedge_calibration.cache_scales"
"""What reads data; it stands above this library and is found at run time."""
SAMPLES = 64
"""Texts that calibrate, at most."""
ROUNDED = {"int8": 8, "int4": 4}
SINCE = (1, 27)
"""The first ONNX Runtime whose GroupQueryAttention keeps integers on the CPU."""

Array = npt.NDArray[Any]


def check_cache_type(
    cache_type: CacheType, *, form: str, data: Any, version: str = ort.__version__
) -> None:
    """Refuse a type of cache that cannot be written here.

    Raises:
        InputError: It is not known, the form has no such cache, or onnxruntime is too old to verify it; or there is data
            that nothing needs.
    """
    if cache_type not in {"float32", *ROUNDED}:
        known = ("float32", *ROUNDED)
        raise InputError(
            f"{option('cache_type', cache_type)}, not known",
            hint=" or ".join(option("cache_type", each) for each in known),
        )
    if cache_type == "float32":
        if data is not None:
            raise InputError(
                f"{option_name('data')} is there to find the scales of a cache of integers, this one holds floats",
                hint=option("cache_type", "int8"),
            )
        return
    if form == "tensorscatter":
        raise InputError(
            f"the form tensorscatter has no cache of {cache_type}: standard operators keep floats",
            hint=option("form", "scan"),
        )
    found = re.match(r"(\d+)\.(\d+)", version)
    if found and (int(found[1]), int(found[2])) < SINCE:
        needed = ".".join(map(str, SINCE))
        raise InputError(
            f"a cache of {cache_type} needs onnxruntime {needed}, this is {version}",
            hint=f"pip install 'onnxruntime>={needed}'",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheRounding:
    """The scales of a cache of integers, and what judges it.

    Args:
        exact: The generate file whose cache holds floats; it goes with the context that gave this object.
        generation: What that file says of itself.
        bits: Of the integers.
        scales: As `loopedge.graph.decoding.cache.quantized_cache.round_cache`.
        judging: Texts that did not find the scales.
        kind: Where they come from.
        notes: What a person should know of the data.
        noise: Inputs that hold noise, with its standard deviation.
    """

    exact: Path
    generation: Generation
    bits: int
    scales: dict[str, Array]
    judging: list[Array]
    kind: str
    notes: tuple[str, ...]
    noise: dict[str, float]

    def apply(self, model: ir.Model) -> None:
        """Let the cache of a generate graph hold integers."""
        round_cache(model, self.scales, self.bits)

    def measure(self, written: Path, generation: Generation, *, threads: int | None) -> CacheLoss:
        """Return what the integers cost.

        Raises:
            VerificationError: As `measure_loss`.
        """
        return measure_loss(
            (self.exact, self.generation),
            (written, generation),
            self.judging,
            self.scales,
            source=self.kind,
            noise=self.noise,
            threads=threads,
        )


@contextmanager
def rounding(
    source: Artifact,
    graph: ir.Model,
    generation: Generation,
    cache_type: CacheType,
    data: Any,
    *,
    samples: int = SAMPLES,
    threads: int | None,
) -> Iterator[CacheRounding | None]:
    """Find the scales of a cache of integers; None for one of floats.

    Args:
        source: The model without a cache.
        graph: The generate graph, whose cache holds floats. Not changed.
        generation: What it says of itself.
        cache_type: That is asked for.
        data: Text, as `loopedge.quantize` takes data.
        samples: Texts that calibrate, at most.
        threads: Threads of ONNX Runtime.

    Raises:
        InputError: There is no data, or it cannot be used.
    """
    if cache_type not in ROUNDED:
        yield None
        return
    bits = CACHE_BITS[cache_type]
    calibration = _calibration()
    texts = calibration.read_texts(source, data, samples=samples, context=generation.context)
    with tempfile.TemporaryDirectory(prefix="loopedge.") as folder:
        with never_named(Path(folder), source.path):
            exact = Path(folder) / "exact.onnx"
            write_scratch(graph.clone(), exact)
            scales = calibration.find_scales(
                exact,
                generation,
                texts.calibrating,
                bits,
                noise=source.metadata.random_inputs,
                threads=threads,
            )
        yield CacheRounding(
            exact=exact,
            generation=generation,
            bits=bits,
            scales=scales,
            judging=texts.judging,
            kind=texts.kind,
            notes=texts.notes,
            noise=source.metadata.random_inputs,
        )


def _calibration() -> Any:
    try:
        return importlib.import_module(CALIBRATION)
    except ModuleNotFoundError as error:
        if error.name != CALIBRATION.partition(".")[0]:
            raise
        raise InputError(
            "a cache of integers needs the package loopedge_calibration, which is not installed here",
            hint="install loopedge whole, or in a clone put calibration/ on the path",
        ) from error
