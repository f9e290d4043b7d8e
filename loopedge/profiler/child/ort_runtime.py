"""ONNX Runtime in the measured process: numpy, onnxruntime and the standard library."""

from pathlib import Path
from typing import Any

import numpy as np

from loopedge.runtime.denormals import DenormalsAreZero
from loopedge.runtime.placement import RECORD_ASSIGNMENT, assigned_operators
from loopedge.runtime.providers import CPU_PROVIDER, is_plug_in, load_plug_in
from loopedge.runtime.session_options import open_session, session_options

__all__ = ["OrtRuntime"]


class OrtRuntime:
    """A session on fixed inputs.

    Args:
        request: What the parent asked for: ``model``, ``inputs``, ``threads``, ``provider``, ``provider_options``,
            ``memory``, ``optimize``, ``trace``, the prefix of a trace file, or None, and ``optimized``, where the
            graph that runs is written to, or None.

    Raises:
        ProviderError: The provider is a plug-in that cannot be loaded.
    """

    def __init__(self, request: dict[str, Any]) -> None:
        with np.load(request["inputs"], allow_pickle=False) as stored:
            self.inputs = {name: stored[name] for name in stored.files}
        self.request = request
        self.assigned: dict[str, dict[str, int]] = {}
        self.options = session_options(
            request["threads"],
            request["memory"],
            model=request["model"],
            optimize=request["optimize"],
        )
        provider = request["provider"]
        self.provider = (provider, dict(request.get("provider_options") or {}))
        self.on_cpu = provider == CPU_PROVIDER
        if not self.on_cpu:
            self.options.add_session_config_entry(RECORD_ASSIGNMENT, "1")
            if is_plug_in(provider):
                load_plug_in(provider)  # its library belongs to the baseline, as onnxruntime's own
        if request.get("trace"):
            self.options.enable_profiling = True
            self.options.profile_file_prefix = request["trace"]
        if request.get("optimized"):
            self.options.optimized_model_filepath = request["optimized"]

    def load(self) -> str:
        """Create the session; return the provider that runs it."""
        self.session = open_session(
            self.request["model"], self.options, self.provider, self.request["memory"]
        )
        if not self.on_cpu:
            self.assigned = assigned_operators(self.session)
        return str(self.session.get_providers()[0])

    def run(self) -> None:
        """Run the model once, as `loopedge.Session` does."""
        with DenormalsAreZero():
            self.session.run(None, self.inputs)

    def prefill(self) -> None:
        """Refuse: only a model that decodes reads prompts."""
        raise ValueError("the model does not decode")

    def save(self, path: Path) -> None:
        """Run the model once and write its outputs as ``.npz``."""
        names = [output.name for output in self.session.get_outputs()]
        with DenormalsAreZero():
            outputs = self.session.run(names, self.inputs)
        np.savez(path, **dict(zip(names, outputs, strict=True)))

    def end_trace(self) -> str:
        """End tracing and return the path of the trace."""
        return str(self.session.end_profiling())
