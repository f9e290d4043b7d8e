"""Open the models of a profile, generate their inputs and write their twins, for each configuration."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loopedge.artifact.artifact import Artifact, write_artifact
from loopedge.errors import InputError
from loopedge.files.arrays import write_arrays
from loopedge.files.targets import file_sha256
from loopedge.graph.core.cores import Cores
from loopedge.graph.core.scans.written_out import write_out_scans
from loopedge.graph.core.unrolling import unroll
from loopedge.graph.core.untied import untie
from loopedge.graph.metadata import (
    LOOPS_INPUT,
    TOLERANCE_INPUT,
    Metadata,
)
from loopedge.graph.weights import weight_bytes
from loopedge.options import option
from loopedge.profiler.labels import SETTINGS
from loopedge.profiler.options import ProfileOptions
from loopedge.profiler.processes.setup import ProcessSetup
from loopedge.profiler.result import Failure
from loopedge.profiler.subjects.decoding import cache_size, decoding_feeds, decoding_shape
from loopedge.profiler.subjects.fidelity import fidelity_of
from loopedge.profiler.subjects.measured_inputs import fewest_positions, profile_feeds
from loopedge.profiler.subjects.profiled_model import ProfiledModel
from loopedge.profiler.subjects.weight_reads import weight_reads
from loopedge.profiler.sweep import Configuration
from loopedge.runtime.inputs import AcceptedInputs
from loopedge.runtime.memory_profiles import choose_profile, refuse_prepared
from loopedge.runtime.providers import CPU_PROVIDER, provider_options

__all__ = ["CHECKPOINT", "TWINS", "build_models", "open_models"]

TWINS = ("unrolled", "untied")
CHECKPOINT = ".pt"

Array = npt.NDArray[Any]


def open_models(paths: Sequence[str | Path]) -> dict[str | Path, Artifact]:
    """Open the exported models among ``.onnx``, ``.ort`` and ``model.pt`` files, each once.

    Raises:
        InputError: A file cannot be used, or all are checkpoints.
    """
    for path in filter(_is_checkpoint, paths):
        if not Path(path).is_file():
            raise InputError(f"{path} does not exist", hint="loopedge train --help")
    artifacts = {path: Artifact.open(path) for path in paths if not _is_checkpoint(path)}
    if not artifacts:
        raise InputError(
            f"{paths[0]} is a checkpoint: an exported model has to stand beside it",
            hint=f"loopedge export {paths[0]}",
        )
    return artifacts


def build_models(
    paths: Sequence[str | Path],
    artifacts: Mapping[str | Path, Artifact],
    options: ProfileOptions,
    scratch: Path,
) -> tuple[list[ProfiledModel], list[Failure]]:
    """Generate the inputs of the models, and write their twins.

    Args:
        paths: ``.onnx`` and ``.ort`` files, and ``model.pt`` for PyTorch.
        artifacts: The exported ones, as `open_models` opened them.
        options: What is asked of all, the configurations, and which models get twins; in each
            configuration twins come after all models.
        scratch: Folder for inputs and twins.

    Returns:
        The models, and the twins that could not be made; these are refused where there is no other.

    Raises:
        InputError: A file or an option cannot be used.
    """
    twins = {twin: getattr(options, twin) for twin in TWINS}
    _check_twins(paths, twins)
    found: list[ProfiledModel] = []
    failures: list[Failure] = []
    errors: list[InputError] = []
    points = options.points
    for number, point in enumerate(points):
        folder = scratch / str(number)
        folder.mkdir()
        build = _Builder(artifacts, point, options, _varying(points), folder)
        found += [build.model(index, path) for index, path in enumerate(paths)]
        for index, (path, twin) in enumerate(_twins(paths, twins)):
            try:
                found.append(build.twin(f"{twin}{index}", path, twin))
            except InputError as error:
                named = str(path) in error.message
                message = error.message if named else f"{path}: {error.message}"
                errors.append(InputError(message, hint=error.hint))
                failures.append(
                    Failure(
                        name=f"{Path(path).name} ({twin})",
                        path=str(path),
                        twin=twin,
                        reason=error.message,
                    )
                )
    if errors and not any(model.twin for model in found):
        raise errors[0]
    return found, failures


def asked_provider(options: ProfileOptions) -> str:
    """Return the provider that runs the models."""
    return options.provider_name


def _twins(
    paths: Sequence[str | Path], asked: Mapping[str, bool | Collection[str | Path]]
) -> Iterator[tuple[str | Path, str]]:
    """Yield each model that gets a twin, and of which kind."""
    for twin in TWINS:
        wanted = asked.get(twin, False)
        for path in dict.fromkeys(paths):
            named = wanted if isinstance(wanted, bool) else Path(path) in _paths(wanted)
            if named and not _is_checkpoint(path):
                yield path, twin


def _paths(named: Collection[str | Path]) -> set[Path]:
    return {Path(named)} if isinstance(named, str) else {Path(path) for path in named}


def _check_twins(
    paths: Sequence[str | Path], asked: Mapping[str, bool | Collection[str | Path]]
) -> None:
    """Refuse twins of what is not profiled.

    Raises:
        InputError: Such a model is named.
    """
    profiled = {Path(path) for path in paths}
    for twin, wanted in asked.items():
        for path in () if isinstance(wanted, bool) else sorted(_paths(wanted) - profiled):
            raise InputError(f"{path} is to have its {twin} twin, but is not profiled itself")


def _varying(points: Sequence[Configuration]) -> tuple[str, ...]:
    """Return the fields in which configurations differ."""
    names = ("batch", "sequence", "loops", "threads")
    return tuple(name for name in names if len({getattr(point, name) for point in points}) > 1)


def _is_checkpoint(path: str | Path) -> bool:
    return Path(path).suffix == CHECKPOINT


@dataclass(slots=True)
class _Builder:
    """Builds the models of one configuration."""

    artifacts: Mapping[str | Path, Artifact]
    point: Configuration
    options: ProfileOptions
    varying: tuple[str, ...]
    folder: Path

    def model(self, index: int, path: str | Path) -> ProfiledModel:
        """Return a model as it stands in its file."""
        if _is_checkpoint(path):
            return self._checkpoint(index, Path(path))
        artifact = self.artifacts[path]
        return self._profiled(str(index), Path(path), artifact, None, self._feeds(path))

    def twin(self, name: str, path: str | Path, twin: str) -> ProfiledModel:
        """Write the twin of a model.

        Raises:
            InputError: The model has none.
        """
        artifact = self.artifacts[path]
        graph = artifact.graph
        refuse_prepared(artifact.metadata, path, f"profile --{twin}")
        cores = Cores(graph)
        if twin == "unrolled" and not (cores.loops or cores.scans):
            raise InputError(f"{path} holds no Loop: it is unrolled already")
        written_out = write_out_scans if cores.scans else unroll
        rewritten = (untie if twin == "untied" else written_out)(graph, self.point.loops)
        target = self.folder / f"{name}.onnx"
        write_artifact(rewritten, target)
        taken = {value.name for value in rewritten.graph.inputs}
        feeds = self._feeds(path)
        arrays = {key: array for key, array in feeds.arrays.items() if key in taken}
        own = replace(feeds, arrays=arrays)
        return self._profiled(name, Path(path), Artifact.open(target), twin, own)

    def _feeds(self, path: str | Path) -> AcceptedInputs:
        if self.artifacts[path].metadata.generate is not None:
            return AcceptedInputs(
                arrays=decoding_feeds(self.artifacts[path], self.point, self.options)
            )
        return profile_feeds(
            self.artifacts[path].graph,
            path,
            self.options.input,
            batch=self.point.batch,
            sequence=self.point.sequence,
            loops=self.point.loops,
            seed=self.options.seed,
        )

    def _profiled(
        self,
        name: str,
        source: Path,
        artifact: Artifact,
        twin: str | None,
        accepted: AcceptedInputs,
    ) -> ProfiledModel:
        metadata, feeds = artifact.metadata, accepted.arrays
        chosen = choose_profile(
            self.options.memory, metadata, source, provider=self.options.provider_name
        )
        inputs = self.folder / f"{name}.npz"
        write_arrays(inputs, feeds)
        loops = self._loops(metadata)
        decodes = metadata.generate is not None
        positions = None if decodes else fewest_positions(artifact.graph, feeds)
        notes = (
            chosen.note,
            None if loops is None else metadata.loops_note(loops),
            None if positions is None else metadata.length_note(positions),
        )
        profile = [chosen.profile] if chosen.profile != "balanced" else []
        return ProfiledModel(
            source=source,
            traits=(*([twin] if twin else []), *profile, *self._traits()),
            setup=ProcessSetup(
                model=artifact.path.resolve(),
                inputs=inputs,
                file_bytes=artifact.file_bytes,
                provider=asked_provider(self.options),
                provider_options=tuple(provider_options(self.options.provider_options).items()),
                threads=self.point.threads,
                memory=chosen.profile,
                optimize=chosen.optimize,
                cache=cache_size(metadata, feeds, self.point.loops),
            ),
            twin=twin,
            form=metadata.form,
            quantization=(metadata.quantization or {}).get("scheme"),
            loops=self._loops(metadata),
            **(_shape(feeds) if metadata.generate is None else decoding_shape(feeds)),
            weight_bytes=weight_bytes(artifact.graph),
            notes=()
            if twin
            else (*accepted.notes, *(f"{source.name}: {note}" for note in notes if note)),
            artifact=artifact,
            weight_reads=weight_reads(artifact.graph, loops) if decodes else None,
            fidelity=fidelity_of(metadata),
        )

    def _checkpoint(self, index: int, path: Path) -> ProfiledModel:
        """Return PyTorch's own run of a checkpoint, on the inputs of the first exported model."""
        from loopedge.profiler.subjects.checkpoint import checkpoint_loops

        if self.options.provider_name != CPU_PROVIDER:
            raise InputError(
                f"{path}: PyTorch is measured on the CPU alone", hint=option("provider", "cpu")
            )
        trained, stored_bytes = checkpoint_loops(path)
        beside = next(iter(self.artifacts))
        feeds = self._feeds(beside).arrays
        inputs = self.folder / f"{index}.npz"
        write_arrays(inputs, feeds)
        metadata = self.artifacts[beside].metadata
        loops = self._loops(metadata) or trained
        return ProfiledModel(
            source=path,
            traits=("PyTorch eager", *self._traits()),
            setup=ProcessSetup(
                model=path.resolve(),
                inputs=inputs,
                file_bytes=path.stat().st_size,
                provider=None,
                runtime="torch",
                threads=self.point.threads,
                loops=loops,
                options=(LOOPS_INPUT, TOLERANCE_INPUT),
            ),
            twin=None,
            form=None,
            quantization=None,
            loops=loops,
            **_shape(feeds),
            weight_bytes=stored_bytes,
            notes=_other_origin(path, beside, metadata),
        )

    def _loops(self, metadata: Metadata) -> int | None:
        """Return the iterations that run; None where several Loops run, each its own."""
        return self.point.loops or (None if metadata.cores else metadata.loops)

    def _traits(self) -> list[str]:
        """Return what of the configuration sets this model apart."""
        return [SETTINGS[name][1](getattr(self.point, name)) for name in self.varying]


def _other_origin(path: Path, beside: str | Path, metadata: Metadata) -> tuple[str, ...]:
    """Say where a checkpoint is not the one that the model beside it was exported from."""
    exported = metadata.checkpoint_sha256
    if exported is None or exported == file_sha256(path):
        return ()
    return (f"{path.name} is not the checkpoint that {Path(beside).name} was exported from",)


def _shape(feeds: Mapping[str, Array]) -> dict[str, Any]:
    first = next(iter(feeds.values()), np.zeros(()))  # a graph may take no input at all
    return {
        "batch": first.shape[0] if first.ndim else 1,
        "sequence": first.shape[1] if first.ndim > 1 else None,
    }
