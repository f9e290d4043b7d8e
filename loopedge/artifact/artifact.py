"""Open model files with clear errors and write artifacts whole or not at all."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir

from loopedge.artifact.companions import check_companion_targets
from loopedge.artifact.reading.load_check import check_loads, unloadable_reasons
from loopedge.artifact.reading.onnx_file import SMALL_BYTES, read_onnx
from loopedge.artifact.reading.ort_format import is_ort_format, read_ort
from loopedge.artifact.seal import config_path, drop_seal, is_sealed, name_data, write_sealed
from loopedge.artifact.sizes import DataFile, check_sizes, described_data
from loopedge.errors import InputError, VerificationError
from loopedge.files.input_files import check_file
from loopedge.files.paths import check_text
from loopedge.files.staging import (
    Identity,
    again_if_replaced,
    check_unchanged,
    identity_of,
    staged_folder,
)
from loopedge.files.targets import check_artifact_target
from loopedge.graph.inputs import chooses_tolerance
from loopedge.graph.metadata import FOREIGN, TOLERANCE_INPUT, Metadata, read_metadata
from loopedge.graph.naming import (
    keep_names_apart,
    rename_foreign_steps,
    rename_foreign_weights,
    rename_repeated_values,
)
from loopedge.graph.passes.foreign_weights import normalise_weights
from loopedge.graph.passes.loaded_data import read_attribute_data, read_initializer_data
from loopedge.graph.passes.storage import restore_float32
from loopedge.graph.passes.stored_weights import fold_weight_chains
from loopedge.graph.passes.table_head import turn_scores
from loopedge.graph.positions.last_iteration import restore_last_iteration
from loopedge.graph.weights import OWN_PREFIX, RANGE_PREFIX, TABLE_PREFIX

__all__ = [
    "EXTERNAL_THRESHOLD_BYTES",
    "Artifact",
    "files_beside",
    "open_artifact",
    "write_artifact",
    "write_scratch",
]

EXTERNAL_THRESHOLD_BYTES = 256 * 1024
"""Total initializer bytes above which weights go to a file of their own.

Weights inside the file cost about as much anonymous memory again, whatever their size, so this is
no border but the price of having one file: about a sixth of what so small a session takes anyway
(benchmarks/export/external_data.py).
"""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Artifact:
    """A model's file that was opened: parsed and checked once, and handed on from verb to verb.

    `graph` is never changed: whoever holds the artifact reads the same one. A pass that changes a graph takes
    `fresh_graph` or `float32_graph`, which are the caller's own.

    Attributes:
        path: The ``.onnx`` or ``.ort`` file, as the caller named it.
        graph: What it holds. Weights stay on disk until they are read. Without the checksums of the file.
        metadata: What the file says of itself; `loopedge.graph.metadata.FOREIGN` where another tool wrote it.
        data: The files of its external data, each once.
        data_file: What the file says of the data file that loopedge wrote beside it.
        identity: Which file stood under the path when it was opened.
    """

    path: Path
    graph: ir.Model
    metadata: Metadata
    data: tuple[Path, ...]
    data_file: DataFile | None
    identity: Identity

    @classmethod
    def open(cls, path: str | Path, *, unloadable: bool = False) -> "Artifact":
        """Open an ONNX or ORT format file; a file that is replaced meanwhile is opened once more.

        Nodes without a name, or with that of another one, get one of their own: passes and users name nodes. In a
        graph of another tool, initializers whose names loopedge gives to what is not a weight get ``model.`` before them.

        Args:
            path: The file.
            unloadable: Open a file too that ONNX Runtime cannot load (`loopedge.artifact.reading.load_check`).

        Raises:
            InputError: The file is missing, is not a model or is damaged, ONNX Runtime cannot load it, or its external
                data is missing, outside its folder, or has another size than it was written with.
        """
        artifact = again_if_replaced(Path(path), lambda: _open(path))
        if not unloadable and not artifact.ort_format:
            check_loads(artifact.graph, artifact.path)
        return artifact

    @property
    def ort_format(self) -> bool:
        """Whether the file is in ORT format."""
        return is_ort_format(self.path)

    @property
    def files(self) -> list[Path]:
        """The model's file and those of its external data: what a session reads."""
        return [self.path, *self.data]

    @property
    def file_bytes(self) -> int:
        """Bytes of `files`."""
        return sum(file.stat().st_size for file in self.files)

    def needed_files(self) -> list[Path]:
        """Return all files that belong to the model: `files`, its companions, the list of operators of an ``.ort``.

        No command that reads the model may write over one of them.

        Raises:
            InputError: The path is not text.
        """
        check_text(self.path, "MODEL")
        beside = [companion.file for companion in self.metadata.companions.values()]
        operators = [config_path(self.path)] if self.ort_format else []
        return [*self.files, *(self.path.parent / name for name in beside), *operators]

    def fresh_graph(self) -> ir.Model:
        """Return a copy of the graph that its caller may change; the weights are shared, none is copied."""
        return self.graph.clone()

    def float32_graph(self) -> ir.Model:
        """Return a graph to work on the weights: in float32, however they are stored, heads as linears.

        That of another tool, rerolled or not, is normalised first (`loopedge.graph.passes.foreign_weights`).

        It is the caller's own. A last iteration that computes fewer rows is put back into the Loop;
        `loopedge.graph.positions.last_iteration.narrow_last_iteration` takes it out again at the end.

        Raises:
            InputError: The file is in ORT format.
        """
        if self.ort_format:
            raise InputError(
                f"{self.path} is in ORT format, the last step: calibrate and quantize the .onnx file",
                hint="loopedge quantize model.onnx, then loopedge convert model.int8.onnx",
            )
        model = self.fresh_graph()
        if self.metadata.foreign:
            rename_foreign_steps(model)
        if self.metadata.foreign or self.metadata.source_sha256 is not None:
            normalise_weights(model)
            rename_repeated_values(model)
            _name_nodes(model)
        restore_float32(model)
        restore_last_iteration(model)
        fold_weight_chains(model)
        turn_scores(model)
        return model

    def check_unchanged(self) -> None:
        """Refuse a file that was replaced since it was opened: what was made of it would be of two versions.

        Raises:
            InputError: As said.
        """
        check_unchanged(self.path, self.identity)


def open_artifact(path: str | Path) -> ir.Model:
    """Return the graph of an ONNX or ORT format file, without the checksums of the file.

    Raises:
        InputError: As `Artifact.open`.
    """
    return Artifact.open(path).graph


def _open(path: str | Path) -> Artifact:
    source = check_file(path, needed="an ONNX file", hint="loopedge export model.pt")
    identity = identity_of(source)
    graph, data, data_file = _read(source)
    rewritten = is_sealed(graph.metadata_props)
    drop_seal(graph.metadata_props)
    try:
        metadata = read_metadata(graph.metadata_props)
    except InputError as error:
        raise InputError(f"{source}: {error.message}") from error
    if metadata.foreign and not rewritten:
        rename_foreign_weights(graph, (TABLE_PREFIX, RANGE_PREFIX, OWN_PREFIX))
    if metadata.tolerance is not None:
        _require_tolerance(graph)
    _name_nodes(graph)
    return Artifact(
        path=Path(path),
        graph=graph,
        metadata=metadata,
        data=tuple(data),
        data_file=data_file,
        identity=identity,
    )


def _require_tolerance(graph: ir.Model) -> None:
    """Make the tolerance of an early exit a plain input, in place: in earlier files it has a stored default.

    ONNX Runtime drops what a JavaScript session is fed for such an input, and warns whenever it loads the file.
    """
    for value in graph.graph.inputs:
        if chooses_tolerance(value) and value.is_initializer():
            del graph.graph.initializers[TOLERANCE_INPUT]
            value.const_value = None


def _read(source: Path) -> tuple[ir.Model, list[Path], DataFile | None]:
    """Return the graph of a file, the files of its external data, and what it says of its own data file."""
    if is_ort_format(
        source
    ):  # what it says of a data file is of the file that it was converted from
        return read_ort(source), [], None
    graph, data = read_onnx(source)
    data_file = described_data(source, graph.metadata_props)
    check_sizes(source, data_file)
    return graph, data, data_file


def write_artifact(
    model: ir.Model,
    target: Path,
    *,
    sources: Iterable[str | Path] = (),
    force: bool = False,
    external_threshold_bytes: int = EXTERNAL_THRESHOLD_BYTES,
    verify: Callable[[Path], Metadata | None] | None = None,
    companions: Mapping[str, bytes] | None = None,
) -> list[Path]:
    """Write ``model`` and its data beside the target, verify, then rename.

    The data file is called ``<target>.<16 hex digits of its SHA-256>.data``. So the rename of the ``.onnx``
    is the one moment at which the old artifact becomes the new one.

    Args:
        model: Graph to write; its large initializers may be lazy. What passes made up is renamed in it where the
            name is taken: a file knows values by their names alone.
        target: Path of the ``.onnx`` file.
        sources: Files that the model is made from: they are never written over.
        force: Replace an existing artifact.
        external_threshold_bytes: Total initializer bytes above which weights go to a data file.
        verify: Called with the staged file; when it raises, nothing is left. Metadata that it
            returns (what it measured) replaces the file's.
        companions: Files to write beside it, by name.

    Returns:
        The files written, the ``.onnx`` first.

    Raises:
        InputError: The target exists or cannot be written.
        VerificationError: ONNX Runtime could not load what would be written (`loopedge.artifact.reading.load_check`).
    """
    beside = dict(companions or {})
    check_artifact_target(target, sources, force=force)
    check_companion_targets(target.parent, beside)
    reasons = unloadable_reasons(model)
    if reasons:  # it would end the process that verifies
        raise VerificationError(f"{target} is not written: {reasons[0]}")
    keep_names_apart(model)
    total = sum(value.const_value.nbytes for value in _initializers(model) if value.const_value)
    with staged_folder(target, force=force, replaced=files_beside) as folder:
        staged = folder / target.name
        proto = _write_data(model, staged, external=total > external_threshold_bytes)
        data = name_data(proto, staged)
        metadata = None
        if verify is not None:
            staged.write_bytes(proto.SerializeToString())
            metadata = verify(staged)
        write_sealed(proto, staged, metadata or FOREIGN, data)
        for name, content in beside.items():
            (folder / name).write_bytes(content)
    names = [target.name, *([data.file] if data else []), *beside]
    return [target.parent / name for name in names]


def _write_data(model: ir.Model, staged: Path, *, external: bool) -> onnx.ModelProto:
    """Write the weights of a graph beside its file that is to be, and return what that file holds.

    The weights go from the disk to the disk, one after the other. ONNX Runtime memory-maps them there; small
    tensors (shapes, scalars) stay in the file.
    """
    written = model.clone()
    if external:
        data = f"{staged.name}.data"
        ir.external_data.unload_from_model(
            written, staged.parent, data, size_threshold_bytes=SMALL_BYTES
        )
    else:
        read_initializer_data(written)
    read_attribute_data(written)
    return ir.to_proto(written)


def write_scratch(model: ir.Model, path: Path) -> None:
    """Write a graph that is looked at and dropped; its names are kept apart as `write_artifact` does."""
    keep_names_apart(model)
    ir.save(model, path, external_data=f"{path.name}.data", size_threshold_bytes=SMALL_BYTES)


def files_beside(path: Path) -> set[str]:
    """Return the names of the files that an artifact cannot do without: its data and its companions.

    There are none where ``path`` does not stand, or is not a model.
    """
    try:
        artifact = Artifact.open(path, unloadable=True)
    except InputError:
        return set()
    data = {file.name for file in artifact.data if file.parent == path.parent}
    return data | {companion.file for companion in artifact.metadata.companions.values()}


def _initializers(model: ir.Model) -> list[ir.Value]:
    values = list(model.graph.initializers.values())
    for graph in model.graph.subgraphs():
        values.extend(graph.initializers.values())
    return values


def _name_nodes(model: ir.Model) -> None:
    nodes = list(model.graph.all_nodes())
    taken = {node.name for node in nodes}
    seen: set[str] = set()
    for place, node in enumerate(nodes):
        if not node.name or node.name in seen:
            name = node.name or f"{node.op_type}_{place}"
            while name in taken:
                name += "_"
            node.name = name
            taken.add(name)
        seen.add(node.name)
