"""Ctrl-C ends a long call of onnxruntime at its next operator, and leaves the texts as they were."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

import loopedge
from loopedge.runtime.decoding.interruptible_run import run_interruptibly
from tests.graph.generate_files import GenerateModel, write_generate_file

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def endless() -> ort.InferenceSession:
    """Return a session that counts to 2 ** 60."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["on"]),
            helper.make_node("Add", ["x", "one"], ["next"]),
        ],
        "body",
        [
            value("i", TensorProto.INT64, []),
            value("going", TensorProto.BOOL, []),
            value("x", TensorProto.INT64, []),
        ],
        [value("on", TensorProto.BOOL, []), value("next", TensorProto.INT64, [])],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["n", "", "zero"], ["y"], body=body)],
        "endless",
        [value("n", TensorProto.INT64, [])],
        [value("y", TensorProto.INT64, [])],
        [
            helper.make_tensor("one", TensorProto.INT64, [], [1]),
            helper.make_tensor("zero", TensorProto.INT64, [], [0]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def bound(session: ort.InferenceSession, trips: int) -> Any:
    binding = session.io_binding()
    binding.bind_cpu_input("n", np.array(trips))
    binding.bind_output("y")
    return binding


def test_a_call_is_ended_at_an_operator_and_the_session_goes_on() -> None:
    session = endless()
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt) as caught:
        run_interruptibly(session, bound(session, 2**60))
    timer.join()
    assert "terminate" in str(caught.value.__cause__)
    again = bound(session, 5)
    run_interruptibly(session, again)
    assert again.copy_outputs_to_cpu()[0] == 5


def test_in_another_thread_it_runs_as_it_is() -> None:
    session, found = endless(), []

    def work() -> None:
        binding = bound(session, 7)
        run_interruptibly(session, binding)
        found.append(int(binding.copy_outputs_to_cpu()[0]))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [7]


def test_an_error_is_onnxruntimes_own() -> None:
    session = endless()
    with pytest.raises(Exception, match="n"):  # onnxruntime raises a kind of its own per failure
        run_interruptibly(session, session.io_binding())


class Waits:
    """A session that computes until it is told to stop, and sends itself Ctrl-C."""

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        while not options.terminate:
            threading.Event().wait(0.01)
        raise RuntimeError("terminated")


def test_an_interrupted_prompt_leaves_the_text_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_generate_file(GenerateModel(), tmp_path / "lm.onnx")
    generator = loopedge.Generator(path, threads=1)
    generator.prefill([1, 2, 3])
    expected = generator.another().prefill([1, 2, 3, 4, 5])
    with monkeypatch.context() as patched:
        patched.setattr(generator.file.session, "session", Waits())
        with pytest.raises(KeyboardInterrupt):
            generator.prefill([6, 7])
    assert generator.texts == [[1, 2, 3]]
    assert np.allclose(generator.prefill([4, 5]), expected, atol=1e-5)
