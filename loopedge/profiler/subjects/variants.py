"""The same models in another way: with packed weights, computed in float16, or replayed as a CUDA graph."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from loopedge.artifact.artifact import Artifact, write_artifact
from loopedge.errors import InputError
from loopedge.graph.core.cores import Cores
from loopedge.graph.passes.half import compute_in_float16
from loopedge.graph.weights import weight_bytes
from loopedge.options import option, option_name
from loopedge.profiler.result import Failure
from loopedge.profiler.subjects.profiled_model import ProfiledModel
from loopedge.runtime.decoding.refusals import refuse_cache
from loopedge.runtime.memory_profiles import refuse_prepared
from loopedge.runtime.providers import CPU_PROVIDER

__all__ = ["CAPTURE_NOTE", "add_variants", "looped_models", "unpacked_note"]

CAPTURE_NOTE = (
    "a Loop cannot be captured as a CUDA graph, its unrolled twin is; ONNX Runtime says of a Loop: "
    '"This session cannot use the graph capture feature as requested by the user as the model has '
    "control flow nodes which can't be supported by CUDAExecutionProvider\""
)


def looped_models(artifacts: Mapping[str | Path, Artifact]) -> list[str | Path]:
    """Return the models that hold a Loop, which only their unrolled twins can be captured of."""
    return [path for path, artifact in artifacts.items() if Cores(artifact.graph).loops]


def add_variants(
    models: Sequence[ProfiledModel],
    scratch: Path,
    *,
    float16: bool,
    cuda_graphs: bool,
    balanced: bool = False,
) -> tuple[list[ProfiledModel], list[Failure]]:
    """Return the models with their variants behind them, and the variants that could not be made.

    Args:
        models: What is profiled without variants, twins included.
        scratch: Folder for files.
        float16: Add each computed in float16.
        cuda_graphs: Add each that can be captured, the float16 ones too, replayed as a CUDA graph.
        balanced: Add each of memory profile ``low`` as ``balanced``.

    Raises:
        InputError: No model has a float16 variant, or none is of profile ``low``.
    """
    found = list(models)
    failures: list[Failure] = []
    if balanced:
        found += _balanced_variants(models)
    if float16:
        halves, failures = _float16_variants(found, scratch)
        found += halves
    if cuda_graphs:
        found += _captured_variants(found)
    return found, failures


def unpacked_note(models: Sequence[ProfiledModel]) -> list[str]:
    """Say which models run without packing, where none is packed beside them: what that costs differs between processors."""
    if any(model.setup.memory == "balanced" for model in models):
        return []
    names = ", ".join(dict.fromkeys(model.source.name for model in models if _is_unpacked(model)))
    if not names:
        return []
    return [
        f"{names}: memory profile low packs no weights, and what that costs in time depends on the processor: "
        f"{option('balanced')} measures it"
    ]


def _is_unpacked(model: ProfiledModel) -> bool:
    """Whether a model leaves its weights as they are mapped and could pack them."""
    artifact = model.artifact
    return (
        model.setup.memory == "low"
        and model.setup.provider == CPU_PROVIDER
        and artifact is not None
        and artifact.metadata.prepared is None
    )


def _balanced_variants(models: Sequence[ProfiledModel]) -> list[ProfiledModel]:
    """Return each model of profile ``low`` once more, with its weights packed.

    Raises:
        InputError: There is none.
    """
    unpacked = [model for model in models if _is_unpacked(model)]
    if not unpacked:
        raise InputError(
            f"no model runs with memory profile low on the CPU, {option_name('balanced')} would compare nothing",
            hint=f"{option('memory', 'low')} {option('balanced')}",
        )
    return [
        replace(
            model,
            traits=tuple("balanced" if trait == "low" else trait for trait in model.traits),
            setup=replace(model.setup, memory="balanced", optimize=True),
            notes=(),
        )
        for model in unpacked
    ]


def _float16_variants(
    models: Sequence[ProfiledModel], scratch: Path
) -> tuple[list[ProfiledModel], list[Failure]]:
    """Write each exported model and twin once more, computed in float16.

    Args:
        models: What is profiled; PyTorch's runs have no variant.
        scratch: Folder for the files.

    Returns:
        The variants, and those that could not be made; these are refused where there is no other.

    Raises:
        InputError: No model has one.
    """
    found: list[ProfiledModel] = []
    failures: list[Failure] = []
    errors: list[InputError] = []
    for number, model in enumerate(models):
        artifact = model.artifact
        if artifact is None:
            continue
        try:
            refuse_prepared(artifact.metadata, model.source, "profile --float16")
            refuse_cache(artifact.metadata, model.source, "profile --float16")
            graph = compute_in_float16(artifact.graph)
        except InputError as error:
            errors.append(InputError(f"{model.name}: {error.message}", hint=error.hint))
            failures.append(
                Failure(
                    name=replace(model, traits=(*model.traits, "float16")).name,
                    path=str(model.source),
                    twin=model.twin,
                    reason=error.message,
                )
            )
            continue
        target = scratch / f"float16.{number}.onnx"
        write_artifact(graph, target)
        found.append(_as_float16(model, Artifact.open(target)))
    if errors and not found:
        raise errors[0]
    return found, failures


def _as_float16(model: ProfiledModel, artifact: Artifact) -> ProfiledModel:
    setup = replace(
        model.setup,
        model=artifact.path.resolve(),
        optimize=True,
        file_bytes=artifact.file_bytes,
    )
    return replace(
        model,
        traits=(*model.traits, "float16"),
        setup=setup,
        compute="float16",
        weight_bytes=weight_bytes(artifact.graph),
        notes=(),
        artifact=artifact,
    )


def _captured_variants(models: Sequence[ProfiledModel]) -> list[ProfiledModel]:
    """Return each model without a Loop once more, replayed as a CUDA graph.

    Its free axes are fixed to the sizes of its inputs when it is loaded, so that ONNX Runtime computes
    its shapes once, on the host, and not while it is captured.
    """
    found = []
    for model in models:
        if model.artifact is None or Cores(model.artifact.graph).loops:
            continue
        with np.load(model.setup.inputs, allow_pickle=False) as stored:
            shapes = {name: stored[name].shape for name in stored.files}
        sizes = tuple(sorted(_axis_sizes(model.artifact.graph, shapes).items()))
        found.append(
            replace(
                model,
                traits=(*model.traits, "CUDA graph"),
                setup=replace(model.setup, cuda_graphs=True, dimensions=sizes),
                notes=(),
            )
        )
    return found


def _axis_sizes(graph: ir.Model, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Return the size of each free axis of the inputs, by its name."""
    return {
        str(dim.value): size
        for value in graph.graph.inputs
        for dim, size in zip(value.shape or (), shapes.get(value.name or "", ()), strict=False)
        if not isinstance(dim, int) and dim.value is not None
    }
