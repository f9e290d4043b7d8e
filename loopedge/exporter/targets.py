"""Settings of an export by the device that it is for; docs/export.md says what each rests on."""

from dataclasses import dataclass, replace
from typing import Literal, cast, get_args

from loopedge.errors import InputError
from loopedge.graph.metadata import Form, MemoryProfile
from loopedge.graph.split.activations import Activations, check_activations
from loopedge.runtime.memory_profiles import check_profile

__all__ = ["TARGETS", "Settings", "Target", "choose_settings"]

Target = Literal["cpu", "cuda"]
NO_CAPTURE = "it cannot be captured as a CUDA graph, and its iterations are counted on the host"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a target chooses; the fields are arguments of `loopedge.export`."""

    form: Form
    memory: MemoryProfile
    activations: Activations


TARGETS: dict[Target, Settings] = {
    "cpu": Settings(form="loop", memory="balanced", activations="small"),
    "cuda": Settings(form="unrolled", memory="balanced", activations="whole"),
}
"""What is chosen where the caller names nothing else; a new setting is a field and a column here."""


def choose_settings(
    target: str | None,
    *,
    form: str | None,
    memory: str | None,
    activations: str | None,
    dynamic_loops: bool,
    inner: str,
    exit: str | None,
    format: str,
) -> tuple[Settings, list[str]]:
    """Return the settings of an export, and notes on what a target did not get.

    Args:
        target: ``cpu``, ``cuda``, or None, which chooses as ``cpu`` does.
        form: What the caller named, which wins; None leaves it to the target.
        memory: As ``form``.
        activations: As ``form``.
        dynamic_loops: Whether the loop count is an input, which needs a Loop.
        inner: ``loop`` needs one too.
        exit: And so does an early exit that the caller named.
        format: ``onnx`` or ``ort``.

    Raises:
        InputError: The target, the memory profile or the activations are not known, or a named option has no use on it.
    """
    if target is not None and target not in get_args(Target):
        raise InputError(f"target {target!r} is not known", hint="--target cpu or --target cuda")
    chosen = TARGETS[cast("Target", target or "cpu")]
    named = None if memory is None else check_profile(memory)
    if target == "cuda":
        if format == "ort":
            raise InputError(
                "ORT format is optimized for the CPU when it is written",
                hint="--target cuda --format onnx",
            )
        if named == "mapped":
            raise InputError(
                "memory profile mapped packs weights for a CPU, CUDA packs none",
                hint="--target cuda --memory balanced",
            )
    settings = Settings(
        form=cast("Form", form or chosen.form),
        memory=named or chosen.memory,
        activations=check_activations(activations or chosen.activations),
    )
    if form is None and settings.form == "unrolled":
        need = _needs_loop(dynamic_loops=dynamic_loops, inner=inner, exit=exit)
        if need is not None:
            kept = replace(settings, form="loop")
            return kept, [f"target {target}: the Loop is kept, which {need} needs; {NO_CAPTURE}"]
    if target == "cuda" and settings.form == "loop":
        return settings, [f"target cuda: the Loop was asked for; {NO_CAPTURE}"]
    return settings, []


def _needs_loop(*, dynamic_loops: bool, inner: str, exit: str | None) -> str | None:
    """Return the option that only a Loop can serve."""
    if dynamic_loops:
        return "--dynamic-loops"
    if inner == "loop":
        return "--inner loop"
    if exit not in {None, "none"}:
        return f"--exit {exit}"
    return None
