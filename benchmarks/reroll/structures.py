"""Models that use a weight more than once, in every order of the field, and some that do not."""

import torch
from torch import Tensor, nn

from benchmarks.reroll.blocks import (
    Attention,
    EncoderLayer,
    FeedForward,
    TimedLayer,
    TimeTable,
    sinusoid,
)

__all__ = [
    "Convolved",
    "Crossed",
    "Dense",
    "EveryIteration",
    "LoopedMLP",
    "OnlyFeedForward",
    "OverTime",
    "SecondOrder",
    "Siamese",
    "Stacked",
    "TiedPrelude",
    "Timed",
    "Universal",
]

WIDTH, HEADS, TOKENS = 32, 4, 40


class Timed(nn.Module):
    """A looped transformer with timestep encoding in a plain Python loop."""

    def __init__(self, layers: int, loops: int, width: int = WIDTH) -> None:
        super().__init__()
        self.loops = loops
        self.embedding = nn.Embedding(TOKENS, width)
        self.layers = nn.ModuleList(TimedLayer(width, HEADS) for _ in range(layers))
        self.times = TimeTable(width, layers)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, TOKENS)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits float32 (batch, sequence, TOKENS) of int64 (batch, sequence)."""
        x = self.embedding(tokens)
        for step in range(self.loops):
            rows = self.times(step)
            for layer, row in zip(self.layers, rows.unbind(0), strict=True):
                x = layer(x, row)
        logits: Tensor = self.head(self.norm(x))
        return logits


class LoopedMLP(nn.Module):
    """A residual feed-forward block with a norm, applied many times."""

    def __init__(self, loops: int, width: int = WIDTH, hidden: int = 2 * WIDTH) -> None:
        super().__init__()
        self.loops = loops
        self.block = FeedForward(width, hidden)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 (batch, sequence, width) to the same shape."""
        for _ in range(self.loops):
            x = x + self.block(self.norm(x))
        return x


class Stacked(nn.Module):
    """Transformer layers in an order: ``ABAB`` ties each to its second next, ``ABCD`` ties nothing.

    Args:
        order: A letter for each layer; equal letters are one layer. ``-`` is a linear of its own.
        width: Of the state.
    """

    def __init__(self, order: str, width: int = WIDTH) -> None:
        super().__init__()
        self.order = order
        self.layers = nn.ModuleDict(
            {
                name: nn.Linear(width, width) if name == "-" else EncoderLayer(width, HEADS)
                for name in sorted(set(order))
            }
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 8)

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 (batch, sequence, width) to (batch, sequence, 8)."""
        for name in self.order:
            x = self.layers[name](x)
        out: Tensor = self.head(self.norm(x))
        return out


class Universal(nn.Module):
    """A Universal Transformer of fixed steps: each adds its own signal of position and of time."""

    def __init__(self, loops: int, width: int = WIDTH) -> None:
        super().__init__()
        self.loops, self.width = loops, width
        self.embedding = nn.Embedding(TOKENS, width)
        self.layer = EncoderLayer(width, HEADS)
        self.head = nn.Linear(width, TOKENS)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits float32 (batch, sequence, TOKENS) of int64 (batch, sequence)."""
        x = self.embedding(tokens)
        places = sinusoid(torch.arange(tokens.shape[1]).float(), self.width)  # (S, width)
        for step in range(self.loops):
            x = self.layer(x + places + sinusoid(torch.tensor([float(step)]), self.width))
        logits: Tensor = self.head(x)
        return logits


class Convolved(nn.Module):
    """A convolutional residual block applied many times to an image."""

    def __init__(self, loops: int, channels: int = 16) -> None:
        super().__init__()
        self.loops = loops
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 1)
        self.head = nn.Linear(channels, 5)

    def forward(self, image: Tensor) -> Tensor:
        """Return float32 (batch, 5) of an image (batch, 3, height, width)."""
        x = self.stem(image)
        for _ in range(self.loops):
            x = x + self.second(torch.relu(self.first(x)))
        out: Tensor = self.head(x.mean(dim=(2, 3)))
        return out


class TiedPrelude(nn.Module):
    """The loop's own linear also embeds the input: its weight is read once more before the loop."""

    def __init__(self, loops: int, width: int = WIDTH) -> None:
        super().__init__()
        self.loops = loops
        self.linear = nn.Linear(width, width)
        self.mlp = FeedForward(width, 2 * width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 (batch, sequence, width) to the same shape."""
        x = torch.sigmoid(self.linear(x))
        for _ in range(self.loops):
            x = x + self.mlp(torch.tanh(self.linear(self.norm(x))))
        return x


class OverTime(nn.Module):
    """An LSTM cell over the positions of a sequence of fixed length, unrolled by Python."""

    def __init__(self, steps: int, features: int = 8, width: int = WIDTH) -> None:
        super().__init__()
        self.steps, self.width = steps, width
        self.cell = nn.LSTMCell(features, width)
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Return float32 (batch, 4) of (batch, steps, features)."""
        hidden = torch.zeros(x.shape[0], self.width)
        memory = torch.zeros(x.shape[0], self.width)
        for step in range(self.steps):
            hidden, memory = self.cell(x[:, step], (hidden, memory))
        out: Tensor = self.head(hidden)
        return out


class SecondOrder(nn.Module):
    """A recurrence of second order: each iteration reads the two states before it."""

    def __init__(self, loops: int, width: int = WIDTH) -> None:
        super().__init__()
        self.loops = loops
        self.block = FeedForward(width, 2 * width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 (batch, sequence, width) to the same shape."""
        before, now = torch.zeros_like(x), x
        for _ in range(self.loops):
            before, now = now, 2 * now - before + 0.1 * self.block(self.norm(now))
        return now


class EveryIteration(nn.Module):
    """A head reads every iteration, and all readings are outputs, as deep supervision has it."""

    def __init__(self, loops: int, width: int = WIDTH, *, stacked: bool = True) -> None:
        super().__init__()
        self.loops, self.stacked = loops, stacked
        self.layer = EncoderLayer(width, HEADS)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 6)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return readings float32 (loops, batch, sequence, 6), or one tensor for each iteration."""
        readings = []
        for _ in range(self.loops):
            x = self.layer(x)
            readings.append(self.head(self.norm(x)))
        return torch.stack(readings) if self.stacked else tuple(readings)


class Dense(nn.Module):
    """Each iteration reads all the states before it: their mean, or weighed for each pair of iterations."""

    def __init__(self, loops: int, width: int = WIDTH, *, weighed: bool) -> None:
        super().__init__()
        self.loops = loops
        self.block = FeedForward(width, 2 * width)
        self.norm = nn.LayerNorm(width)
        self.pairs = nn.Parameter(torch.randn(loops, loops)) if weighed else None

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 (batch, sequence, width) to the same shape."""
        states = [x]
        for step in range(self.loops):
            if self.pairs is None:
                read = torch.stack(states).mean(dim=0)
            else:
                read = sum(
                    (self.pairs[step, i] * state for i, state in enumerate(states)),
                    torch.zeros_like(x),
                )
            states.append(self.block(self.norm(read)))
        return states[-1]


class OnlyFeedForward(nn.Module):
    """The feed-forward network of all layers is one, each attention is its own."""

    def __init__(self, layers: int, width: int = WIDTH) -> None:
        super().__init__()
        self.attentions = nn.ModuleList(Attention(width, HEADS) for _ in range(layers))
        self.mlp = FeedForward(width, 2 * width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 (batch, sequence, width) to the same shape."""
        for attention in self.attentions:
            x = x + attention(self.norm(x))
            x = x + self.mlp(self.norm(x))
        return x


class Siamese(nn.Module):
    """Two inputs through one encoder, side by side: a weight is read twice, and nothing loops."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.first = EncoderLayer(width, HEADS)
        self.second = EncoderLayer(width, HEADS)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Return a likeness float32 (batch,) of two float32 (batch, sequence, width)."""
        one, two = (self.second(self.first(x)).mean(dim=1) for x in (left, right))
        return torch.nn.functional.cosine_similarity(one, two)


class Crossed(nn.Module):
    """Each iteration also reads the state of the iteration that mirrors it, as in a U-Net of tied layers."""

    def __init__(self, loops: int, width: int = WIDTH) -> None:
        super().__init__()
        self.loops = loops
        self.block = FeedForward(width, 2 * width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 (batch, sequence, width) to the same shape."""
        states = [x]
        for step in range(self.loops):
            mirrored = states[self.loops - 1 - step] if 2 * step >= self.loops else x
            states.append(states[-1] + self.block(self.norm(states[-1] + mirrored)))
        return states[-1]
