"""The model in the forms that clients take: written once each, under ``models/``."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import onnx_ir as ir

from loopedge.artifact.artifact import EXTERNAL_THRESHOLD_BYTES, Artifact, write_artifact
from loopedge.deployment.conversion import convert
from loopedge.deployment.unrolling import unroll
from loopedge.errors import InputError
from loopedge.graph.inputs import chooses_loops
from loopedge.graph.metadata import Form, Metadata, write_metadata
from loopedge.graph.weights import weight_bytes
from loopedge.options import option
from loopedge.packager.clients import (
    CLIENTS,
    GENERATE_RELEASE,
    OPSET_RELEASES,
    SINGLE_FILE_BYTES,
    ModelTraits,
    known_engines,
    provider_facts,
    release_text,
)
from loopedge.packager.manifest import ClientName, Engine, ExternalData, Model
from loopedge.packager.options import PackageOptions
from loopedge.packager.source import Source
from loopedge.packager.static_files import npm_package
from loopedge.runtime.decoding.generate_file import needed_runtime
from loopedge.runtime.session_options import MAPPED_ORT_FORMAT

__all__ = ["FOLDER", "WrittenModels", "write_models"]

FOLDER = "models"
LARGEST_SINGLE_BYTES = 2**31 - 1
"""Of a protocol buffer."""
JAVASCRIPT = ("javascript", "javascript")
"""The part of clients whose runtime is a package of npm."""


@dataclass(slots=True, kw_only=True)
class WrittenModels:
    """The models of a bundle.

    Args:
        models: As the manifest has them, that of every client first.
        chosen: By client the id of its model.
        providers: By client, by provider, the id of a model where it is another one.
        engines: Engines that are known to fail on one of them.
        notes: What a person should know.
    """

    models: list[Model] = field(default_factory=list)
    chosen: dict[ClientName, str] = field(default_factory=dict)
    providers: dict[ClientName, dict[str, str]] = field(default_factory=dict)
    engines: list[Engine] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ids(self) -> list[str]:
        """The ids of the models that are there."""
        return [model.id for model in self.models]


def write_models(source: Source, folder: Path, name: str, options: PackageOptions) -> WrittenModels:
    """Write the forms of a model that the chosen clients and providers take.

    Args:
        source: The model.
        folder: The bundle as it is made.
        name: What the model is called.
        options: The clients.

    Raises:
        InputError: No client can take the model.
        VerificationError: A form computes something else than the model.
    """
    return _Writing(source, folder, name, options).all()


class _Writing:
    """The forms of one model, each written when a client asks for it."""

    def __init__(self, source: Source, folder: Path, name: str, options: PackageOptions) -> None:
        self.source, self.folder, self.name, self.options = source, folder, name, options
        self.found = WrittenModels()
        single = any(CLIENTS[client].single_file for client in options.clients)
        self.threshold = SINGLE_FILE_BYTES if single else EXTERNAL_THRESHOLD_BYTES
        self.unrolled_refusal: str | None = None
        (folder / FOLDER).mkdir()

    def all(self) -> WrittenModels:
        """Write what each client takes, and say which."""
        for client in self.options.clients:
            self.found.chosen[client] = self._ort() if self._takes_ort(client) else self._base()
            providers = self.found.providers.setdefault(client, {})
            asked = self.options.provider
            for provider in dict.fromkeys(
                (*CLIENTS[client].providers, *([asked] if asked else []))
            ):
                wanted = provider_facts(provider)
                if wanted.clients and client not in wanted.clients:
                    continue
                if wanted.form != "unrolled" and self.found.chosen[client] != "ort":
                    continue
                chosen = (
                    self._unrolled(asked=provider == asked)
                    if wanted.form == "unrolled"
                    else self._base()
                )
                if chosen is not None and chosen != self.found.chosen[client]:
                    providers[provider] = chosen
        self.found.notes += self._newer_than_npm()
        return self.found

    def _newer_than_npm(self) -> Iterator[str]:
        """Say which models the npm packages do not load that the loaders were tried with."""
        version = npm_package("onnxruntime-web").rpartition("@")[2]
        tried = _release(version)
        clients = [name for name in self.options.clients if JAVASCRIPT in CLIENTS[name].parts]
        taken = {self.found.chosen[client] for client in clients}
        taken.update(*(self.found.providers[client].values() for client in clients))
        opset = max(opset for opset, release in OPSET_RELEASES.items() if release <= tried)
        for model in self.found.models:
            needed = model.min_runtime
            if model.id not in taken or model.opset is None:
                continue
            if needed is not None and _release(needed) <= tried:
                continue
            what = (
                f"is of opset {model.opset}, of which it is not known what loads it"
                if needed is None
                else f"needs ONNX Runtime {needed}"
            )
            way = (
                "the tool that wrote it has to write that"
                if self.source.metadata.foreign
                else option("opset", opset, command="export ...")
            )
            yield (
                f"{model.file} {what}; the npm packages that the loader for {' and '.join(clients)} was tried with are of "
                f"{version}, which loads opsets up to {opset}: {way}"
            )

    def _takes_ort(self, client: ClientName) -> bool:
        return CLIENTS[client].ort_format and not self.source.writes_text

    def _base(self) -> str:
        """Write the model as it is."""
        form = self.source.metadata.form
        identity: str = "generate" if self.source.writes_text else form or "model"
        if identity not in self.found.ids:
            ending = ".generate.onnx" if self.source.writes_text else ".onnx"
            path = self._place(self.source.artifact, f"{self.name}{ending}")
            self._add(identity, path)
        return identity

    def _ort(self) -> str:
        """Write the model in ORT format, and the operators that a reduced build must hold."""
        if "ort" in self.found.ids:
            return "ort"
        with_source = self._base() if set(self.options.clients) != {"c"} else None
        target = self.folder / FOLDER / f"{self.name}.ort"
        if with_source is None:
            source = self._place(self.source.artifact, f"{self.name}.onnx")
        else:
            source = self.folder / next(m.file for m in self.found.models if m.id == with_source)
        result = convert(source, target, threads=self.options.threads)
        self.found.notes += [f"{target.name}: {note}" for note in result.notes]
        if with_source is None:
            for file in Artifact.open(source).files:
                file.unlink()
        self._add("ort", target)
        return "ort"

    def _unrolled(self, *, asked: bool) -> str | None:
        """Write the model without a Loop; None where that cannot be done, and nobody insists."""
        if _form(self.source.artifact.graph, self.source.metadata) == "unrolled":
            return self._base()
        if "unrolled" in self.found.ids:
            return "unrolled"
        if self.source.writes_text and not asked:
            return None  # its cache has other parts: the whole bundle is of one form
        if self.unrolled_refusal is None:
            try:
                return self._write_unrolled()
            except InputError as refusal:
                self.unrolled_refusal = refusal.message
                if not asked:
                    self.found.notes.append(
                        f"there is no unrolled form, so engines without Loop do not run it: {refusal.message}"
                    )
        if asked:
            raise InputError(
                f"provider {self.options.provider} takes no Loop, and there is no unrolled form: {self.unrolled_refusal}",
                hint="leave the provider out, or export the unrolled form: loopedge export model.pt --form unrolled",
            )
        return None

    def _write_unrolled(self) -> str:
        scratch = self.folder / "unrolled"
        scratch.mkdir()
        try:
            made = scratch / "model.onnx"
            held = self._place(self.source.artifact, "source.onnx", folder=scratch)
            result = unroll(held, made, inner="unrolled", threads=self.options.threads)
            self.found.notes += [f"{self.name}.unrolled.onnx: {note}" for note in result.notes]
            path = self._place(Artifact.open(made), f"{self.name}.unrolled.onnx")
        finally:
            for file in scratch.iterdir():
                file.unlink()
            scratch.rmdir()
        self._add("unrolled", path)
        return "unrolled"

    def _place(self, artifact: Artifact, name: str, *, folder: Path | None = None) -> Path:
        """Write a graph of its own file into the bundle, with its weights inside where they are few.

        The tokenizer stands at the root of the bundle, so the file names none beside it.
        """
        target = (folder or self.folder / FOLDER) / name
        graph = artifact.fresh_graph()
        metadata = artifact.metadata.model_copy(update={"companions": {}})
        write_metadata(metadata, graph.metadata_props)
        threshold = min(self.threshold, LARGEST_SINGLE_BYTES)
        write_artifact(graph, target, external_threshold_bytes=threshold)
        return target

    def _add(self, identity: str, path: Path) -> None:
        artifact = Artifact.open(path)
        metadata, graph, ort_format = artifact.metadata, artifact.graph, artifact.ort_format
        form = _form(graph, metadata)
        scheme = (metadata.quantization or {}).get("scheme")
        opset = graph.opset_imports.get("")
        inputs = [value.name or "" for value in graph.graph.inputs]
        names = [value for value in inputs if value not in graph.graph.initializers]
        selectable = any(chooses_loops(value) for value in graph.graph.inputs)
        cached = metadata.generate is not None and form != "unrolled"
        self.found.models.append(
            Model(
                id=identity,
                file=self._inside(path),
                format="ort" if ort_format else "onnx",
                form=form,
                opset=opset,
                data=[
                    ExternalData(location=file.name, file=self._inside(file))
                    for file in artifact.data
                ],
                config=_config(metadata, ort_format=ort_format),
                memory_pattern=False,
                min_runtime=_min_runtime(graph, metadata, ort_format=ort_format),
                inputs=names,
                loops=None
                if selectable or cached
                else _fixed_loops(metadata, self.source.metadata),
                scheme=scheme,
                weight_bytes=weight_bytes(graph),
            )
        )
        nodes = list(graph.graph.all_nodes())
        forms: set[str] = {"ort"} if ort_format else set()
        if any(node.op_type == "Loop" for node in nodes):
            forms.add("loop")
        else:
            forms.add(form)
        traits = ModelTraits(
            model=identity,
            forms=frozenset(forms),
            scheme=scheme,
            opset=opset,
            standard=not any(node.domain == MICROSOFT for node in nodes),
            tied_table=_ties_table(graph),
        )
        self.found.engines += known_engines(traits)

    def _inside(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


def _form(graph: ir.Model, metadata: Metadata) -> Form:
    """Return the form of a model; of a file of another tool, whether it holds a Loop or a Scan."""
    if metadata.form is not None:
        return metadata.form
    operators = {node.op_type for node in graph.graph.all_nodes()}
    if "Loop" in operators:
        return "loop"
    return "scan" if "Scan" in operators else "unrolled"


MICROSOFT = "com.microsoft"
GATHERS = frozenset({"Gather", "GatherBlockQuantized"})


def _ties_table(graph: ir.Model) -> bool:
    """Tell whether a weight is gathered from, and read by a product too: embedding and head are one."""
    for value in graph.graph.initializers.values():
        if value.shape is None or len(value.shape) < 2:
            continue
        readers = {node.op_type for node in value.consumers()}
        if readers & GATHERS and readers - GATHERS:
            return True
    return False


def _fixed_loops(metadata: Metadata, source: Metadata) -> int | None:
    """Return how often the core runs in a form that does not choose."""
    return metadata.loops if not metadata.foreign else source.loops


def _config(metadata: Metadata, *, ort_format: bool) -> dict[str, str]:
    """Return the entries of a session that keep its memory as the file wishes."""
    found = {}
    if metadata.memory == "low":
        found["session.disable_prepacking"] = "1"
    if ort_format:
        found |= dict.fromkeys(MAPPED_ORT_FORMAT, "1")
    return found


def _min_runtime(graph: ir.Model, metadata: Metadata, *, ort_format: bool) -> str | None:
    """Return the oldest release of ONNX Runtime that loads a graph, by docs/reach.md; None: not known."""
    opset = graph.opset_imports.get("")
    known = OPSET_RELEASES.get(opset or 0)
    if known is None:
        return None
    releases = [known, *_operator_releases(graph.graph.all_nodes(), opset or 0)]
    if ort_format and opset == 20:
        releases.append((1, 20))
    needed = needed_runtime(metadata)
    if needed is not None:
        releases.append(needed[0])
    if metadata.generate is not None:
        releases.append(GENERATE_RELEASE)
    return release_text(max(releases))


def _release(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def _operator_releases(nodes: Iterable[ir.Node], opset: int) -> Iterator[tuple[int, int]]:
    for node in nodes:
        if node.op_type == "QuantizeLinear" and not node.domain and opset >= 23:
            yield 1, 24
        if node.op_type == "GatherBlockQuantized":
            yield {8: (1, 23), 2: (1, 27)}.get(node.attributes.get_int("bits", 4), (1, 20))
        if node.op_type == "MatMulNBits":
            yield {8: (1, 22), 2: (1, 24)}.get(node.attributes.get_int("bits", 4), (1, 17))
