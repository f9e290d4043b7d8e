"""What a module of a published model type says besides the contract: where its tensors stand in the checkpoint."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from loopedge.model.contract import LoopedModule

__all__ = ["PublishedModule", "StoredRows"]

EXAMPLE_BATCH, EXAMPLE_SEQUENCE = 2, 7


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRows:
    """A parameter is rows of a stored tensor: several parameters stand in one, one under the other.

    Args:
        name: Of the stored tensor.
        start: Its first row.
        stop: The row after its last one.
    """

    name: str
    start: int
    stop: int


class PublishedModule(LoopedModule):
    """A looped module whose parameters are called as the tensors of the published checkpoint, where they can be.

    It is built from its configuration alone, on any device, the meta device too. Its constructor makes parameters,
    and no buffer that a checkpoint does not hold: what is computed of sizes (rotary tables) is computed in the
    prelude.

    Attributes:
        embedding: The parameter of the embedding.
        head: The parameter of the head; with a tied one the module holds the embedding in its place.
        unread: Patterns of stored tensors that nothing reads: caches of what is computed.
        vocab_size: Ids of a token are below it.
        max_length: Positions at most.
    """

    embedding: ClassVar[str] = "model.embed_tokens.weight"
    head: ClassVar[str] = "lm_head.weight"
    unread: ClassVar[tuple[str, ...]] = (r".*rotary_emb\.inv_freq",)
    vocab_size: int
    max_length: int
    input_names = ("input_ids",)
    output_names = ("logits",)

    def state_names(self) -> dict[str, str | StoredRows]:
        """Return where each parameter stands in the checkpoint, by its name in the module.

        The shapes are the same, but for axes of size 1. Default: under the name that it has in the module.
        """
        return {name: name for name, _ in self.named_parameters()}

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Return ids int64 (batch, sequence) to trace with; always the same ones."""
        generator = torch.Generator().manual_seed(0)
        shape = (EXAMPLE_BATCH, min(EXAMPLE_SEQUENCE, self.max_length))
        return (torch.randint(self.vocab_size, shape, generator=generator),)
