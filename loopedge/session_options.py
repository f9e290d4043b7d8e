"""How loopedge opens a session of ONNX Runtime: onnxruntime alone, for the measured process too."""

from pathlib import Path

import onnxruntime as ort

__all__ = ["session_options"]

LOG_FATAL = 4
MAPPED_ORT_FORMAT = (
    "session.use_memory_mapped_ort_model",
    "session.use_ort_model_bytes_for_initializers",
)
"""Leave the weights of an ORT format file in the file; runtimes that do not know the first copy them."""


def session_options(
    threads: int | None = None, *, model: str | Path | None = None
) -> ort.SessionOptions:
    """Return the options of every session.

    The memory pattern is off: it keeps a block per input shape beside what the first run has taken,
    3 MiB on the paper's block, and saves no time (benchmarks/int8/choices.py).

    Args:
        threads: Threads inside an operator, with one between operators; default: ONNX Runtime's choice.
        model: The file to be opened: one in ORT format is mapped (docs/reach.md has the figures).
    """
    options = ort.SessionOptions()
    options.log_severity_level = LOG_FATAL  # failures are raised, and said once
    options.enable_mem_pattern = False
    if threads is not None:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    if model is not None and str(model).endswith(".ort"):
        for entry in MAPPED_ORT_FORMAT:
            options.add_session_config_entry(entry, "1")
    return options
