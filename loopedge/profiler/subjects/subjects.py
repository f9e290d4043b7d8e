"""What a profile measures: each model and its twins, in each configuration of a sweep."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.artifact.artifact import artifact_files, open_artifact, write_artifact
from loopedge.errors import InputError
from loopedge.files.arrays import write_arrays
from loopedge.files.targets import file_sha256
from loopedge.graph.core.unrolling import unroll
from loopedge.graph.core.untied import untie
from loopedge.graph.core.view import view_core
from loopedge.graph.metadata import (
    LOOPS_INPUT,
    TOLERANCE_INPUT,
    ArtifactMetadata,
    read_metadata,
)
from loopedge.graph.weights import weight_bytes
from loopedge.profiler.labels import SETTINGS
from loopedge.profiler.processes.measurement import Subject
from loopedge.profiler.result import Failure
from loopedge.profiler.subjects.feeds import profile_feeds
from loopedge.runtime.memory_profiles import choose_profile, refuse_prepared

__all__ = ["TWINS", "Configuration", "ProfiledModel", "Request", "build_models", "configurations"]

TWINS = ("unrolled", "untied")
CHECKPOINT = ".pt"

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """One point of a sweep."""

    batch: int
    sequence: int | None
    loops: int | None
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked of every model, whatever the configuration."""

    device: str
    provider: str
    memory: str | None
    input: str | Path | None
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfiledModel:
    """A model to measure, and what is known of it before; ``told`` is what sets it apart by name."""

    source: Path
    told: tuple[str, ...]
    subject: Subject
    twin: str | None
    form: str | None
    quantization: str | None
    loops: int | None
    batch: int
    sequence: int | None
    weight_bytes: int
    note: str | None = None
    compute: str = "float32"

    @property
    def name(self) -> str:
        """What the model is called among the others."""
        return self.source.name + (f" ({', '.join(self.told)})" if self.told else "")


def configurations(
    batch: int | Sequence[int],
    sequence: int | Sequence[int] | None,
    loops: int | Sequence[int] | None,
    threads: int | Sequence[int],
) -> list[Configuration]:
    """Return every combination of the sizes that were named.

    Raises:
        InputError: One of them is below 1.
    """
    axes: dict[str, list[Any]] = {}
    for name, asked in (
        ("batch", batch),
        ("sequence", sequence),
        ("loops", loops),
        ("threads", threads),
    ):
        sizes = list(asked) if isinstance(asked, Sequence) else [asked]
        for size in sizes:
            if size is not None and size < 1:
                raise InputError(f"{name} is {size}, at least 1 is needed", hint=f"--{name} 1")
        if not sizes:
            raise InputError(f"no size of {name} was named", hint=f"--{name} 1")
        axes[name] = list(dict.fromkeys(sizes))
    return [
        Configuration(**dict(zip(axes, point, strict=True))) for point in product(*axes.values())
    ]


def build_models(
    paths: Sequence[str | Path],
    points: Sequence[Configuration],
    request: Request,
    twins: Mapping[str, bool | Collection[str | Path]],
    scratch: Path,
) -> tuple[list[ProfiledModel], list[Failure]]:
    """Open the models, generate their inputs, and write their twins.

    Args:
        paths: ``.onnx`` and ``.ort`` files, and ``model.pt`` for PyTorch.
        points: Configurations; in each, twins come after all models.
        request: What is asked of all.
        twins: By `TWINS`: whether every model gets one, or which.
        scratch: Folder for inputs and twins.

    Returns:
        The models, and the twins that could not be made; these are refused where there is no other.

    Raises:
        InputError: A file or an option cannot be used.
    """
    _check_twins(paths, twins)
    for path in filter(_is_checkpoint, paths):
        if not Path(path).is_file():
            raise InputError(f"{path} does not exist", hint="loopedge train --help")
    graphs = {path: open_artifact(path) for path in paths if not _is_checkpoint(path)}
    if not graphs:
        raise InputError(
            f"{paths[0]} is a checkpoint: an exported model has to stand beside it",
            hint=f"loopedge export {paths[0]}",
        )
    found: list[ProfiledModel] = []
    failures: list[Failure] = []
    errors: list[InputError] = []
    for number, point in enumerate(points):
        folder = scratch / str(number)
        folder.mkdir()
        build = _Builder(graphs, point, request, _varying(points), folder)
        found += [build.model(index, path) for index, path in enumerate(paths)]
        for index, (path, twin) in enumerate(_twins(paths, twins)):
            try:
                found.append(build.twin(f"{twin}{index}", path, twin))
            except InputError as error:
                named = str(path) in error.message
                told = error.message if named else f"{path}: {error.message}"
                errors.append(InputError(told, hint=error.hint))
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

    graphs: Mapping[str | Path, ir.Model]
    point: Configuration
    request: Request
    varying: tuple[str, ...]
    folder: Path

    def model(self, index: int, path: str | Path) -> ProfiledModel:
        """Return a model as it stands in its file."""
        if _is_checkpoint(path):
            return self._checkpoint(index, Path(path))
        graph = self.graphs[path]
        return self._profiled(str(index), Path(path), graph, Path(path), None, self._feeds(path))

    def twin(self, name: str, path: str | Path, twin: str) -> ProfiledModel:
        """Write the twin of a model.

        Raises:
            InputError: The model has none.
        """
        graph = self.graphs[path]
        metadata = read_metadata(graph.metadata_props)
        refuse_prepared(metadata, path, f"profile --{twin}")
        if twin == "unrolled" and view_core(graph).form != "loop":
            raise InputError(f"{path} holds no Loop: it is unrolled already")
        rewrite = untie if twin == "untied" else unroll
        rewritten = rewrite(graph, self.point.loops)
        target = self.folder / f"{name}.onnx"
        write_artifact(rewritten, target)
        taken = {value.name for value in rewritten.graph.inputs}
        feeds = {key: array for key, array in self._feeds(path).items() if key in taken}
        return self._profiled(name, Path(path), rewritten, target, twin, feeds)

    def _feeds(self, path: str | Path) -> dict[str, Array]:
        return profile_feeds(
            self.graphs[path],
            path,
            self.request.input,
            batch=self.point.batch,
            sequence=self.point.sequence,
            loops=self.point.loops,
            seed=self.request.seed,
        )

    def _profiled(
        self,
        name: str,
        source: Path,
        graph: ir.Model,
        file: Path,
        twin: str | None,
        feeds: Mapping[str, Array],
    ) -> ProfiledModel:
        metadata = read_metadata(graph.metadata_props)
        chosen = choose_profile(self.request.memory, metadata, source, device=self.request.device)
        inputs = self.folder / f"{name}.npz"
        write_arrays(inputs, feeds)
        profile = [chosen.profile] if chosen.profile != "balanced" else []
        return ProfiledModel(
            source=source,
            told=(*([twin] if twin else []), *profile, *self._told()),
            subject=Subject(
                model=file.resolve(),
                inputs=inputs,
                file_bytes=sum(part.stat().st_size for part in artifact_files(file)),
                provider=self.request.provider,
                threads=self.point.threads,
                memory=chosen.profile,
                optimize=chosen.optimize,
            ),
            twin=twin,
            form=metadata.form if metadata else None,
            quantization=(metadata.quantization or {}).get("scheme") if metadata else None,
            loops=self._loops(metadata),
            **_shape(feeds),
            weight_bytes=weight_bytes(graph),
            note=None if twin or not chosen.note else f"{source.name}: {chosen.note}",
        )

    def _checkpoint(self, index: int, path: Path) -> ProfiledModel:
        """Return PyTorch's own run of a checkpoint, on the inputs of the first exported model."""
        from loopedge.profiler.subjects.checkpoint import checkpoint_loops

        if self.request.device != "cpu":
            raise InputError(f"{path}: PyTorch is measured on the CPU alone", hint="--device cpu")
        trained, stored_bytes = checkpoint_loops(path)
        beside = next(iter(self.graphs))
        feeds = self._feeds(beside)
        inputs = self.folder / f"{index}.npz"
        write_arrays(inputs, feeds)
        metadata = read_metadata(self.graphs[beside].metadata_props)
        loops = self._loops(metadata) or trained
        return ProfiledModel(
            source=path,
            told=("PyTorch eager", *self._told()),
            subject=Subject(
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
            note=_other_origin(path, beside, metadata),
        )

    def _loops(self, metadata: ArtifactMetadata | None) -> int | None:
        return self.point.loops or (metadata.loops if metadata else None)

    def _told(self) -> list[str]:
        """Return what of the configuration sets this model apart."""
        return [SETTINGS[name][1](getattr(self.point, name)) for name in self.varying]


def _other_origin(path: Path, beside: str | Path, metadata: ArtifactMetadata | None) -> str | None:
    """Say where a checkpoint is not the one that the model beside it was exported from."""
    exported = metadata.checkpoint_sha256 if metadata else None
    if exported is None or exported == file_sha256(path):
        return None
    return f"{path.name} is not the checkpoint that {Path(beside).name} was exported from"


def _shape(feeds: Mapping[str, Array]) -> dict[str, Any]:
    first = next(iter(feeds.values()), np.zeros(()))  # a graph may take no input at all
    return {
        "batch": first.shape[0] if first.ndim else 1,
        "sequence": first.shape[1] if first.ndim > 1 else None,
    }
