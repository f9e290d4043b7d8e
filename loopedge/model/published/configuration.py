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

__all__ = ["HARMLESS", "Count", "PublishedConfig", "Width"]

HARMLESS = frozenset(
    {
        "_attn_implementation",
        "_name_or_path",
        "architectures",
        "_attn_implementation_autoset",
        "attention_dropout",
        "auto_map",
        "bos_token_id",
        "chunk_size_feed_forward",
        "dtype",
        "eos_token_id",
        "hidden_dropout",
        "id2label",
        "initializer_range",
        "is_encoder_decoder",
        "label2id",
        "model_type",
        "output_attentions",
        "output_hidden_states",
        "pad_token_id",
        "problem_type",
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
    """The keys that one model type reads; a key of one value alone is a ``Literal`` field, and refused with another.

    ``harmless`` are further keys of the type that change nothing, ``tie_key`` is the key that says whether the head
    is the embedding: None where it never is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    harmless: ClassVar[frozenset[str]] = frozenset()
    tie_key: ClassVar[str | None] = "tie_word_embeddings"

    @property
    def tied(self) -> bool:
        """Whether the head is the embedding, by the configuration."""
        return self.tie_key is not None and bool(getattr(self, self.tie_key))

    def with_tied_head(self) -> Self:
        """Return the same with the embedding for a head: by their values they are one."""
        return self.model_copy(update={str(self.tie_key): True})

    def shrunk(self) -> Self:
        """Return the same architecture of small widths: as many layers and loops, the same kinds of everything."""
        raise NotImplementedError(f"{type(self).__name__}.shrunk")

    @classmethod
    def read(cls, values: Mapping[str, Any], source: str | Path) -> Self:
        """Check the content of a ``config.json``.

        Args:
            values: Its keys.
            source: The file, for messages.

        Raises:
            InputError: A key is unknown, is missing, or has a value that is not computed; one line that names it.
        """
        known, harmless = set(cls.model_fields), HARMLESS | cls.harmless
        kept = {key: value for key, value in values.items() if key in known or key not in harmless}
        model_type = values.get("model_type")
        unknown = sorted(key for key in kept if key not in known)
        if unknown:
            names = ", ".join(unknown[:3]) + (", ..." if unknown[3:] else "")
            raise InputError(
                f"{source}: {model_type} is computed without a key {names}: what is not known could change the model",
                hint="docs/published_models.md lists the keys that are read, and those that change nothing",
            )
        try:
            return cls.model_validate(kept)
        except ValidationError as error:
            raise InputError(
                f"{source}: {validation_problem(error)}",
                hint="docs/published_models.md lists what is computed of each model",
            ) from error
