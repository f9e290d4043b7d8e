"""ONNX Runtime on CUDA: its libraries, its options, and why it does not run; onnxruntime alone."""

import contextlib
import ctypes
import io
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import onnxruntime as ort

from loopedge.errors import ProviderError, install_hint
from loopedge.runtime.providers import CUDA_PROVIDER

__all__ = [
    "CUDA_PROVIDER",
    "check_built_in",
    "cuda_failure",
    "cuda_provider",
    "preload_libraries",
    "quiet_provider",
    "ran_out_of_memory",
    "refusal",
    "unavailable",
]

INSTALL_HINT = f"{install_hint('gpu')} (docs/profiling.md, CUDA)"
REINSTALL_HINT = (
    "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'onnxruntime-gpu[cuda,cudnn]'"
)
"""The two packages write into one folder, and the one that pip wrote last is what is imported."""
DRIVER_HINT = "nvidia-smi, which must list a device"
DRIVER_SIGNS = ("libcuda.so", "CUDA failure 35:", "CUDA failure 100:", "CUDA failure 101:")
"""The driver's library is missing; it is too old; no device, or no such device, is visible."""

FAILURE = re.compile(r"(?:CUDA|CUBLAS|CUDNN|CUDNN_FE|CURAND|CUFFT) failure -?\d+: [^;\n]+")
"""What ONNX Runtime says of a failed call; the rest of its line holds source files and the host's name."""

OUT_OF_MEMORY = (
    "out of memory",
    "alloc_failed",
    "failed to allocate memory",
    "available memory of",
)
"""What CUDA, cuBLAS and ONNX Runtime's arena say of a device that is full, in lower case."""

LOG_WARNING, LOG_FATAL = 2, 4
LIBRARIES = ("libonnxruntime_providers_shared.so", "libonnxruntime_providers_cuda.so")


def check_built_in() -> None:
    """Refuse an onnxruntime that was built without CUDA.

    Raises:
        ProviderError: It was.
    """
    if CUDA_PROVIDER in ort.get_available_providers():
        return
    message = f"{CUDA_PROVIDER} is not available in this onnxruntime ({ort.__version__}, built without CUDA)"
    with contextlib.suppress(PackageNotFoundError):
        found = version("onnxruntime-gpu")
        raise ProviderError(
            f"{message}: its files stand over those of onnxruntime-gpu {found}",
            hint=REINSTALL_HINT,
        )
    raise ProviderError(message, hint=INSTALL_HINT)


def preload_libraries() -> None:
    """Load CUDA and cuDNN from where PyTorch or NVIDIA's wheels keep them, before a session needs them.

    What ONNX Runtime prints of libraries that it does not find is kept from standard output: whether
    CUDA runs is asked of the session, and `unavailable` says why not.
    """
    if hasattr(ort, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):
            ort.preload_dlls()


@contextlib.contextmanager
def quiet_provider() -> Iterator[None]:
    """Keep off standard error what ONNX Runtime logs of a provider that it cannot load: it is raised."""
    ort.set_default_logger_severity(LOG_FATAL)
    try:
        yield
    finally:
        ort.set_default_logger_severity(LOG_WARNING)


def cuda_provider(*, graphs: bool = False) -> tuple[str, dict[str, Any]]:
    """Return the provider with the options of every session, measured or not.

    The arena grows by what is asked for: the default doubles each extension, and the memory of a model
    could not be kept apart from the arena's reserve.

    Args:
        graphs: Capture the run as a CUDA graph; a session whose graph cannot be captured is refused by
            ONNX Runtime when it is created.
    """
    options = {"arena_extend_strategy": "kSameAsRequested"}
    if graphs:
        options["enable_cuda_graph"] = "1"
    return CUDA_PROVIDER, options


def refusal(error: BaseException | None = None) -> ProviderError:
    """Return the error of a session that CUDA does not run, by `unavailable`, and what mends it."""
    reason = unavailable(error)
    driver = any(sign in reason for sign in DRIVER_SIGNS)
    return ProviderError(
        f"{CUDA_PROVIDER} does not run: {reason}", hint=DRIVER_HINT if driver else INSTALL_HINT
    )


def cuda_failure(error: BaseException | str) -> str | None:
    """Return the failed call that an error of ONNX Runtime names, without files and host names."""
    found = FAILURE.search(str(error))
    return found[0].strip() if found else None


def ran_out_of_memory(error: BaseException | str) -> bool:
    """Tell whether an error of a session on CUDA says that the device is full."""
    said = str(error).lower()
    return any(words in said for words in OUT_OF_MEMORY)


def unavailable(error: BaseException | None = None) -> str:
    """Say in one line why CUDA does not run, after a session was refused or created without it.

    ONNX Runtime only logs which library was missing, so the library of its provider is opened once
    more. Never call this before a session was tried: the provider finds its host when it is first
    loaded.
    """
    if error is not None:
        failure = cuda_failure(error)
        if failure is not None:
            return failure
    capi = Path(ort.__file__).parent / "capi"
    for name in LIBRARIES:
        if (capi / name).exists():
            try:
                ctypes.CDLL(str(capi / name), ctypes.RTLD_GLOBAL)
            except OSError as missing:
                return str(missing)
    if error is not None:
        return (str(error).strip().splitlines() or [type(error).__name__])[0]
    return "ONNX Runtime could not create it"
