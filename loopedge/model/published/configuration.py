"""What a ``config.json`` may say: every key is known, or the model is refused.

A key that is read over changes what a model computes without a word. So each model type lists its keys: those
that it reads, with their bounds; those of which it computes one value alone; and those that change nothing
(`HARMLESS`, and a type's own).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from loopedge.errors import InputError
from loopedge.files.validation import validation_problem

__all__ = ["HARMLESS", "Count", "PublishedConfig", "Width", "read_published_config"]

HARMLESS = frozenset(
    {
        "_attn_implementation",
        "_name_or_path",
        "architectures",
        "attention_dropout",
        "auto_map",
        "bos_token_id",
        "dtype",
        "eos_token_id",
        "hidden_dropout",
        "id2label",
        "initializer_range",
        "label2id",
        "model_type",
        "output_attentions",
        "output_hidden_states",
        "pad_token_id",
        "return_dict",
        "tokenizer_class",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    }
)
"""Keys that change nothing of what a forward pass computes: names, types of stored numbers, training, tokens."""

MOST_WIDTH, MOST_COUNT = 1 << 20, 1024

Width = Field(ge=1, le=MOST_WIDTH)
"""Bounds of a size: a hidden size, a vocabulary."""

Count = Field(ge=1, le=MOST_COUNT)
"""Bounds of what repeats: layers, heads, loops."""


class PublishedConfig(BaseModel):
    """The keys that one model type reads.

    A key of one value alone is a ``Literal`` field: it is refused with another value. ``ignored`` are further keys
    of the type that change nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    ignored: ClassVar[frozenset[str]] = frozenset()

    @property
    def tied(self) -> bool:
        """Whether the head is the embedding, by the configuration."""
        raise NotImplementedError

    def with_tied_head(self) -> Self:
        """Return the same with a head that is the embedding: by their values they are one."""
        raise NotImplementedError

    def shrunk(self) -> Self:
        """Return the same architecture of small widths: as many layers and loops, the same kinds of everything."""
        raise NotImplementedError


def read_published_config(
    kind: type[PublishedConfig], config: Mapping[str, Any], source: Path
) -> PublishedConfig:
    """Read the keys of a configuration.

    Args:
        kind: The class of the model type.
        config: The content of ``config.json``.
        source: The file, for messages.

    Raises:
        InputError: A key is unknown, is missing, or has a value that is not computed; one line that names it.
    """
    kept = {
        key: value for key, value in config.items() if key not in HARMLESS and key not in kind.ignored
    }
    model_type = config.get("model_type")
    unknown = [key for key in kept if key not in _keys(kind)]
    if unknown:
        raise InputError(
            f"{source}: {', '.join(map(repr, unknown[:3]))} "
            f"{'is a key' if len(unknown) == 1 else 'are keys'} that {model_type} has no reading of: "
            "it could change what the model computes",
            hint=f"docs/published_models.md lists the keys of {model_type}",
        )
    try:
        return kind.model_validate(kept)
    except ValidationError as error:
        raise InputError(
            f"{source}: {validation_problem(error)}",
            hint=f"docs/published_models.md lists what is computed of {model_type}",
        ) from error


def _keys(kind: type[PublishedConfig]) -> set[str]:
    return set(kind.model_fields)
