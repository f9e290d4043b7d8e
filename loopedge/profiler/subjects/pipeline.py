"""What a profile measures: each model, its twins and its variants, in each configuration."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from loopedge.profiler.options import ProfileOptions
from loopedge.profiler.result import Failure
from loopedge.profiler.subjects.building import build_models, open_models
from loopedge.profiler.subjects.profiled_model import ProfiledModel
from loopedge.profiler.subjects.variants import (
    CAPTURE_NOTE,
    add_variants,
    looped_models,
    unpacked_note,
)

__all__ = ["Subjects", "gather_subjects"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subjects:
    """What is measured, the twins and variants that could not be made, and notes on both."""

    models: list[ProfiledModel]
    failures: list[Failure]
    notes: list[str]


def gather_subjects(
    paths: Sequence[str | Path], options: ProfileOptions, scratch: Path
) -> Subjects:
    """Open the models, and write the twins and variants that are asked for.

    Args:
        paths: ``.onnx`` and ``.ort`` files, and ``model.pt`` for PyTorch.
        options: Which twins, variants and configurations.
        scratch: Folder for inputs, twins and variants.

    Raises:
        InputError: A file cannot be used, or none of the twins or variants can be made.
    """
    artifacts = open_models(paths)
    looped = looped_models(artifacts) if options.cuda_graphs else []
    if looped and options.unrolled is not True:  # a Loop is captured as its unrolled twin
        named = options.unrolled or []
        listed = [named] if isinstance(named, str) else named
        options = replace(options, unrolled=[*listed, *looped])
    built, failures = build_models(paths, artifacts, options, scratch)
    models, lacking = add_variants(
        built,
        scratch,
        float16=options.float16,
        cuda_graphs=options.cuda_graphs,
        balanced=options.balanced,
    )
    return Subjects(
        models=models,
        failures=[*failures, *lacking],
        notes=[
            *dict.fromkeys(note for model in models for note in model.notes),
            *([CAPTURE_NOTE] if looped else []),
            *([] if options.balanced else unpacked_note(built)),
        ],
    )
