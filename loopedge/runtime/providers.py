"""Execution providers by name: those built into the installed onnxruntime, and those of plug-in packages; onnxruntime alone."""

import importlib
import json
import pkgutil
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import onnxruntime as ort

from loopedge.errors import InputError, ProviderError
from loopedge.options import by_face, option, option_name

__all__ = [
    "CPU_PROVIDER",
    "CUDA_PROVIDER",
    "Provider",
    "add_plug_in",
    "find_provider",
    "full_name",
    "is_plug_in",
    "load_plug_in",
    "provider_options",
    "short_name",
]

CPU_PROVIDER, CUDA_PROVIDER = "CPUExecutionProvider", "CUDAExecutionProvider"
SUFFIX = "ExecutionProvider"
PLUG_INS = ("onnxruntime_ep_", "onnxruntime_qnn")
"""What modules of plug-in packages begin with; each has ``get_library_path`` and ``get_ep_names``."""

PACKAGES = {
    "openvino": "onnxruntime-ep-openvino",
    "webgpu": "onnxruntime-ep-webgpu",
    "nvtensorrtrtx": "onnxruntime-ep-nv-tensorrt-rtx",
    "qnn": "onnxruntime-qnn",
}
"""Plug-in packages, by the short name of their provider."""

DEVICE_TYPE = "device_type"
"""The option that chooses among several devices of one plug-in: cpu, gpu or npu."""

OPENVINO = "OpenVINOExecutionProvider"
OPENVINO_IGNORES = {
    "precision": ("INFERENCE_PRECISION_HINT", "f32"),
    "num_of_threads": ("INFERENCE_NUM_THREADS", "1"),
    "num_streams": ("NUM_STREAMS", "1"),
    "model_priority": ("MODEL_PRIORITY", "LOW"),
    "cache_dir": ("CACHE_DIR", "FOLDER"),
    "device_id": (DEVICE_TYPE, "npu"),
    "device_luid": (DEVICE_TYPE, "npu"),
}
"""Options of the provider before it was a plug-in: the plug-in only logs that it ignores them."""

_REGISTERING = threading.Lock()
_registered: set[str] = set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """An execution provider that was found, and the options that its sessions get."""

    name: str
    options: dict[str, str] = field(default_factory=dict)


def full_name(name: str) -> str:
    """Return the name that ONNX Runtime has for a provider, by a short one or in any case; unknown ones as they are.

    Nothing is looked for but plug-in packages; `find_provider` says whether it is there.
    """
    wanted = name.casefold().removesuffix(SUFFIX.casefold())
    built_in: list[str] = [CPU_PROVIDER, CUDA_PROVIDER, *ort.get_all_providers()]
    # Packages are looked for where nothing else fits: that takes longer than to open a small session.
    return _of_short_name(wanted, built_in) or _of_short_name(wanted, _plug_in_modules()) or name


def _of_short_name(wanted: str, names: Iterable[str]) -> str | None:
    return next((known for known in names if short_name(known) == wanted), None)


def short_name(provider: str) -> str:
    """Return the name of a provider as people write it: ``cpu``, ``openvino``."""
    return provider.removesuffix(SUFFIX).casefold()


def provider_options(words: Mapping[str, object] | None) -> dict[str, str]:
    """Return options of a provider as texts.

    Raises:
        InputError: A name is empty, or a value is no text and no number.
    """
    found = {}
    for key, value in (words or {}).items():
        if not key or not isinstance(value, str | int | float):
            raise InputError(
                f"{option_name('provider_options')} has {key!r}: {value!r}, texts are needed",
                hint=_as_option(DEVICE_TYPE, "gpu"),
            )
        found[key] = str(value)
    return found


def find_provider(name: str, options: Mapping[str, str] | None = None) -> Provider:
    """Find a provider that this onnxruntime has; a plug-in is not loaded yet.

    Args:
        name: ``cpu``, ``cuda``, ``openvino``; or as ONNX Runtime calls it, ``OpenVINOExecutionProvider``.
        options: Of the provider, by its own names.

    Raises:
        InputError: An option has no use.
        ProviderError: This onnxruntime has no such provider.
    """
    found = full_name(name)
    given = provider_options(options)
    if found == CUDA_PROVIDER:
        from loopedge.runtime.cuda import check_built_in  # has hints of its own

        check_built_in()
    elif (
        found not in {CPU_PROVIDER, *ort.get_available_providers()}
        and found not in _plug_in_modules()
    ):
        raise ProviderError(
            f"this onnxruntime ({ort.__version__}) has no execution provider {name!r}, it has "
            f"{', '.join(_available())}",
            hint=_install_hint(found),
        )
    if found == CPU_PROVIDER and given:
        raise InputError(
            f"{CPU_PROVIDER} takes no options, {', '.join(given)} was named",
            hint=f"leave out {option_name('provider_options')}",
        )
    if found == OPENVINO and is_plug_in(found):
        _check_openvino(given)
    return Provider(name=found, options=given)


def is_plug_in(provider: str) -> bool:
    """Tell whether a provider comes from a plug-in package, and not with onnxruntime itself."""
    if provider in {CPU_PROVIDER, CUDA_PROVIDER}:
        return False
    if provider in _registered:
        return True
    return provider not in ort.get_available_providers() and provider in _plug_in_modules()


def load_plug_in(provider: str) -> None:
    """Register the library of a plug-in with ONNX Runtime, once in a process.

    Raises:
        ProviderError: This onnxruntime takes no plug-ins, or refuses the library.
    """
    with _REGISTERING:
        if provider in _registered:
            return
        if not hasattr(ort, "register_execution_provider_library"):
            raise ProviderError(
                f"{provider} is a plug-in, which onnxruntime takes from 1.23 on; this is {ort.__version__}",
                hint="pip install -U onnxruntime",
            )
        module = _plug_in_modules()[provider]
        try:
            ort.register_execution_provider_library(provider, module.get_library_path())
        except Exception as error:  # onnxruntime raises a kind of its own per failure
            raise ProviderError(
                f"{provider} cannot be loaded into onnxruntime {ort.__version__}: {_first_line(error)}",
                hint=f"pip install -U onnxruntime {_package_of(provider)}",
            ) from error
        _registered.add(provider)


def add_plug_in(
    options: ort.SessionOptions, provider: str, chosen: Mapping[str, str] | None = None
) -> None:
    """Let a session run on a plug-in: on its first device, or on the first of the kind that ``device_type`` names.

    Args:
        options: Of the session; its number of threads is handed on where the engine does not read it there.
        provider: The plug-in; it is registered where it is not yet.
        chosen: Options of the provider.

    Raises:
        ProviderError: The plug-in finds no device, or none of that kind.
    """
    load_plug_in(provider)
    given = dict(chosen or {})
    kind = given.pop(DEVICE_TYPE, None)
    found = [device for device in ort.get_ep_devices() if device.ep_name == provider]
    if not found:
        needs = ": it needs a graphics adapter" if short_name(provider) == "webgpu" else ""
        raise ProviderError(
            f"{provider} finds no device on this machine{needs}", hint=option("provider", "cpu")
        )
    fitting = [device for device in found if kind is None or _kind_of(device) == kind.casefold()]
    if not fitting:
        kinds = sorted({_kind_of(device) for device in found})
        raise ProviderError(
            f"{provider} finds no device of type {kind!r} here, it finds {', '.join(kinds)}",
            hint=_as_option(DEVICE_TYPE, kinds[0]),
        )
    if provider == OPENVINO:
        given = _openvino_options(given, fitting[0], options.intra_op_num_threads)
    options.add_provider_for_devices([fitting[0]], given)


def _as_option(key: str, value: str) -> str:
    """Return an option of a provider as it is written."""
    return by_face(
        f"{option_name('provider_options')} {key}={value}",
        f"provider_options={{{key!r}: {value!r}}}",
    )


def _kind_of(device: Any) -> str:
    return str(device.device.type.name).casefold()


def _plug_in_modules() -> dict[str, ModuleType]:
    """Return the installed plug-in packages, by the providers that they bring."""
    found: dict[str, ModuleType] = {}
    for listed in pkgutil.iter_modules():
        if listed.name.startswith(PLUG_INS):
            module = importlib.import_module(listed.name)
            found.update((str(name), module) for name in module.get_ep_names())
    return found


def _available() -> list[str]:
    """Return the providers that can be asked for, by their short names."""
    names = [*ort.get_available_providers(), *_plug_in_modules()]
    return list(dict.fromkeys(short_name(name) for name in sorted(names) if "." not in name))


def _package_of(provider: str) -> str:
    return PACKAGES.get(short_name(provider), "onnxruntime")


def _install_hint(provider: str) -> str:
    package = PACKAGES.get(short_name(provider))
    return option("provider", "cpu") if package is None else f"pip install {package}"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].removeprefix("[ONNXRuntimeError] : ") if lines else type(error).__name__


def _check_openvino(given: Mapping[str, str]) -> None:
    """Refuse options that the plug-in of OpenVINO ignores without a word.

    Raises:
        InputError: As said.
    """
    for key in given:
        instead = OPENVINO_IGNORES.get(key)
        if instead is not None:
            raise InputError(
                f"the plug-in of OpenVINO ignores the option {key}",
                hint=_as_option(*instead),
            )


def _openvino_options(given: Mapping[str, str], device: Any, threads: int) -> dict[str, str]:
    """Return the options of OpenVINO: its own properties go into ``load_config``, by the device.

    Properties are in capitals, ``INFERENCE_PRECISION_HINT``. The number of threads is one of them: ONNX Runtime's own
    setting does not reach OpenVINO.
    """
    properties = {key: value for key, value in given.items() if re.fullmatch(r"[A-Z_]+", key)}
    rest = {key: value for key, value in given.items() if key not in properties}
    target = str(dict(device.ep_metadata).get("ov_device", "CPU"))
    if threads and target == "CPU":
        properties.setdefault("INFERENCE_NUM_THREADS", str(threads))
    if properties and "load_config" not in rest:
        rest["load_config"] = json.dumps({target: properties})
    return rest
