"""Talk to a measured process."""

import json
import os
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from loopedge.errors import InputError, LoopedgeError, ProviderError
from loopedge.options import by_face, option
from loopedge.profiler.processes.conversation import Conversation
from loopedge.profiler.processes.setup import ProcessSetup
from loopedge.runtime.cuda import cuda_failure, ran_out_of_memory
from loopedge.runtime.placement import check_products
from loopedge.runtime.providers import CUDA_PROVIDER

__all__ = ["MeasuredProcess"]

OUT_OF_MEMORY = ("memoryerror", "bad_alloc", "failed to allocate", "can't allocate memory")
"""What Python, C++, ONNX Runtime's arena and PyTorch say, in lower case."""


class MeasuredProcess(Conversation):
    """A fresh process that has loaded one model and runs it on command.

    Args:
        setup: The model, its inputs, and how it runs.
        trace: Prefix of ONNX Runtime's trace file; None runs without tracing.
        optimized: Where the graph that runs is written to, while it loads; None writes none.
        before_load: Is called with the process's id when only its runtime is there, on CUDA with a
            context on the device; the model is loaded after it.
        on_start: Is called with the process's id before it loads the model.
        python: Interpreter to run it with; its environment holds numpy and the runtime.

    Raises:
        InputError: The model cannot be loaded.
        ProviderError: Another provider than asked for runs the model.
        LoopedgeError: The process died, or ran out of memory.
    """

    def __init__(
        self,
        setup: ProcessSetup,
        *,
        trace: Path | None = None,
        optimized: Path | None = None,
        before_load: Callable[[int], None] | None = None,
        on_start: Callable[[int], None] | None = None,
        python: str | Path = sys.executable,
    ) -> None:
        model = setup.model
        request = {
            **setup.to_json(),
            "parent": os.getpid(),
            "trace": None if trace is None else str(trace),
            "optimized": None if optimized is None else str(optimized),
            "pause": before_load is not None,
            "flags": by_face("yes", ""),
        }
        self._model, self.setup = model, setup
        self._provider = provider = setup.provider
        words = [str(python), "-P", "-m", "loopedge.profiler.child.main", json.dumps(request)]
        try:
            super().__init__(words)
        except OSError as error:
            raise LoopedgeError(
                f"no process could be started to measure {model}: {error.strerror}"
            ) from error
        if on_start is not None:
            on_start(self._process.pid)
        try:
            if before_load is not None:
                self.hear()
                before_load(self._process.pid)
                self.loaded = self.ask({"load": True})
            else:
                self.loaded = self.hear()
            if provider is not None:
                self._check_provider(provider)
        except BaseException:
            self.kill()
            raise

    def run(self, runs: int) -> list[float]:
        """Run the model and return the latency of each run, in ms."""
        latencies: list[float] = self.ask({"runs": runs})["latencies_ms"]
        return latencies

    def prompts(self, runs: int) -> list[float]:
        """Compute the whole text at once, of a model that decodes, and return the latency of each run, in ms."""
        latencies: list[float] = self.ask({"prompts": runs})["latencies_ms"]
        return latencies

    def memory(self) -> dict[str, int]:
        """Return the growth of the process's memory until now, in bytes (`Memory`)."""
        growth: dict[str, int] = self.ask({"memory": True})["memory"]
        return growth

    def save_outputs(self, path: Path) -> Path:
        """Run the model once and write its outputs as ``.npz``."""
        return Path(self.ask({"save": str(path)})["saved"])

    def end_trace(self) -> Path:
        """End tracing and return the trace file."""
        return Path(self.ask({"trace": True})["trace"])

    def resident(self, model_files: Collection[str]) -> dict[str, int]:
        """Return the growth of the resident pages by kind of mapping, in bytes (`Resident`)."""
        growth: dict[str, int] = self.ask({"resident": list(model_files)})["resident"]
        return growth

    def reset_peak(self) -> None:
        """Let the peak count from here on."""
        self.ask({"reset_peak": True})

    def trim(self) -> None:
        """Give the memory that malloc keeps back to the system, where the C library can."""
        self.ask({"trim": True})

    def copy(self, size: int, chunk: int) -> list[float]:
        """Return the seconds of each chunk of copies of a buffer of so many bytes."""
        seconds: list[float] = self.ask({"copy": size, "chunk": chunk})["seconds"]
        return seconds

    def _check_provider(self, provider: str) -> None:
        if self.loaded["provider"] != provider:
            raise ProviderError(
                f"{provider} was asked for, {self.loaded['provider']} would run {self._model}",
                hint=option("provider", "cpu"),
            )
        if self.loaded.get("assigned"):
            check_products(
                self.loaded["assigned"], provider, self._model, hint=option("provider", "cpu")
            )

    def _death(self, cause: str) -> LoopedgeError:
        return LoopedgeError(f"the process that measured {self._model} {cause}")

    def _refusal(self, answer: Mapping[str, Any]) -> LoopedgeError:
        reason = str(answer["error"])
        if answer["kind"] == ProviderError.__name__:
            return ProviderError(reason, hint=answer["hint"])
        if self._provider == CUDA_PROVIDER:
            reason = cuda_failure(reason) or reason
            if ran_out_of_memory(reason):
                return LoopedgeError(f"{self._model} ran out of GPU memory: {reason}")
        said = f"{answer['kind']}: {reason}".lower()
        if any(word in said for word in OUT_OF_MEMORY):
            return LoopedgeError(
                f"the process that measured {self._model} ran out of memory: {reason}"
            )
        return InputError(
            f"{self._model} cannot be profiled: {reason}", hint=f"loopedge inspect {self._model}"
        )
