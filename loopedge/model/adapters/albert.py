"""ALBERT of transformers: one group of layers, applied ``num_hidden_layers`` times."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from loopedge.errors import InputError
from loopedge.model.contract import LoopedModule, Tensors
from loopedge.model.folder import CONTRACT_HINT, load_transformers

__all__ = ["CLASSES", "Albert", "adapt", "load"]

Reader = Callable[[Any, Tensor], Tensors]

EXAMPLE_LENGTH = 8


class Albert(LoopedModule):
    """Any ALBERT of `CLASSES` under the contract; it holds the model's own modules, not copies.

    Inputs are ``input_ids``, ``attention_mask`` (1 = keep) and ``token_type_ids``, each int64
    (batch, sequence); outputs are named as transformers names them.

    Args:
        model: The transformers module; it is put into evaluation mode, its attention set to sdpa.

    Raises:
        InputError: It has several groups of layers, or a head that is not in `CLASSES`.
    """

    albert: Any
    input_names = ("input_ids", "attention_mask", "token_type_ids")

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        source: Any = model.eval()
        config = source.config
        kind = type(model).__name__
        if kind not in CLASSES:
            raise InputError(
                f"{kind} has no adapter, these have: {', '.join(CLASSES)}",
                hint=CONTRACT_HINT,
            )
        if config.num_hidden_groups != 1:
            raise InputError(
                f"this ALBERT has {config.num_hidden_groups} groups of layers, a loop needs 1",
                hint="num_hidden_groups: 1 in config.json, as in every published ALBERT",
            )
        config._attn_implementation = "sdpa"
        if kind == "AlbertModel":
            self.albert = source
        else:
            # The children under the model's own names, so that the initializers are called as in
            # its state dict. The encoder last: of the names of a tied tensor torch.export keeps
            # the last one.
            for name, child in reversed(list(source.named_children())):
                self.add_module(name, child)
        self._read = CLASSES[kind][1]
        self.loops: int = config.num_hidden_layers
        self.max_length: int = config.max_position_embeddings
        self.vocab_size: int = config.vocab_size
        self.token_types: int = config.type_vocab_size
        self.output_names = CLASSES[kind][0]
        if kind == "AlbertModel" and source.pooler is None:
            self.output_names = self.output_names[:1]

    def prelude(self, *inputs: Tensor) -> tuple[Tensors, Tensors]:
        """Return the mapped embeddings (batch, sequence, hidden) and which keys may be read."""
        input_ids, attention_mask, token_type_ids = inputs
        embedded = self.albert.embeddings(input_ids=input_ids, token_type_ids=token_type_ids)
        hidden = self.albert.encoder.embedding_hidden_mapping_in(embedded)
        batch, length = input_ids.shape
        readable = attention_mask.to(torch.bool)[:, None, None, :]  # (B, 1, 1, S)
        return hidden, readable.expand(batch, 1, length, length).contiguous()

    def core(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        """Apply the group of layers once."""
        hidden: Tensor = self.albert.encoder.albert_layer_groups[0](state, context)
        return hidden

    def coda(self, state: Tensors, context: Tensors) -> Tensors:
        """Apply the head."""
        assert isinstance(state, Tensor)
        return self._read(self, state)

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Return two rows, one of them padded on the right."""
        generator = torch.Generator().manual_seed(0)
        shape = (2, min(EXAMPLE_LENGTH, self.max_length))
        ids = torch.randint(self.vocab_size, shape, generator=generator)
        types = torch.randint(self.token_types, shape, generator=generator)
        mask = torch.ones(shape, dtype=torch.int64)
        mask[1, (shape[1] + 1) // 2 :] = 0
        return ids, mask, types


def adapt(model: nn.Module) -> Albert:
    """Bring an ALBERT under the contract.

    Raises:
        InputError: As `Albert`.
    """
    return Albert(model)


def load(folder: Path, config: dict[str, Any]) -> Albert:
    """Build one from what ``save_pretrained`` wrote.

    Raises:
        InputError: As `Albert` and `load_transformers`.
    """
    return Albert(load_transformers(folder, config, CLASSES))


def _pool(model: Any, hidden: Tensor) -> Tensor:
    pooled: Tensor = model.albert.pooler_activation(model.albert.pooler(hidden[:, 0]))
    return pooled  # (B, hidden)


def _read_encoder(model: Any, hidden: Tensor) -> Tensors:
    return hidden if model.albert.pooler is None else (hidden, _pool(model, hidden))


def _read_tokens(model: Any, hidden: Tensor) -> Tensors:
    logits: Tensor = model.predictions(hidden)
    return logits  # (B, S, vocab)


def _read_pretraining(model: Any, hidden: Tensor) -> Tensors:
    return model.predictions(hidden), model.sop_classifier(_pool(model, hidden))


def _classify_row(model: Any, hidden: Tensor) -> Tensors:
    logits: Tensor = model.classifier(_pool(model, hidden))
    return logits  # (B, labels)


def _classify_tokens(model: Any, hidden: Tensor) -> Tensors:
    logits: Tensor = model.classifier(hidden)
    return logits  # (B, S, labels)


def _read_span(model: Any, hidden: Tensor) -> Tensors:
    start, end = model.qa_outputs(hidden).unbind(-1)
    return start, end  # (B, S) each


CLASSES: dict[str, tuple[tuple[str, ...], Reader]] = {
    "AlbertModel": (("last_hidden_state", "pooler_output"), _read_encoder),
    "AlbertForMaskedLM": (("logits",), _read_tokens),
    "AlbertForPreTraining": (("prediction_logits", "sop_logits"), _read_pretraining),
    "AlbertForSequenceClassification": (("logits",), _classify_row),
    "AlbertForTokenClassification": (("logits",), _classify_tokens),
    "AlbertForQuestionAnswering": (("start_logits", "end_logits"), _read_span),
}
"""Classes by name: the names of their outputs, and how the head reads the last state."""
