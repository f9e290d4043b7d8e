"""Every model of a bundle computes what its vectors say: with the bundle's own loader for Python."""

import importlib.util
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from loopedge.errors import VerificationError
from loopedge.options import option_name
from loopedge.packager.manifest import Manifest, Model
from loopedge.packager.static_files import FILES
from loopedge.packager.vectors.made import MadeVector, settle_limits
from loopedge.runtime import denormals

__all__ = ["client_module", "measure_vectors"]

CLIENT_MODULES = (
    "loopedge_files",
    "loopedge_session",
    "loopedge_vectors",
    "loopedge_text",
    "loopedge_bundle",
)
"""Of the loader, each behind those that it imports."""


@cache
def client_module() -> ModuleType:
    """Return the loader of the client for Python, as bundles hold it."""
    sys.modules.setdefault("loopedge_denormals", denormals)  # bundles hold a copy under this name
    for name in CLIENT_MODULES:
        if name not in sys.modules:
            spec = importlib.util.spec_from_file_location(name, FILES / "python" / f"{name}.py")
            assert spec is not None
            assert spec.loader is not None
            sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def measure_vectors(
    vectors: Iterable[MadeVector], manifest: Manifest, folder: Path, *, threads: int | None
) -> None:
    """Run all vectors on all models of a bundle, on the CPU, and note in each the worst that was found.

    Args:
        vectors: Of the bundle; what is measured is noted in them.
        manifest: Of the bundle, without vectors and files.
        folder: The bundle.
        threads: Threads of ONNX Runtime.

    Raises:
        VerificationError: A model computes something else.
    """
    client, made = client_module(), list(vectors)
    described = manifest.model_dump(mode="json")
    for model in manifest.models:
        bundle = client.Bundle(folder, described, model.model_dump(mode="json"), threads=threads)
        for vector in made:
            if _fits(vector, model):
                _measure(vector, bundle, client)
    settle_limits(made)


def _fits(vector: MadeVector, model: Model) -> bool:
    """Tell whether a form runs the loop count of a vector, where that names one."""
    loops = vector.inputs.get("loops")
    return loops is None or model.loops is None or int(loops.item()) == model.loops


def _measure(vector: MadeVector, bundle: Any, client: ModuleType) -> None:
    found = bundle.run_vector(vector.inputs, vector.outputs)
    expected = list(vector.outputs.values())
    measured = client.measure(vector.judged, expected, [found[name] for name in vector.outputs])
    if vector.judged == "sqnr" and not measured > 0:
        raise VerificationError(
            f"{bundle.model['file']} fails the test vector {vector.name!r}: {measured:.3g} dB of signal to noise to the "
            "float model, more than 0 are needed",
            measured=measured,
            allowed=0.0,
            hint=f"{option_name('reference')} names the float model that it was quantized from",
        )
    vector.worsen(measured)
    if not client.passes(vector.judged, measured, vector.limit):
        raise VerificationError(
            f"{bundle.model['file']} fails the test vector {vector.name!r}: {vector.judged} {measured:.3g}, "
            f"allowed {vector.limit:.3g}",
            measured=measured,
            allowed=vector.limit,
        )
