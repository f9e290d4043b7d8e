"""A session of onnxruntime for a model of a bundle: its settings, and where it runs."""

from __future__ import annotations

import importlib
import json
import pkgutil
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime as ort
from loopedge_denormals import POOL_ENTRIES, DenormalsAreZero
from loopedge_files import BundleError

CPU = "cpu"
RECORD_ASSIGNMENT = "session.record_ep_graph_assignment_info"
"""Lets a session tell which provider each node was assigned to; releases that do not know it ignore it."""
OPENVINO = "OpenVINOExecutionProvider"
PLUG_INS = ("onnxruntime_ep_", "onnxruntime_qnn")
"""What modules begin with that bring an execution provider."""

_registered: set[str] = set()


def check_runtime(model: Mapping[str, Any]) -> None:
    """Refuse an onnxruntime that is too old for a model.

    Raises:
        BundleError: As said.
    """
    version: str = ort.__version__
    needed = model["min_runtime"]
    if needed is None:
        return
    have = tuple(int(part) for part in version.split(".")[:2])
    if have < tuple(int(part) for part in needed.split(".")):
        raise BundleError(
            f"{model['file']} needs onnxruntime {needed}, this is {version}: pip install 'onnxruntime>={needed}'"
        )


def open_session(path: Path, model: Mapping[str, Any], provider: str, threads: int | None) -> Any:
    """Open a session.

    Args:
        path: The model.
        model: What the manifest says of it.
        provider: By its short name.
        threads: Inside an operator.

    Raises:
        BundleError: The provider is not there, or the model cannot be loaded.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.enable_mem_pattern = bool(model["memory_pattern"])
    if threads is not None:
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    wanted = short_name(provider)
    entries = {**POOL_ENTRIES, **model["config"]}
    if wanted != CPU:
        entries[RECORD_ASSIGNMENT] = "1"
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    try:
        providers = _providers(wanted, options)
        with DenormalsAreZero():  # puts back what the entry does to this thread
            session = ort.InferenceSession(
                str(path), options, providers=providers, enable_fallback=0
            )
    except BundleError:
        raise
    except Exception as error:  # onnxruntime raises a kind of its own per failure
        raise BundleError(f"{path.name} cannot be loaded: {str(error).splitlines()[0]}") from error
    runs = short_name(session.get_providers()[0])
    if runs != wanted:
        raise BundleError(f"{wanted} was asked for, {runs} would run {path.name}")
    if wanted != CPU and hasattr(session, "get_provider_graph_assignment_info"):
        check_placement(session, wanted, path.name)
    return session


def check_placement(session: Any, provider: str, name: str) -> None:
    """Warn where a part of a model's nodes runs elsewhere than on a provider.

    Args:
        session: Created with `RECORD_ASSIGNMENT`.
        provider: By its short name.
        name: Of the model.

    Raises:
        BundleError: None runs there.
    """
    nodes: Counter[str] = Counter()
    for part in session.get_provider_graph_assignment_info():
        nodes[short_name(str(part.ep_name))] += len(part.get_nodes())
    there, together = nodes[provider], sum(nodes.values())
    if not there:
        raise BundleError(
            f"{provider} was asked for and runs none of the {together} nodes of {name}"
        )
    if there < together:
        warnings.warn(
            f"{there} of {together} nodes of {name} run on {provider}, the others on the CPU",
            stacklevel=5,
        )


def _providers(wanted: str, options: Any) -> list[str] | None:
    """Return the providers of a session; None where a plug-in package brings it, which the options name then."""
    names = {short_name(name): name for name in ort.get_available_providers()}
    if wanted in names:
        return [names[wanted]]
    for listed in pkgutil.iter_modules():
        if not listed.name.startswith(PLUG_INS):
            continue
        module = importlib.import_module(listed.name)
        for name in map(str, module.get_ep_names()):
            if short_name(name) != wanted:
                continue
            if name not in _registered:
                ort.register_execution_provider_library(name, module.get_library_path())
                _registered.add(name)
            devices = [each for each in ort.get_ep_devices() if each.ep_name == name]
            if not devices:
                raise BundleError(f"{name} finds no device on this machine")
            options.add_provider_for_devices(devices[:1], _plug_in_options(name, options))
            return None
    raise BundleError(f"this onnxruntime has no provider {wanted}, it has {', '.join(names)}")


def _plug_in_options(provider: str, options: Any) -> dict[str, str]:
    """Hand on the number of threads, which does not reach OpenVINO otherwise."""
    threads = options.intra_op_num_threads
    if provider != OPENVINO or not threads:
        return {}
    return {"load_config": json.dumps({"CPU": {"INFERENCE_NUM_THREADS": str(threads)}})}


def short_name(provider: str) -> str:
    """Return the name of a provider as bundles have it: ``cpu``, ``openvino``."""
    return provider.lower().replace("executionprovider", "")
