"""Memory profiles: how a session keeps an artifact's weights.

``balanced`` packs them into memory; ``low`` leaves them as they are mapped from the file;
``mapped`` maps weights that `loopedge.prepare` packed into a file of this very device.
docs/memory.md has the figures.
"""

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

import onnxruntime as ort

from loopedge.errors import InputError
from loopedge.graph.metadata import MemoryProfile, Metadata, Prepared
from loopedge.options import option
from loopedge.runtime.processor import PACKING_FEATURES, this_processor
from loopedge.runtime.providers import CPU_PROVIDER

__all__ = [
    "PREPARED_SUFFIX",
    "PROFILES",
    "WISH_NOTE",
    "ChosenProfile",
    "check_profile",
    "choose_profile",
    "refuse_prepared",
    "this_device",
]

PROFILES: tuple[str, ...] = get_args(MemoryProfile)
PREPARED_SUFFIX = ".prepared.onnx"

WISH_NOTE = (
    "memory profile mapped is a wish until 'loopedge prepare' has made the file of the device, on "
    "the device; until then the model runs as balanced"
)

ORT_NOTE = "memory profile mapped has no use in ORT format, which holds no packed weights"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenProfile:
    """How a session will keep the weights; ``note`` says where that is not what the file wishes.

    ``optimize``: whether ONNX Runtime's optimizers run. With ``low`` they do not where they would change
    nothing, for the pages of their code.
    """

    profile: MemoryProfile
    note: str | None = None
    optimize: bool = True


def check_profile(memory: str) -> MemoryProfile:
    """Return a profile by its name.

    Raises:
        InputError: There is no such profile.
    """
    if memory not in PROFILES:
        raise InputError(
            f"memory profile {memory!r} is not known, allowed are {', '.join(PROFILES)}",
            hint=option("memory", "balanced"),
        )
    return cast("MemoryProfile", memory)


def choose_profile(
    asked: str | None,
    metadata: Metadata,
    path: str | Path,
    *,
    provider: str = CPU_PROVIDER,
) -> ChosenProfile:
    """Choose how a session keeps the weights of a file.

    Args:
        asked: A profile, or None for the one that stands in the file.
        metadata: What the file says of itself.
        path: The file, for messages.
        provider: That runs it.

    Returns:
        The profile that runs. A file that merely wishes to be mapped runs as balanced.

    Raises:
        InputError: The profile is not known; ``mapped`` was asked of a file that is not prepared,
            or ``balanced`` of one that is; the file was prepared for another processor, another
            version of onnxruntime, or for the CPU while another provider runs.
    """
    wanted = None if asked is None else check_profile(asked)
    prepared = metadata.prepared
    if prepared is not None:
        _check_device(prepared, Path(path), provider)
        if wanted == "balanced":
            raise InputError(
                f"{path} holds packed weights, which are mapped; balanced needs its source",
                hint=f"loopedge run {_source_of(Path(path))} --memory balanced",
            )
        return ChosenProfile(profile=wanted or "mapped")
    ort_format = Path(path).suffix == ".ort"
    if wanted == "mapped":
        raise InputError(
            f"{path} holds no packed weights: mapped needs a prepared file"
            + (", which ORT format is not" if ort_format else ""),
            hint=option("memory", "low") if ort_format else f"loopedge prepare {path}",
        )
    stored = metadata.memory
    if wanted is None and stored == "mapped":
        return ChosenProfile(profile="balanced", note=ORT_NOTE if ort_format else WISH_NOTE)
    profile = wanted or stored
    idle = metadata.optimized and profile == "low" and provider == CPU_PROVIDER and not ort_format
    return ChosenProfile(profile=profile, optimize=not idle)


def refuse_prepared(metadata: Metadata, path: str | Path, purpose: str) -> None:
    """Refuse a prepared file where its source is needed.

    Raises:
        InputError: The file is prepared.
    """
    if metadata.prepared is not None:
        raise InputError(
            f"{path} is prepared for one device; {purpose} needs the model that it was made from",
            hint=f"loopedge {purpose} {_source_of(Path(path))}",
        )


def this_device() -> Prepared:
    """Return what packed weights depend on: processor, instructions, version of onnxruntime."""
    processor = this_processor(PACKING_FEATURES)
    return Prepared(
        onnxruntime=ort.__version__,
        architecture=platform.machine(),
        processor=processor.name,
        features=processor.features,
    )


def _check_device(prepared: Prepared, path: Path, provider: str) -> None:
    here = this_device()
    hint = f"loopedge prepare {_source_of(path)} -o {path} --force"
    if prepared.onnxruntime != here.onnxruntime:
        raise InputError(
            f"{path} was prepared with onnxruntime {prepared.onnxruntime}, "
            f"this is onnxruntime {here.onnxruntime}",
            hint=hint,
        )
    for what, then, now in (
        ("", prepared.architecture, here.architecture),
        ("", prepared.processor, here.processor),
        ("instructions ", " ".join(prepared.features), " ".join(here.features)),
    ):
        if then != now:
            raise InputError(
                f"{path} was prepared for another processor: {what}{then}, here {now}", hint=hint
            )
    if provider != CPU_PROVIDER:
        raise InputError(
            f"{path} was prepared for the CPU, it cannot run on {provider}",
            hint=option("provider", "cpu"),
        )


def _source_of(path: Path) -> Path:
    """Guess the model that a prepared file was made from: the metadata hold no paths."""
    if path.name.endswith(PREPARED_SUFFIX):
        return path.with_name(path.name.removesuffix(PREPARED_SUFFIX) + ".onnx")
    return path.with_name("model.onnx")
