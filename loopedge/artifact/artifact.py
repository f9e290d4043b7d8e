"""Open model files with clear errors and write artifacts whole or not at all."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import onnx
import onnx_ir as ir

from loopedge.artifact.companions import check_companion_targets
from loopedge.artifact.reading.onnx_file import read_onnx
from loopedge.artifact.reading.ort_format import is_ort_format, read_ort
from loopedge.artifact.seal import drop_seal, name_weights, seal
from loopedge.artifact.sizes import check_sizes
from loopedge.errors import InputError
from loopedge.files.input_files import check_file
from loopedge.files.staging import again_if_replaced, staged_folder
from loopedge.files.targets import check_artifact_target
from loopedge.graph.metadata import ArtifactMetadata, read_metadata, write_metadata
from loopedge.graph.naming import keep_names_apart, rename_foreign_steps, rename_foreign_weights
from loopedge.graph.passes.storage import restore_float32
from loopedge.graph.passes.table_head import turn_scores
from loopedge.graph.positions.last_iteration import restore_last_iteration
from loopedge.graph.weights import OWN_PREFIX, RANGE_PREFIX, TABLE_PREFIX

__all__ = [
    "EXTERNAL_THRESHOLD_BYTES",
    "artifact_files",
    "files_beside",
    "open_artifact",
    "open_in_float32",
    "write_artifact",
    "write_scratch",
]

EXTERNAL_THRESHOLD_BYTES = 256 * 1024
"""Total initializer bytes above which weights go to a file of their own.

Weights inside the file cost about as much anonymous memory again, whatever their size, so this is
no border but the price of having one file: about a sixth of what so small a session takes anyway
(benchmarks/export/external_data.py).
"""


def open_artifact(path: str | Path) -> ir.Model:
    """Load an ONNX or ORT format file; what stands outside it stays on disk until it is read.

    Nodes without a name, or with that of another one, get one of their own: passes and users name nodes. In a graph
    of another tool, weights whose names loopedge gives to what is no weight get ``model.`` before them.

    Raises:
        InputError: The file is missing, is no model or a damaged one, or its external data is missing, outside
            its folder, or has another size than it was written with.
    """
    return _open(path)[0]


def open_in_float32(path: str | Path) -> ir.Model:
    """Open an artifact to work on its weights: in float32, however they are stored, heads as linears.

    A last iteration that computes fewer rows is put back into the Loop; `narrow_last_iteration` takes it out
    again at the end.

    Raises:
        InputError: As `open_artifact`, or it is in ORT format.
    """
    if is_ort_format(path):
        raise InputError(
            f"{path} is in ORT format, the last step: calibrate and quantize the .onnx file",
            hint="loopedge quantize model.onnx, then loopedge convert model.int8.onnx",
        )
    model = open_artifact(path)
    if read_metadata(model.metadata_props) is None:
        rename_foreign_steps(model)
    restore_float32(model)
    restore_last_iteration(model)
    turn_scores(model)
    return model


def _open(path: str | Path) -> tuple[ir.Model, list[Path]]:
    """Return a model and the files of its external data; look again where it was replaced meanwhile."""
    return again_if_replaced(Path(path), lambda: _open_once(path))


def _open_once(path: str | Path) -> tuple[ir.Model, list[Path]]:
    source = check_file(path, needed="an ONNX file", hint="loopedge export model.pt")
    model, data = (read_ort(source), []) if is_ort_format(source) else read_onnx(source)
    if not is_ort_format(source):  # which has them from the file that it was converted from
        check_sizes(source, model.metadata_props)
    drop_seal(model.metadata_props)
    if read_metadata(model.metadata_props) is None:
        rename_foreign_weights(model, TABLE_PREFIX, (RANGE_PREFIX, OWN_PREFIX))
    _name_nodes(model)
    return model, data


def write_artifact(
    model: ir.Model,
    target: Path,
    *,
    sources: Iterable[str | Path] = (),
    force: bool = False,
    external_threshold_bytes: int = EXTERNAL_THRESHOLD_BYTES,
    verify: Callable[[Path], ArtifactMetadata | None] | None = None,
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
    """
    beside = dict(companions or {})
    check_artifact_target(target, sources, force=force)
    check_companion_targets(target.parent, beside)
    keep_names_apart(model)
    total = sum(value.const_value.nbytes for value in _initializers(model) if value.const_value)
    external = total > external_threshold_bytes
    if not external:
        _read_external(model)
    with staged_folder(target, force=force, replaced=files_beside) as folder:
        staged = folder / target.name
        # ONNX Runtime memory-maps external tensors; small ones stay in the file (shapes, scalars).
        ir.save(
            model,
            staged,
            external_data=f"{target.name}.data" if external else None,
            size_threshold_bytes=1024,
        )
        weights = name_weights(staged)
        metadata = verify(staged) if verify is not None else None
        if metadata is not None:
            _replace_metadata(staged, metadata)
        for name, content in beside.items():
            (folder / name).write_bytes(content)
        seal(staged, weights)
    return [*artifact_files(target), *(target.parent / name for name in beside)]


def write_scratch(model: ir.Model, path: Path) -> None:
    """Write a graph that is looked at and dropped; its names are kept apart as `write_artifact` does."""
    keep_names_apart(model)
    ir.save(model, path, external_data=f"{path.name}.data", size_threshold_bytes=1024)


def files_beside(path: Path) -> set[str]:
    """Return the names of the files that an artifact cannot do without: its data and its companions.

    There are none where ``path`` does not stand, or is no model.
    """
    try:
        metadata = read_metadata(open_artifact(path).metadata_props)
        data = {file.name for file in artifact_files(path)[1:] if file.parent == path.parent}
    except InputError:
        return set()
    return data | {told.file for told in (metadata.companions if metadata else {}).values()}


def _replace_metadata(path: Path, metadata: ArtifactMetadata) -> None:
    model = onnx.load(path, load_external_data=False)
    properties = {item.key: item.value for item in model.metadata_props}
    write_metadata(metadata, properties)
    onnx.helper.set_model_props(model, properties)
    path.write_bytes(model.SerializeToString())


def artifact_files(path: str | Path) -> list[Path]:
    """List an ONNX file and the external data files it names, each once.

    Raises:
        InputError: As `open_artifact`.
    """
    return [Path(path), *_open(path)[1]]


def check_model(path: Path) -> None:
    """Run ONNX's own full checker on a file.

    Raises:
        onnx.checker.ValidationError: The graph is invalid.
    """
    onnx.checker.check_model(str(path), full_check=True)


def _read_external(model: ir.Model) -> None:
    """Read tensors that point into another file's data: a file without data must not name it."""
    for value in _initializers(model):
        if isinstance(value.const_value, ir.ExternalTensor):
            value.const_value = ir.tensor(value.const_value.numpy(), name=value.name)


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
