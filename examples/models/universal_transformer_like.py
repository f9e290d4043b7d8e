"""An encoder that decides per position how long to think, after the Universal Transformer.

Dehghani et al. 2019, "Universal Transformers", with the adaptive computation time of Graves 2016.
What it shows:

- signals of position and of step, added before every loop: positions are context, the step a row;
- post-norm layers, and attention that reads both ways;
- a state of three tensors: positions halt one by one, each leaves the mean of its own states,
  weighted by its halting probabilities, and `halt` ends a row once all of its positions are done.

One group of layers with no halting and no signals per step is ALBERT's loop (Lan et al. 2020).
"""

import torch
from torch import Tensor, nn

import loopedge
from examples.models.blocks import Attention, example_ids, sinusoids

__all__ = ["UniversalTransformerLike", "make"]

State = tuple[Tensor, Tensor, Tensor]


class PostNormLayer(nn.Module):
    """norm(x + attention(x)), then norm(x + mlp(x))."""

    def __init__(self, d_model: int, heads: int, d_ff: int) -> None:
        super().__init__()
        self.attention = Attention(d_model, heads, causal=False)
        self.norm_attention = nn.LayerNorm(d_model)
        self.mlp = nn.Sequential(nn.Linear(d_model, d_ff), nn.ReLU(), nn.Linear(d_ff, d_model))
        self.norm_mlp = nn.LayerNorm(d_model)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm_attention(x + self.attention(x))
        return self.norm_mlp(x + self.mlp(x))


class UniversalTransformerLike(loopedge.LoopedModule):
    """``input_ids`` int64 (batch, sequence) to ``logits`` float32 (batch, sequence, vocabulary).

    Args:
        vocab_size: Tokens.
        d_model: Width of the state.
        heads: Attention heads.
        loops: The most loops that a position takes.
        epsilon: A position halts once its probabilities sum to 1 - epsilon.
    """

    input_names = ("input_ids",)
    output_names = ("logits",)

    def __init__(
        self,
        vocab_size: int = 50,
        d_model: int = 32,
        heads: int = 4,
        loops: int = 6,
        epsilon: float = 0.01,
    ) -> None:
        super().__init__()
        self.vocab_size, self.d_model = vocab_size, d_model
        self.loops, self.epsilon = loops, epsilon
        self.embedding = nn.Embedding(vocab_size, d_model)
        self.layer = PostNormLayer(d_model, heads, 2 * d_model)
        self.ponder = nn.Linear(d_model, 1)
        self.head = nn.Linear(d_model, vocab_size, bias=False)

    def example_inputs(self) -> tuple[Tensor, ...]:
        return (example_ids(self.vocab_size),)

    def timestep_table(self, loops: int) -> dict[str, Tensor]:
        return {"step": sinusoids(torch.arange(1, loops + 1), self.d_model)}

    def prelude(self, input_ids: Tensor) -> tuple[State, Tensor]:
        x = self.embedding(input_ids)
        halted = torch.zeros_like(x[..., 0])  # (B, S): sum of the halting probabilities so far
        positions = sinusoids(torch.arange(input_ids.shape[1]), self.d_model)  # (S, d)
        return (x, halted, torch.zeros_like(x)), positions

    def core(self, state: State, positions: Tensor, row: dict[str, Tensor]) -> State:
        x, halted, mean = state
        new = self.layer(x + positions + row["step"])
        going = halted < 1 - self.epsilon  # (B, S)
        probability = torch.sigmoid(self.ponder(new)[..., 0])
        # The step that reaches 1 - epsilon takes what is left: the weights of a position sum to 1.
        ends = halted + probability >= 1 - self.epsilon
        weight = torch.where(ends, 1 - halted, probability) * going
        x = torch.where(going[..., None], new, x)
        return x, halted + weight, mean + weight[..., None] * new

    def halt(self, state: State, previous: State) -> Tensor:
        _, halted, _ = state
        return (halted >= 1 - self.epsilon).all(dim=-1)

    def coda(self, state: State, positions: Tensor) -> Tensor:
        x, halted, mean = state
        # Positions that never halted give the rest of their weight to the last state.
        return self.head(mean + (1 - halted)[..., None] * x)


def make() -> UniversalTransformerLike:
    """Return a small model with seeded weights."""
    torch.manual_seed(0)
    return UniversalTransformerLike().eval()
