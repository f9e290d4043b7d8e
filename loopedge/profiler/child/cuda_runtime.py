"""ONNX Runtime on CUDA in the measured process: inputs and outputs stay on the device."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from loopedge.profiler.child.ort_runtime import OrtRuntime
from loopedge.runtime.cuda import (
    CUDA_PROVIDER,
    cuda_failure,
    cuda_provider,
    preload_libraries,
    ran_out_of_memory,
    refusal,
)
from loopedge.runtime.placement import assigned_operators
from loopedge.runtime.session_options import open_session

__all__ = ["CudaRuntime"]

DEVICE_MEMORY = "Cuda"
"""What ONNX Runtime calls the memory of the device."""
UNCAPTURED = "-1"
"""``gpu_graph_id`` of a run that neither captures nor replays a CUDA graph."""


class CudaRuntime(OrtRuntime):
    """A session on CUDA; creating one loads the libraries and creates the context on the device.

    Args:
        request: As `OrtRuntime`, and ``cuda_graphs``, whether the run is captured and replayed, and
            ``dimensions``, sizes of free axes by name: a graph of fixed shapes computes none when it
            runs, on the host, where nothing can be captured.

    Raises:
        ProviderError: CUDA does not run here.
    """

    def __init__(self, request: dict[str, Any]) -> None:
        preload_libraries()
        super().__init__(request)
        for name, size in request["dimensions"].items():
            self.options.add_free_dimension_override_by_name(name, size)
        self.graphs: bool = request["cuda_graphs"]
        self.values: list[Any] = [_create_context()]

    def load(self) -> str:
        """Create the session and bind its inputs and outputs; return the provider that runs it."""
        name, common = cuda_provider(graphs=self.graphs)
        provider = (name, {**common, **self.provider[1]})
        try:
            self.session = open_session(
                self.request["model"], self.options, provider, self.request["memory"]
            )
        except Exception as error:
            if cuda_failure(error) is None or ran_out_of_memory(error):
                raise
            raise refusal(error) from error
        if CUDA_PROVIDER not in self.session.get_providers():
            raise refusal()
        self.assigned = assigned_operators(self.session)
        self._bind()
        return str(self.session.get_providers()[0])

    def run(self) -> None:
        """Run the model once and wait for the device."""
        if self.graphs and not self.fixed:
            self._fix_outputs()
        self.session.run_with_iobinding(self.binding)
        self.binding.synchronize_outputs()

    def save(self, path: Path) -> None:
        """Run the model once and write its outputs as ``.npz``."""
        self.run()
        arrays = self.binding.copy_outputs_to_cpu()
        np.savez(path, **dict(zip(self.outputs, arrays, strict=True)))

    def _bind(self) -> None:
        """Put every input where its first reader takes it, and leave outputs where they are made."""
        self.binding = self.session.io_binding()
        homes = _homes(self.session.get_inputs(), self.session.get_input_memory_infos())
        for name, array in self.inputs.items():
            value = ort.OrtValue.ortvalue_from_numpy(array, homes.get(name, "cpu"), 0)
            self.values.append(value)
            self.binding.bind_ortvalue_input(name, value)
        made = self.session.get_outputs()
        self.outputs = _homes(made, self.session.get_output_memory_infos())
        for name, home in self.outputs.items():
            self.binding.bind_output(name, home, 0)
        self.fixed = False

    def _fix_outputs(self) -> None:
        """Give the outputs buffers that stay: a captured graph writes to the addresses it was captured with."""
        uncaptured = ort.RunOptions()
        uncaptured.add_run_config_entry("gpu_graph_id", UNCAPTURED)
        self.session.run_with_iobinding(self.binding, uncaptured)
        self.binding.synchronize_outputs()
        for name, value in zip(self.outputs, self.binding.get_outputs(), strict=True):
            self.values.append(value)
            self.binding.bind_ortvalue_output(name, value)
        self.fixed = True


def _create_context() -> Any:
    try:
        return ort.OrtValue.ortvalue_from_numpy(np.zeros(1, np.float32), "cuda", 0)
    except Exception as error:  # onnxruntime raises a kind of its own per failure
        raise refusal(error) from error


def _homes(nodes: Any, infos: Any) -> dict[str, str]:
    """Return on which side each tensor lives, by its name; ``CudaPinned`` is memory of the host."""
    return {
        node.name: "cuda" if info.name == DEVICE_MEMORY else "cpu"
        for node, info in zip(nodes, infos, strict=True)
    }
