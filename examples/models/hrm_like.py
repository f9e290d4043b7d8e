"""Two states and a loop within the loop, after the Hierarchical Reasoning Model.

Wang et al. 2025, "Hierarchical Reasoning Model" (also HRM-Text-1B), and Jolicoeur-Martineau 2025,
"Less is More: Recursive Reasoning with Tiny Networks" (TRM: one stack of layers plays both parts).
A fast state is refined several times, then the slow one once:

    low  = L(low + high + input)    inner_loops times
    high = H(high + low)            once per loop

What it shows:

- a state of two tensors, both zero at first;
- a nested loop through `loopedge.inner_loop`: its body reads the module's weights, and of the core's
  tensors those that are handed to it;
- a row per inner iteration: a table of shape (loops, inner_loops, d_model), of which each loop gets
  (inner_loops, d_model);
- injection by addition.
"""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import loopedge
from examples.models.blocks import Attention, GatedMLP, Rotary, example_ids, rotary_tables

__all__ = ["HRMLike", "make"]

State = tuple[Tensor, Tensor]
Context = tuple[Tensor, Tensor, Tensor]


def norm(x: Tensor) -> Tensor:
    """Normalise the last axis; HRM's norms have no weights."""
    return F.rms_norm(x, x.shape[-1:], eps=1e-5)


class Layer(nn.Module):
    """norm(x + attention(x)), then norm(x + mlp(x))."""

    def __init__(self, d_model: int, heads: int, d_ff: int) -> None:
        super().__init__()
        self.attention = Attention(d_model, heads)
        self.mlp = GatedMLP(d_model, d_ff)

    def forward(self, x: Tensor, rotary: Rotary) -> Tensor:
        x = norm(x + self.attention(x, rotary))
        return norm(x + self.mlp(x))


class HRMLike(loopedge.LoopedModule):
    """``input_ids`` int64 (batch, sequence) to ``logits`` float32 (batch, sequence, vocabulary).

    Args:
        vocab_size: Tokens.
        d_model: Width of both states.
        heads: Attention heads.
        layers: Layers of each stack.
        loops: Updates of the slow state.
        inner_loops: Updates of the fast state before each of them.
        one_stack: Both states go through the same layers, as in TRM.
    """

    input_names = ("input_ids",)
    output_names = ("logits",)
    max_length = 64

    def __init__(
        self,
        vocab_size: int = 50,
        d_model: int = 32,
        heads: int = 4,
        layers: int = 1,
        loops: int = 3,
        inner_loops: int = 2,
        *,
        one_stack: bool = False,
    ) -> None:
        super().__init__()
        self.vocab_size, self.head_size = vocab_size, d_model // heads
        self.loops, self.inner_loops = loops, inner_loops
        self.embedding = nn.Embedding(vocab_size, d_model)
        stacks = [
            nn.ModuleList(Layer(d_model, heads, 2 * d_model) for _ in range(layers))
            for _ in range(1 if one_stack else 2)
        ]
        self.low, self.high = stacks[0], stacks[-1]
        self.steps = nn.Parameter(torch.randn(loops, inner_loops, d_model))
        self.head = nn.Linear(d_model, vocab_size, bias=False)

    def example_inputs(self) -> tuple[Tensor, ...]:
        return (example_ids(self.vocab_size),)

    def timestep_table(self, loops: int) -> dict[str, Tensor]:
        index = torch.arange(loops).clamp(max=self.loops - 1)
        return {"steps": self.steps[index]}  # (loops, inner_loops, d)

    def prelude(self, input_ids: Tensor) -> tuple[State, Context]:
        embedded = self.embedding(input_ids)
        rotary = rotary_tables(input_ids.shape[1], self.head_size)
        return (torch.zeros_like(embedded), torch.zeros_like(embedded)), (embedded, *rotary)

    def refine(self, low: Tensor, context: tuple[Tensor, ...], row: dict[str, Tensor]) -> Tensor:
        """Update the fast state once: the body of the inner loop."""
        injected, *rotary = context
        low = low + injected + row["step"]
        for layer in self.low:
            low = layer(low, rotary)
        return low

    def core(self, state: State, context: Context, row: dict[str, Tensor]) -> State:
        low, high = state
        embedded, *rotary = context
        low = loopedge.inner_loop(
            self.refine,
            self.inner_loops,
            low,
            (high + embedded, *rotary),
            {"step": row["steps"]},
        )
        high = high + low
        for layer in self.high:
            high = layer(high, rotary)
        return low, high

    def coda(self, state: State, context: Context) -> Tensor:
        return self.head(state[1])


def make() -> HRMLike:
    """Return a small model with seeded weights."""
    torch.manual_seed(0)
    return HRMLike().eval()


def make_trm() -> HRMLike:
    """Return a small model whose two states share one stack of layers."""
    torch.manual_seed(0)
    return HRMLike(one_stack=True).eval()
