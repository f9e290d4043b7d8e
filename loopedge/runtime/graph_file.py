"""Let ONNX Runtime write the graph that it would run into a file: optimized, packed, or in ORT format."""

from collections.abc import Collection, Mapping
from pathlib import Path

import onnxruntime as ort

from loopedge.errors import InputError, LoopedgeError

__all__ = ["data_entries", "write_graph"]


def data_entries(target: Path, *, least_bytes: int | None = None) -> dict[str, str]:
    """Return the settings by which weights go into a file beside the graph, ``NAME.onnx.data``.

    Args:
        target: The graph's file.
        least_bytes: Of a weight that goes there; default: ONNX Runtime's own limit.
    """
    prefix = "session.optimized_model_external_initializers"
    entries = {f"{prefix}_file_name": f"{target.name}.data"}
    if least_bytes is not None:
        entries[f"{prefix}_min_size_in_bytes"] = str(least_bytes)
    return entries


def write_graph(
    source: Path,
    target: Path,
    options: ort.SessionOptions,
    entries: Mapping[str, str],
    *,
    purpose: str,
    disabled: Collection[str] = (),
) -> None:
    """Open a model on the CPU, and let ONNX Runtime write the graph that it would run.

    Args:
        source: The ``.onnx`` file.
        target: The file to write, which must not exist.
        options: Of the session; they serve this one alone.
        entries: Settings of what is written, by ONNX Runtime's names.
        purpose: What cannot be done with the source where this fails, for the message: ``converted``.
        disabled: Optimizers that leave the graph alone.

    Raises:
        InputError: ONNX Runtime cannot load the source.
        LoopedgeError: It wrote nothing.
    """
    options.optimized_model_filepath = str(target)
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    try:
        ort.InferenceSession(
            str(source),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=list(disabled) or None,
        )
    except Exception as error:  # onnxruntime raises a kind of its own per failure
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{source} cannot be {purpose}: {reason.removeprefix('[ONNXRuntimeError] : ')}",
            hint=f"loopedge inspect {source}",
        ) from error
    if not target.is_file():
        raise LoopedgeError(f"onnxruntime {ort.__version__} wrote no file for {source}")
