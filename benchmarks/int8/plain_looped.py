"""The looped transformer without timestep encoding as the paper's authors published it, and its training.

Its values and its MLP read the state as it is, without a norm before them, and nothing scales the branches:
the state grows from iteration to iteration, and the ranges of what these linears read with it. It also
shows that any `LoopedModule` is exported and quantized, not only loopedge's own.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812  PyTorch's own name for it
from torch import Tensor, nn

import loopedge
from loopedge.model.contract import LoopedModule, Tensors, as_tuple
from loopedge.tasks.generated.sorting import SortingTask
from loopedge.tasks.metrics import IGNORED

__all__ = ["PlainLooped", "PlainSorting"]

LEARNED_POSITIONS = 64


class PlainLooped(LoopedModule):
    """x = x + o(attention(q(norm x), k(norm x), v(x))), then x = x + down(gelu(up(x))), ``loops`` times.

    Args:
        vocab: Token ids.
        d_model: Width.
        heads: Attention heads.
        loops: Iterations.
    """

    input_names = ("input_ids",)
    output_names = ("logits",)

    def __init__(self, *, vocab: int, d_model: int, heads: int, loops: int) -> None:
        super().__init__()
        self.loops, self.heads = loops, heads
        self.embedding = nn.Embedding(vocab, d_model)
        self.position = nn.Embedding(LEARNED_POSITIONS, d_model)
        self.norm_attention = nn.RMSNorm(d_model)
        self.q, self.k, self.v, self.o = (nn.Linear(d_model, d_model, bias=False) for _ in range(4))
        self.up = nn.Linear(d_model, 4 * d_model, bias=False)
        self.down = nn.Linear(4 * d_model, d_model, bias=False)
        self.norm = nn.RMSNorm(d_model)
        self.head = nn.Linear(d_model, vocab, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.05)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    def prelude(self, *inputs: Tensor) -> tuple[Tensors, Tensors]:
        """Embed input_ids int64 (batch, sequence)."""
        (input_ids,) = inputs
        return self.embedding(input_ids) + self.position.weight[: input_ids.shape[1]], ()

    def core(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        """Apply the block once to (batch, sequence, d_model)."""
        (x,) = as_tuple(state)
        normed = self.norm_attention(x)
        q, k, v = (
            each.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, nh, S, hs)
            for each in (self.q(normed), self.k(normed), self.v(x))
        )
        attended = F.scaled_dot_product_attention(q, k, v)
        x = x + self.o(attended.transpose(1, 2).flatten(2))
        changed: Tensor = x + self.down(F.gelu(self.up(x)))
        return changed

    def coda(self, state: Tensors, context: Tensors) -> Tensors:
        """Return logits (batch, sequence, vocab)."""
        (x,) = as_tuple(state)
        logits: Tensor = self.head(self.norm(x))
        return logits


@dataclass(frozen=True)
class PlainSorting:
    """The plain model on the sorting task, twelve loops."""

    name: str = "sorting, plain"
    task: SortingTask = field(default_factory=lambda: SortingTask(length=12, vocab=24))
    loops: int = 12
    steps: int = 600
    batch_size: int = 64
    lr: float = 2e-3

    def export(self, folder: Path, path: Path, **options: object) -> None:
        """Train, unless the weights are in the folder, and export to ``path``."""
        torch.manual_seed(0)
        model = PlainLooped(vocab=self.task.vocab + 2, d_model=64, heads=4, loops=self.loops)
        stored = folder / "sorting-plain.pt"
        if stored.exists():
            model.load_state_dict(torch.load(stored, weights_only=True))
        else:
            self._train(model)
            torch.save(model.state_dict(), stored)
        example = (torch.zeros((2, 2 * self.task.length + 1), dtype=torch.int64),)
        loopedge.export(model.eval(), path, example=example, force=True, **options)  # type: ignore[arg-type]

    def _train(self, model: PlainLooped) -> None:
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=self.lr, betas=(0.9, 0.95), weight_decay=0.01
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._share)
        for step in range(self.steps):
            batch = self.task.batch("train", self.batch_size, step)
            logits = model(torch.from_numpy(batch.inputs))
            targets = torch.from_numpy(batch.targets)
            loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()

    def _share(self, step: int) -> float:
        """Return the share of the learning rate: a short warm-up, then half a cosine to a tenth."""
        warm = min(1.0, (step + 1) / 60)
        return warm * (0.1 + 0.45 * (1 + math.cos(math.pi * step / self.steps)))
