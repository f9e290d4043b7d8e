"""How loopedge opens a session of ONNX Runtime: onnxruntime alone, for the measured process too."""

import onnxruntime as ort

__all__ = ["session_options"]

LOG_FATAL = 4


def session_options(threads: int | None = None) -> ort.SessionOptions:
    """Return the options of every session.

    The memory pattern is off: it keeps a block per input shape beside what the first run has taken,
    3 MiB on the paper's block, and saves no time (benchmarks/int8/choices.py).

    Args:
        threads: Threads inside an operator, with one between operators; default: ONNX Runtime's choice.
    """
    options = ort.SessionOptions()
    options.log_severity_level = LOG_FATAL  # failures are raised, and said once
    options.enable_mem_pattern = False
    if threads is not None:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    return options
