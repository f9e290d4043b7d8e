"""Settings of an export by the device that it is for; docs/export.md says what each rests on."""

from dataclasses import dataclass, replace

from loopedge.exporter.options import ExportOptions, Form, Target
from loopedge.graph.metadata import MemoryProfile
from loopedge.graph.split.activations import Activations, check_activations
from loopedge.options import option
from loopedge.runtime.memory_profiles import check_profile

__all__ = ["TARGETS", "Settings", "choose_settings"]

NO_CAPTURE = "it cannot be captured as a CUDA graph, and its iterations are counted on the host"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a target chooses; the fields are those of `ExportOptions`.

    ``notes`` says where the target was not followed.
    """

    form: Form
    memory: MemoryProfile
    activations: Activations
    notes: tuple[str, ...] = ()


TARGETS: dict[Target, Settings] = {
    "cpu": Settings(form="loop", memory="balanced", activations="small"),
    "cuda": Settings(form="unrolled", memory="balanced", activations="whole"),
}
"""What is chosen where the caller names nothing else; a new setting is a field and a column here."""


def choose_settings(options: ExportOptions) -> Settings:
    """Return the settings of an export: what its options name, else what its target chooses.

    Without a target that is what ``cpu`` chooses.
    """
    chosen = TARGETS[options.target or "cpu"]
    settings = Settings(
        form=options.form or chosen.form,
        memory=check_profile(options.memory or chosen.memory),
        activations=check_activations(options.activations or chosen.activations),
    )
    if options.form is None and settings.form == "unrolled":
        need = _needs_loop(options)
        if need is not None:
            note = f"target {options.target}: the Loop is kept, which {need} needs; {NO_CAPTURE}"
            return replace(settings, form="loop", notes=(note,))
    if options.target == "cuda" and settings.form == "loop":
        return replace(settings, notes=(f"target cuda: the Loop was asked for; {NO_CAPTURE}",))
    return settings


def _needs_loop(options: ExportOptions) -> str | None:
    """Return the option that only a Loop can serve."""
    if options.dynamic_loops:
        return option("dynamic_loops")
    if options.inner == "loop":
        return option("inner", "loop")
    if options.exit not in {None, "none"}:
        return option("exit", options.exit)
    return None
