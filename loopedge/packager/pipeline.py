"""From a model's file to a bundle: source, models, vectors, loaders, page, manifest."""

import time
from pathlib import Path
from typing import Any

import loopedge
from loopedge.artifact.artifact import Artifact
from loopedge.artifact.companions import read_companions
from loopedge.artifact.needed_files import files_of_model
from loopedge.data.tokenizer import TOKENIZER_FILE
from loopedge.errors import InputError
from loopedge.files.paths import check_paths
from loopedge.files.targets import FileSize
from loopedge.options import option, option_name, with_keywords
from loopedge.packager.c_header import HEADER_NAME, c_header
from loopedge.packager.clients import CLIENTS, provider_facts
from loopedge.packager.description import Described, describe
from loopedge.packager.manifest import (
    CHECKSUM_ZEROS,
    MANIFEST_NAME,
    SCHEMA_VERSION,
    Client,
    ClientName,
    Manifest,
)
from loopedge.packager.models import WrittenModels, write_models
from loopedge.packager.options import PackageOptions
from loopedge.packager.page import PAGE_NAME, page_text
from loopedge.packager.result import PackagedModel, PackagedVector, PackageResult
from loopedge.packager.runtimes import vendor_runtimes
from loopedge.packager.source import Source, find_reference, open_source
from loopedge.packager.static_files import copy_static
from loopedge.packager.vectors.arrays import plain_vectors
from loopedge.packager.vectors.checking import measure_vectors
from loopedge.packager.vectors.made import MadeVector, write_vector
from loopedge.packager.vectors.text import text_vectors
from loopedge.packager.writing import listed_files, staged_bundle, write_manifest

__all__ = ["package"]


def package(
    model: str | Path,
    path: str | Path,
    *,
    options: PackageOptions | None = None,
    **keywords: Any,
) -> PackageResult:
    """Write a folder that an app developer takes: the model, a loader, test vectors and one page.

    Args:
        model: An ``.onnx`` file: of `loopedge.export`, `loopedge.quantize` or `loopedge.to_generate`, or of another tool.
        path: The folder to write. It must not exist, or be empty.
        options: For whom, and how.
        **keywords: Fields of `PackageOptions`, which win over ``options``.

    Returns:
        What was written.

    Raises:
        InputError: The model, the target or an option cannot be used.
        VerificationError: A form of the model computes something else than the model; nothing is left.
    """
    chosen = with_keywords("package", PackageOptions, options, keywords)
    return _Packaging(Path(model), Path(path), chosen).run()


class _Packaging:
    """One bundle as it comes about."""

    def __init__(self, model: Path, target: Path, options: PackageOptions) -> None:
        self.model, self.target, self.options = model, target, options
        self.name = options.name_of(model)
        self.notes: list[str] = []

    def run(self) -> PackageResult:
        """Make the bundle, or nothing."""
        started = time.perf_counter()
        judge = self.options.reference
        check_paths(
            inputs={
                "MODEL": _files(self.model),
                option_name("reference"): None if judge is None else _files(Path(judge)),
                option_name("packages"): self.options.packages,
                option_name("input"): self.options.input,
            },
            emptied={option_name("path"): self.target},
        )
        with staged_bundle(self.target, force=self.options.force) as (folder, scratch):
            provider = self.options.provider
            source = open_source(
                self.model,
                scratch,
                name=self.name,
                unrolled=provider is not None and provider_facts(provider).form == "unrolled",
                threads=self.options.threads,
            )
            self._check_prompt(source)
            reference = find_reference(source, self.options.reference)
            self._note_reference(source, reference)
            described = describe(source)
            models = write_models(source, folder, self.name, self.options)
            written = time.perf_counter()
            self._copy_tokenizer(source, folder, described)
            copy_static(self.options.clients, folder)
            self.notes = [*source.notes, *self.notes, *models.notes]
            manifest = self._manifest(source, described, models)
            vectors = self._vectors(source, reference)
            measure_vectors(vectors, manifest, folder, threads=self.options.threads)
            manifest = manifest.model_copy(
                update={
                    "vectors": [write_vector(v, n, folder) for n, v in enumerate(vectors)],
                    "notes": self.notes,
                }
            )
            manifest = self._with_runtimes(manifest, folder, scratch)
            manifest = self._write_generated(manifest, folder)
            manifest = write_manifest(manifest, folder)
            source.given.check_unchanged()
        seconds = {"models": written - started, "verify": time.perf_counter() - written}
        return self._result(manifest, models, reference, seconds)

    def _with_runtimes(self, manifest: Manifest, folder: Path, scratch: Path) -> Manifest:
        """Put the runtimes into the bundle, where that is asked for."""
        options = self.options
        if not options.with_runtime:
            return manifest
        found = vendor_runtimes(
            manifest,
            folder,
            scratch,
            packages=None if options.packages is None else Path(options.packages),
            provider=options.provider,
        )
        clients = {
            name: client.model_copy(update={"runtime_files": found[name]})
            for name, client in manifest.clients.items()
        }
        return manifest.model_copy(update={"clients": clients})

    def _write_generated(self, manifest: Manifest, folder: Path) -> Manifest:
        """Write what is made from the manifest."""
        listed = manifest.model_copy(update={"files": listed_files(folder)})
        (folder / PAGE_NAME).write_bytes(page_text(listed).encode())
        if "c" in self.options.clients:
            listed = manifest.model_copy(update={"files": listed_files(folder)})
            (folder / HEADER_NAME).write_bytes(c_header(listed).encode())
        return manifest.model_copy(update={"files": listed_files(folder)})

    def _check_prompt(self, source: Source) -> None:
        if not source.writes_text and self.options.prompt is not None:
            unused, refusal = f"{option_name('prompt')} has no use", source.no_cache
            if refusal is not None:
                raise InputError(
                    f"{self.model} gets no cache, {unused}: {refusal.message}", hint=refusal.hint
                )
            raise InputError(
                f"{self.model} writes no text, {unused}",
                hint=f"leave out {option_name('prompt')}",
            )

    def _note_reference(self, source: Source, reference: Artifact | None) -> None:
        if source.quantized and reference is None:
            self.notes.append(
                "no float model was at hand: the outputs of the test vectors are the quantized model's own, so they do not "
                "say what quantization costs"
            )

    def _copy_tokenizer(self, source: Source, folder: Path, described: Described) -> None:
        if described.tokenizer is None or described.tokenizer.file is None:
            return
        text = read_companions(source.given.path, source.given.metadata)[TOKENIZER_FILE]
        (folder / described.tokenizer.file).write_bytes(text.encode())

    def _vectors(self, source: Source, reference: Artifact | None) -> list[MadeVector]:
        if source.writes_text:
            if self.options.input is not None:
                raise InputError(
                    f"{option_name('input')} is of models that take arrays or tables, this one writes text",
                    hint=option("prompt", "The "),
                )
            made, notes = text_vectors(source, reference, self.options)
            self.notes += notes
            return made
        return plain_vectors(
            source, reference, threads=self.options.threads, shown=self.options.input
        )

    def _manifest(self, source: Source, described: Described, models: WrittenModels) -> Manifest:
        clients: dict[ClientName, Client] = {
            client: Client(
                model=models.chosen[client],
                providers=models.providers[client],
                entry=CLIENTS[client].entry,
                runtime=CLIENTS[client].runtime,
            )
            for client in self.options.clients
        }
        return Manifest(
            schema_version=SCHEMA_VERSION,
            loopedge=loopedge.__version__,
            name=self.name,
            checksum=CHECKSUM_ZEROS,
            task=source.metadata.task or None,
            inputs=described.inputs,
            outputs=described.outputs,
            loops=described.loops,
            tolerance=described.tolerance,
            missing_values=source.metadata.missing_values,
            tokenizer=described.tokenizer,
            decoding=described.decoding,
            models=models.models,
            clients=clients,
            engines=models.engines,
            vectors=[],
            files=[],
        )

    def _result(
        self,
        manifest: Manifest,
        models: WrittenModels,
        reference: Artifact | None,
        seconds: dict[str, float],
    ) -> PackageResult:
        sizes = {file.path: file.bytes for file in manifest.files}
        files = [FileSize(path=str(self.target / name), bytes=size) for name, size in sizes.items()]
        manifest_file = FileSize.of(self.target / MANIFEST_NAME)
        runtime = sum(size for name, size in sizes.items() if name.startswith("runtime/"))
        return PackageResult(
            path=str(self.target),
            source=str(self.model),
            reference=None if reference is None else str(reference.path),
            name=self.name,
            clients=list(self.options.clients),
            models=[
                PackagedModel(
                    id=model.id,
                    file=model.file,
                    form=model.form,
                    bytes=sizes[model.file] + sum(sizes[data.file] for data in model.data),
                    clients=_takers(model.id, models),
                )
                for model in models.models
            ],
            vectors=[
                PackagedVector(
                    name=vector.name,
                    check=vector.check.kind,
                    limit=vector.check.limit,
                    measured=vector.measured,
                )
                for vector in manifest.vectors
            ],
            files=[manifest_file, *files],
            bundle_bytes=manifest_file.bytes + sum(sizes.values()) - runtime,
            runtime_bytes=runtime,
            notes=self.notes,
            seconds=seconds,
        )


def _files(model: Path) -> list[Path] | None:
    """Return the files of a model; None where it does not exist, which is said later."""
    return files_of_model(model) if model.is_file() else None


def _takers(identity: str, models: WrittenModels) -> list[str]:
    """Return the clients that take a model, one with a provider as ``web/webgpu``."""
    plain = [str(client) for client, chosen in models.chosen.items() if chosen == identity]
    others = [
        f"{client}/{provider}"
        for client, chosen in models.providers.items()
        for provider, model in chosen.items()
        if model == identity
    ]
    return plain + others
