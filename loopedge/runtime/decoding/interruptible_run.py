"""Run a session so that Ctrl-C ends it at its next operator, not at its end."""

import threading
from typing import Any

import onnxruntime as ort

__all__ = ["run_interruptibly"]


def run_interruptibly(session: ort.InferenceSession, binding: Any) -> None:
    """Run a session with what is bound.

    Python takes a signal between two of its own instructions, and only in the main thread: while that computes, Ctrl-C has
    to wait. So the main thread waits for another one that computes, and tells onnxruntime to stop.

    Args:
        session: The session.
        binding: Of its inputs and outputs.

    Raises:
        KeyboardInterrupt: It was interrupted; nothing runs any more, and the outputs hold part of what they should.
        Exception: onnxruntime's own, one kind per failure.
    """
    if threading.current_thread() is not threading.main_thread():
        session.run_with_iobinding(binding)
        return
    options, finished = ort.RunOptions(), threading.Event()
    failed: list[Exception] = []

    def compute() -> None:
        try:
            session.run_with_iobinding(binding, options)
        except Exception as error:
            failed.append(error)
        finally:
            finished.set()

    threading.Thread(target=compute, daemon=True, name="loopedge.prefill").start()
    try:
        finished.wait()
    except BaseException as interrupt:
        options.terminate = True
        finished.wait()  # until then it writes into buffers that are ours
        raise interrupt from (failed[0] if failed else None)
    if failed:
        raise failed[0]
