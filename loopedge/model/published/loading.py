"""A folder with a published model: its configuration, where its tensors stand, and what is beside them."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch

from loopedge.errors import InputError
from loopedge.files.input_files import read_bytes
from loopedge.files.json_text import read_json
from loopedge.model.folder import CONFIG, read_config
from loopedge.model.published.blocks import LanguageModel
from loopedge.model.published.configuration import PublishedConfig
from loopedge.model.published.reading import Checkpoint, StoredTensor, open_checkpoint
from loopedge.model.published.types import ADAPTED, PUBLISHED, REFUSED, SAME_REASON

__all__ = ["PublishedFolder", "open_folder", "published_type"]

COMPANIONS = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
"""Files of a folder that stand beside the artifact too."""

GENERATION_CONFIG = "generation_config.json"
LISTED = 3
"""Names of tensors that a message lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedFolder:
    """A published model whose weights stay on the disk.

    Args:
        folder: Where it stands.
        model_type: As ``config.json`` names it.
        config: Its configuration; with a tied head too where the checkpoint's head and embedding hold the same values.
        kind: The class of its module, made of the configuration alone.
        tensors: Where each parameter of the module stands.
        checkpoint: All that is stored.
        companions: Texts of the files that belong beside the artifact, by name.
        end_ids: Tokens that end a text.
        notes: What a user would not expect.
    """

    folder: Path
    model_type: str
    config: PublishedConfig
    kind: type[LanguageModel]
    tensors: Mapping[str, StoredTensor]
    checkpoint: Checkpoint
    companions: Mapping[str, str]
    end_ids: tuple[int, ...]
    notes: tuple[str, ...]

    def build(self) -> LanguageModel:
        """Return the module on the meta device: it holds no weights."""
        with torch.device("meta"):
            return self.kind(self.config).eval()

    def build_shrunk(self) -> LanguageModel:
        """Return the same architecture of small widths, with random weights: what PyTorch is compared with."""
        module = self.kind(self.config.shrunk())
        module.fill_random(torch.Generator().manual_seed(0))
        return module.eval()


def published_type(folder: Path, *, generates: bool) -> str | None:
    """Return the model type of a folder that this room takes; None where an adapter does, or nothing.

    Args:
        folder: Holds a ``config.json``, as a rule.
        generates: Whether text is generated with a cache: no adapter's model has one.

    Raises:
        InputError: It is a looped model that is not exported; the reason is named.
    """
    if not (folder / CONFIG).is_file():
        return None
    model_type: str = read_config(folder)["model_type"]
    reason = REFUSED.get(SAME_REASON.get(model_type, model_type))
    if reason is not None:
        raise InputError(
            f"{folder}: models of type {model_type} are not exported: {reason}",
            hint="docs/published_models.md lists what is exported",
        )
    if model_type in ADAPTED and not generates:
        return None
    return model_type if model_type in PUBLISHED else None


def open_folder(folder: Path) -> PublishedFolder:
    """Read what a folder says; of its weights the headers alone, and as much as tells whether the head is tied.

    Raises:
        InputError: A key, a tensor or a file is missing, unknown or damaged; a tensor has another shape.
    """
    values = read_config(folder)
    model_type: str = values["model_type"]
    home = importlib.import_module(f"{__package__}.{PUBLISHED[model_type]}")
    config: PublishedConfig = home.CONFIG.read(values, folder / CONFIG)
    kind: type[LanguageModel] = home.MODULE
    checkpoint = _as_released(open_checkpoint(folder), config, kind, folder)
    config, notes = _tied(config, kind, checkpoint, folder)
    with torch.device("meta"):
        module = kind(config)
    return PublishedFolder(
        folder=folder,
        model_type=model_type,
        config=config,
        kind=kind,
        tensors=_places(module, config, checkpoint, folder),
        checkpoint=checkpoint,
        companions=_companions(folder),
        end_ids=_end_ids(folder, values),
        notes=(*module.notes, *notes),
    )


def _as_released(
    checkpoint: Checkpoint, config: PublishedConfig, kind: type[LanguageModel], folder: Path
) -> Checkpoint:
    """Return the tensors under the names of the release, whatever tool stored them.

    Raises:
        InputError: Two of them are one tensor of the release.
    """
    with torch.device("meta"):
        module = kind(config)
    found: dict[str, StoredTensor] = {}
    for name, tensor in checkpoint.tensors.items():
        released = module.release_name(name)
        if released in found:
            raise InputError(f"{folder}: {found[released].name} and {name} are both {released}")
        found[released] = tensor
    return replace(checkpoint, tensors=found)


def _tied(
    config: PublishedConfig, kind: type[LanguageModel], checkpoint: Checkpoint, folder: Path
) -> tuple[PublishedConfig, tuple[str, ...]]:
    """Compare head and embedding: stored twice with the same values they are one; tied by the key they must be."""
    with torch.device("meta"):
        module = kind(config)
    names, stored = module.state_names(), _released(module, checkpoint, folder)
    head = names.get(kind.head, module.release_name(kind.head))
    embedding = names[kind.embedding]
    if embedding not in stored or head not in stored:
        return config, ()
    same = checkpoint.same(stored[embedding].name, stored[head].name)
    if config.tied and not same:
        raise InputError(
            f"{folder / CONFIG}: {config.tie_key} is true, and {head} holds other values than {embedding}",
            hint=f'"{config.tie_key}": false',
        )
    if config.tied or not same or config.tie_key is None:
        return config, ()
    note = f"{head} holds the values of {embedding}: they are stored once"
    return config.with_tied_head(), (note,)


def _places(
    module: LanguageModel, config: PublishedConfig, checkpoint: Checkpoint, folder: Path
) -> dict[str, StoredTensor]:
    """Return where each parameter stands.

    Raises:
        InputError: Tensors are missing, misshapen, or read by nothing.
    """
    names, stored = module.state_names(), _released(module, checkpoint, folder)
    missing = sorted(name for name in names.values() if name not in stored)
    if missing:
        raise InputError(f"{folder}: {_tensors(missing)} missing")
    read = set(names.values()) | ({module.release_name(module.head)} if config.tied else set())
    unused = [
        name
        for name in sorted(stored)
        if name not in read and not any(fnmatch(name, pattern) for pattern in module.unread)
    ]
    if unused:
        raise InputError(f"{folder}: {_tensors(unused)} read by nothing in this model")
    parameters = dict(module.named_parameters())
    for own, name in names.items():
        wanted = tuple(parameters[own].shape)
        if stored[name].shape != wanted:
            raise InputError(
                f"{folder}: tensor {name} has shape {stored[name].shape}, the configuration asks for {wanted}"
            )
    return {own: stored[name] for own, name in names.items()}


def _released(
    module: LanguageModel, checkpoint: Checkpoint, folder: Path
) -> dict[str, StoredTensor]:
    """Return the stored tensors by the names of the release, whichever tool saved them."""
    found: dict[str, StoredTensor] = {}
    for name, tensor in checkpoint.tensors.items():
        released = module.release_name(name)
        if released in found:
            raise InputError(f"{folder}: tensors {found[released].name} and {name} are one")
        found[released] = tensor
    return found


def _tensors(names: list[str]) -> str:
    """List tensors, the first by name, as the subject of a sentence."""
    listed = ", ".join(names[:LISTED])
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"tensor {listed} is" if len(names) == 1 else f"tensors {listed}{more} are"


def _companions(folder: Path) -> dict[str, str]:
    found = {}
    for name in COMPANIONS:
        file = folder / name
        if not file.is_file():
            continue
        try:
            found[name] = read_bytes(file, needed=f"a {name}").decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{file} is not UTF-8 text: byte {error.start}") from error
    return found


def _end_ids(folder: Path, config: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the tokens that end a text, of ``generation_config.json`` and of ``config.json``, each once.

    Raises:
        InputError: They are no ids.
    """
    file = folder / GENERATION_CONFIG
    generation = read_json(file, needed="a configuration") if file.is_file() else {}
    found: list[int] = []
    for source, values in ((file, generation), (folder / CONFIG, config)):
        given = values.get("eos_token_id") if isinstance(values, Mapping) else None
        ids = given if isinstance(given, list) else [] if given is None else [given]
        if not all(type(token) is int and token >= 0 for token in ids):
            raise InputError(f"{source}: eos_token_id is {given!r}, ids of tokens are needed")
        found += ids
    return tuple(dict.fromkeys(found))
