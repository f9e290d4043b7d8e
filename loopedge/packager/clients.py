"""What is known of clients, execution providers and engines: one table each, with where every fact comes from.

A fact that a bundle depends on stands here and nowhere else.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from loopedge.errors import InputError
from loopedge.options import option
from loopedge.packager.manifest import ClientName, Engine

__all__ = [
    "CLIENTS",
    "GENERATE_RELEASE",
    "OPSET_RELEASES",
    "PROVIDERS",
    "SINGLE_FILE_BYTES",
    "ClientFacts",
    "ModelTraits",
    "ProviderFacts",
    "check_clients",
    "check_provider",
    "known_engines",
    "provider_facts",
    "release_text",
]

Release = tuple[int, int]

SINGLE_FILE_BYTES = 2 * 2**20
"""Weights up to which a model is one file: one request of a browser. A file that holds its weights costs about four times its
size in the heap of WebAssembly, so larger models come as two files."""

FormKind = Literal["loop", "unrolled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientFacts:
    """What one kind of client takes.

    Args:
        title: What people call it.
        parts: Folders of ``loopedge/packager/files`` and where they come to stand in a bundle.
        entry: The file to open, import or include first.
        runtime: The package of the runtime, and how it is installed.
        ort_format: Whether it takes ORT format, where the model can be converted.
        single_file: Whether a small model is one file.
        providers: Providers whose form is written without being asked for.
        runtime_note: How large the runtime is, or where that stands.
    """

    title: str
    parts: tuple[tuple[str, str], ...]
    entry: str
    runtime: str
    ort_format: bool = False
    single_file: bool = False
    providers: tuple[str, ...] = ()
    runtime_note: str = ""


LIBRARY_NOTE = "libonnxruntime takes 45.8 MB on x86-64 Linux, 25.1 MB on ARM64"
"""Of the npm package onnxruntime-node 1.30.0."""

CLIENTS: dict[ClientName, ClientFacts] = {
    "web": ClientFacts(
        title="a browser",
        parts=(("javascript", "javascript"), ("web", "web")),
        entry="index.html",
        runtime="onnxruntime-web: npm install onnxruntime-web",
        single_file=True,
        providers=("webgpu",),
        runtime_note="ONNX Runtime for WebAssembly takes 14.2 MB, 3.7 MB where the server compresses with gzip",
    ),
    "node": ClientFacts(
        title="Node",
        parts=(("javascript", "javascript"), ("node", "node")),
        entry="javascript/loopedge.mjs",
        runtime="onnxruntime-node: npm install onnxruntime-node",
        single_file=True,
        runtime_note=LIBRARY_NOTE,
    ),
    "c": ClientFacts(
        title="C",
        parts=(("c", "c"),),
        entry="c/loopedge.h",
        runtime="libonnxruntime: the releases of ONNX Runtime, or the npm package onnxruntime-node",
        ort_format=True,
        runtime_note=LIBRARY_NOTE,
    ),
    "python": ClientFacts(
        title="Python",
        parts=(("python", "python"),),
        entry="python/loopedge_bundle.py",
        runtime="onnxruntime: pip install onnxruntime numpy",
        runtime_note=LIBRARY_NOTE,
    ),
}
"""Sources: docs/on_your_board.md (what was tried where), docs/reach.md (ORT format), the npm packages (sizes)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderFacts:
    """What an execution provider of ONNX Runtime does with a Loop.

    Args:
        form: What it is sent.
        reason: Why, with its source.
        clients: Where it is found; empty: anywhere.
    """

    form: FormKind
    reason: str
    clients: tuple[ClientName, ...] = ()


_NO_LOOP = "its list of operators has no Loop"

PROVIDERS: dict[str, ProviderFacts] = {
    "cpu": ProviderFacts(form="loop", reason="measured: docs/results.md"),
    "wasm": ProviderFacts(
        form="loop", reason="measured: docs/on_your_board.md", clients=("web", "node")
    ),
    "cuda": ProviderFacts(
        form="loop",
        reason="one copy of the weights either way; the loop count stays on the host (docs/profiling.md)",
        clients=("node", "c", "python"),
    ),
    "webgpu": ProviderFacts(
        form="unrolled", reason=f"{_NO_LOOP}, of control flow it has If alone (ONNX Runtime)"
    ),
    "webnn": ProviderFacts(form="unrolled", reason=f"{_NO_LOOP} (ONNX Runtime)", clients=("web",)),
    "coreml": ProviderFacts(
        form="unrolled",
        reason="a Loop needs enable_on_subgraphs and is slow (parakeet-rs 51); never on ANE (coremltools 2208)",
        clients=("node", "c", "python"),
    ),
    "qnn": ProviderFacts(
        form="unrolled",
        reason=f"{_NO_LOOP}; an If by inlining (onnxruntime-qnn 409)",
        clients=("node", "c", "python"),
    ),
    "nnapi": ProviderFacts(
        form="unrolled", reason="it skips subgraphs (onnxruntime 4287)", clients=("c",)
    ),
    "openvino": ProviderFacts(
        form="unrolled",
        reason="measured: a Loop of opset 23 stays on the CPU (docs/profiling.md)",
        clients=("c", "python"),
    ),
    "xnnpack": ProviderFacts(form="unrolled", reason=_NO_LOOP, clients=("web", "c", "python")),
    "dml": ProviderFacts(form="unrolled", reason=_NO_LOOP, clients=("node", "c", "python")),
    "tensorrt": ProviderFacts(
        form="unrolled",
        reason="a graph without control flow is one engine (ONNX Runtime)",
        clients=("c", "python"),
    ),
    "migraphx": ProviderFacts(
        form="unrolled",
        reason="a Loop needs a constant trip count (ONNX Runtime)",
        clients=("c", "python"),
    ),
}
"""By the names that clients use. What was not measured here is from the documentation and issues of the engine."""

SUFFIX = "executionprovider"
UNKNOWN = ProviderFacts(form="unrolled", reason="it was not tried: this form has no Loop")

OPSET_RELEASES: dict[int, Release] = {
    **dict.fromkeys(range(1, 21), (1, 17)),
    21: (1, 20), 22: (1, 22), 23: (1, 23), 24: (1, 24), 25: (1, 24), 26: (1, 25), 27: (1, 32), 28: (1, 32),
}  # fmt: skip
"""The oldest release of ONNX Runtime that loads an opset, of those that were tried: docs/reach.md."""

GENERATE_RELEASE: Release = (1, 24)
"""Of a Scan with GroupQueryAttention: docs/generate.md."""


def check_clients(names: Iterable[str]) -> tuple[ClientName, ...]:
    """Return the clients that a bundle is for, each once, in the order of the table.

    Raises:
        InputError: There is none, or one does not exist.
    """
    known: tuple[ClientName, ...] = get_args(ClientName)
    asked = [names] if isinstance(names, str) else list(names)
    wrong = next((name for name in asked if name not in known), None)
    if wrong is not None:
        raise InputError(
            f"client {wrong!r} does not exist; there are {', '.join(known)}",
            hint=option("for", "web"),
        )
    if not asked:
        raise InputError(
            f"a bundle is for a client: one of {', '.join(known)}", hint=option("for", "web")
        )
    return tuple(name for name in known if name in asked)


def check_provider(name: str | None, clients: Iterable[ClientName]) -> str | None:
    """Return an execution provider by the name that clients use: ``WebGpuExecutionProvider`` is ``webgpu``.

    Raises:
        InputError: It is not known, or none of the clients has it.
    """
    if name is None:
        return None
    short = name.lower().removesuffix(SUFFIX)
    facts = provider_facts(short)
    if facts is UNKNOWN and short not in _built_providers():
        raise InputError(
            f"provider {name!r} is not known; there are {', '.join((*PROVIDERS, *_built_providers()))}",
            hint=option("provider", "cpu"),
        )
    listed = list(clients)
    if facts.clients and not set(facts.clients) & set(listed):
        raise InputError(
            f"provider {short} is found in {', '.join(facts.clients)}, the bundle is for {', '.join(listed)}",
            hint=option("for", facts.clients[0]),
        )
    return short


def provider_facts(short: str) -> ProviderFacts:
    """Return what is known of a provider; of one that is not in the table, what runs anywhere."""
    return PROVIDERS.get(short, UNKNOWN)


def _built_providers() -> list[str]:
    """Return the providers that ONNX Runtime knows and the table does not, by their short names."""
    import onnxruntime as ort

    names = (name.lower().removesuffix(SUFFIX) for name in ort.get_all_providers())
    return [name for name in names if name not in PROVIDERS]


def release_text(release: Release) -> str:
    """Return a release as people write it: ``1.24``."""
    return ".".join(map(str, release))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """An engine that is known to fail on some models.

    Args:
        engine: Its name.
        verdict: As in the manifest.
        reason: What happens, and where that was found.
        forms: Forms of the models that it fails on; empty: any.
        schemes: Schemes of these; empty: any.
        opset: The only opset that it fails on.
        least_opset: The oldest opset that it fails on.
        tied_table: Only where one table is embedding and head.
    """

    engine: str
    verdict: Literal["refuses", "wrong", "slow"]
    reason: str
    forms: tuple[str, ...] = ()
    schemes: tuple[str, ...] = ()
    opset: int | None = None
    least_opset: int | None = None
    tied_table: bool = False


LOOPS = ("loop",)
SCANS = ("scan", "tensorscatter")
STATIC = ("static",)
DYNAMIC = ("dynamic",)
WEIGHT_ONLY = ("weight-int8", "weight-int4", "weight-int2")

# Sources: docs/on_your_board.md and docs/reach.md for what was run here (tract, OpenVINO, the plug-in of OpenVINO, old
# releases, SME); for the providers of phones and browsers the documentation and issues of ONNX Runtime, as in `PROVIDERS`.
FACTS = (
    Fact(engine="onnxruntime WebGPU", verdict="refuses", forms=LOOPS, reason="no Loop"),
    Fact(engine="onnxruntime WebGPU", verdict="refuses", forms=SCANS, reason="no Scan"),
    Fact(engine="onnxruntime WebGL", verdict="refuses", forms=LOOPS, reason="no Loop"),
    Fact(engine="onnxruntime QNN", verdict="refuses", forms=LOOPS, reason="no Loop"),
    Fact(engine="onnxruntime NNAPI", verdict="slow", forms=LOOPS, reason="it skips subgraphs"),
    Fact(engine="onnxruntime CoreML", verdict="slow", forms=LOOPS, reason="a Loop runs outside of it"),
    Fact(engine="onnxruntime OpenVINO plug-in", verdict="refuses", forms=LOOPS, least_opset=23,
         reason="a Loop with Attention or RMSNormalization of opset 23 stays on the CPU, one of opset 20 is taken (docs/profiling.md)"),
    Fact(engine="onnxruntime-web, WebAssembly", verdict="slow", schemes=("weight-int8",),
         reason="it takes longer than the float model there, static and dynamic take less (benchmarks/results/clients)"),
    Fact(engine="tract 0.23", verdict="refuses", forms=LOOPS, reason="no Loop"),
    Fact(engine="tract 0.23", verdict="refuses", schemes=(*STATIC, *DYNAMIC, *WEIGHT_ONLY),
         reason="it knows the operators of --ops standard alone (docs/on_your_board.md)"),
    Fact(engine="OpenVINO 2026.4", verdict="refuses", schemes=WEIGHT_ONLY, tied_table=True,
         reason="where embedding and head are one table (docs/on_your_board.md)"),
    Fact(engine="OpenVINO 2026.4", verdict="refuses", schemes=STATIC, tied_table=True,
         reason="where embedding and head are one table (docs/on_your_board.md)"),
    Fact(engine="ONNX Runtime on ARM64 with SME (qemu-user -cpu max)", verdict="wrong", schemes=DYNAMIC,
         reason="DynamicQuantizeMatMul computes something else there, without an error; static does not"),
    Fact(engine="onnxruntime 1.17 in ORT format", verdict="refuses", forms=("ort",), opset=20,
         reason="no kernel for Gelu of opset 20 (docs/reach.md)"),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTraits:
    """What engines fail on.

    Args:
        model: The id in the manifest.
        forms: Its form; of a foreign file with a Loop ``loop``; ``ort`` beside it in ORT format.
        scheme: How it is quantized.
        opset: Of the ONNX standard.
        standard: Whether its operators are those of the standard alone.
        tied_table: Whether one table is embedding and head.
    """

    model: str
    forms: frozenset[str]
    scheme: str | None
    opset: int | None
    standard: bool
    tied_table: bool


def known_engines(traits: ModelTraits) -> Iterator[Engine]:
    """Yield the engines that are known to fail on a model; in ORT format ONNX Runtime alone reads it."""
    for fact in FACTS:
        if "ort" in traits.forms and not fact.engine.lower().startswith("onnx"):
            continue
        if fact.forms and not traits.forms & set(fact.forms):
            continue
        if fact.schemes and (traits.scheme not in fact.schemes or traits.standard):
            continue
        if (fact.opset not in {None, traits.opset}) or (fact.tied_table and not traits.tied_table):
            continue
        if fact.least_opset is not None and (traits.opset or 0) < fact.least_opset:
            continue
        model = traits.model
        yield Engine(engine=fact.engine, model=model, verdict=fact.verdict, reason=fact.reason)
