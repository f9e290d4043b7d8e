"""The models whose files are re-rolled, with their inputs and with what their authors wrote in loops.

Needs torch, transformers, x-transformers and tiny-recursive-model, and nothing of loopedge.
"""

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.reroll import structures as made

__all__ = ["SUBJECTS", "Subject", "feeds_of"]

BATCH, SEQUENCE = 2, 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A model and what is known of it.

    ``inputs`` are shapes by name, where a name stands for a free axis; integers stand in ``tokens``, the
    others are float32. ``loops`` are the iterations of the loops that the model is written with, the outer one
    of nested loops alone, and nothing where no loop can be had.
    """

    name: str
    make: Callable[[], nn.Module]
    inputs: Mapping[str, tuple[str | int, ...]]
    loops: tuple[int, ...]
    known: str
    tokens: Mapping[str, int] = field(default_factory=dict)
    by_keyword: bool = False
    transformers: bool = False

    def model(self) -> nn.Module:
        """Build the model with seeded weights so large that each iteration moves the state."""
        torch.manual_seed(0)
        model = self.make().eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.dim() > 1 and not name.endswith("pairs"):
                    fan_in = math.prod(parameter.shape[1:])
                    parameter.normal_(0, 0.7 / fan_in**0.5)
                elif name.endswith("bias") or (parameter.dim() == 1 and "init_embed" in name):
                    parameter.normal_(0, 0.1)
        return model


def feeds_of(subject: Subject, **sizes: int) -> dict[str, Tensor]:
    """Return seeded inputs of a subject by name; ``sizes`` are the lengths of its free axes."""
    sizes = {"batch": BATCH, "sequence": SEQUENCE, "height": 8, "width": 8} | sizes
    generator = torch.Generator().manual_seed(sum(sizes.values()))
    feeds = {}
    for name, axes in subject.inputs.items():
        shape = [sizes[axis] if isinstance(axis, str) else axis for axis in axes]
        if name == "attention_mask":
            feeds[name] = torch.ones(shape, dtype=torch.int64)
            feeds[name][-1, -1:] = 0
        elif name in subject.tokens:
            feeds[name] = torch.randint(subject.tokens[name], shape, generator=generator)
        else:
            feeds[name] = torch.randn(shape, generator=generator)
    return feeds


def albert(layers: int, groups: int, *, inner: int = 1) -> nn.Module:
    """Build a small ALBERT encoder of transformers."""
    transformers: Any = importlib.import_module("transformers")
    config = transformers.AlbertConfig(
        hidden_size=32,
        embedding_size=16,
        num_attention_heads=4,
        intermediate_size=64,
        vocab_size=made.TOKENS,
        max_position_embeddings=24,
        num_hidden_layers=layers,
        num_hidden_groups=groups,
        inner_group_num=inner,
    )
    model: nn.Module = transformers.AlbertModel(config)
    return model


class Recursive(nn.Module):
    """A `TinyRecursiveModel` from its initial outputs and latents, as `predict` calls it."""

    def __init__(self, refinements: int, latents: int, length: int) -> None:
        super().__init__()
        package: Any = importlib.import_module("tiny_recursive_model")
        network = package.MLPMixer1D(dim=16, depth=1, seq_len=length)
        self.model = package.TinyRecursiveModel(
            dim=16,
            num_tokens=made.TOKENS,
            network=network,
            num_refinement_blocks=refinements,
            num_latent_refinements=latents,
        )

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits float32 (batch, length, TOKENS) and the probability to halt (batch,)."""
        _, _, logits, halt = self.model(tokens, *self.model.get_initial())
        return logits, halt


def x_encoder(depth: int) -> nn.Module:
    """Build x-transformers' encoder with its layers tied, over continuous inputs."""
    package: Any = importlib.import_module("x_transformers")
    layers = package.Encoder(dim=32, depth=depth, heads=4, attn_dim_head=8, weight_tie_layers=True)
    model: nn.Module = package.ContinuousTransformerWrapper(
        dim_in=8, dim_out=4, max_seq_len=32, attn_layers=layers
    )
    return model


TEXT: dict[str, tuple[str | int, ...]] = {"tokens": ("batch", "sequence")}
STATES: dict[str, tuple[str | int, ...]] = {"x": ("batch", "sequence", made.WIDTH)}
COUNT = {"tokens": made.TOKENS}
MASKED = dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), ("batch", "sequence"))
ALBERT: dict[str, Any] = {
    "inputs": MASKED,
    "tokens": {"input_ids": made.TOKENS, "token_type_ids": 2, "attention_mask": 2},
    "by_keyword": True,
    "transformers": True,
}


def _states(
    name: str, make: Callable[[], nn.Module], loops: tuple[int, ...], known: str
) -> Subject:
    return Subject(name=name, make=make, inputs=STATES, loops=loops, known=known)


_SUBJECTS = [
    Subject(
        name="tmlt-1",
        make=lambda: made.Timed(1, 6),
        inputs=TEXT,
        tokens=COUNT,
        loops=(6,),
        known="one tied layer, rows of a timestep MLP",
    ),
    Subject(
        name="tmlt-2",
        make=lambda: made.Timed(2, 4),
        inputs=TEXT,
        tokens=COUNT,
        loops=(4,),
        known="two tied layers an iteration, rows of a timestep MLP",
    ),
    Subject(
        name="tmlt-12",
        make=lambda: made.Timed(1, 12),
        inputs=TEXT,
        tokens=COUNT,
        loops=(12,),
        known="one tied layer, twelve iterations",
    ),
    Subject(
        name="mlp",
        make=lambda: made.LoopedMLP(10, 64, 128),
        inputs={"x": ("batch", "sequence", 64)},
        loops=(10,),
        known="one residual MLP with a norm",
    ),
    Subject(
        name="albert-1",
        make=lambda: albert(6, 1),
        loops=(6,),
        known="six layers of one group",
        **ALBERT,
    ),
    Subject(
        name="albert-2",
        make=lambda: albert(8, 2),
        loops=(4, 4),
        known="two groups, four layers each, AAAABBBB",
        **ALBERT,
    ),
    Subject(
        name="albert-inner",
        make=lambda: albert(4, 1, inner=2),
        loops=(4,),
        known="one group of two layers, applied four times: ABABABAB",
        **ALBERT,
    ),
    Subject(
        name="x-transformers",
        make=lambda: x_encoder(6),
        inputs={"x": ("batch", "sequence", 8)},
        loops=(6,),
        known="Encoder(weight_tie_layers=True), depth 6",
    ),
    Subject(
        name="trm",
        make=lambda: Recursive(3, 6, 9),
        inputs={"tokens": ("batch", 9)},
        tokens=COUNT,
        loops=(3,),
        known="nested: 3 refinements of 6 latent steps and 1 output step, one network of one mixer block",
    ),
    Subject(
        name="universal",
        make=lambda: made.Universal(6),
        inputs=TEXT,
        tokens=COUNT,
        loops=(6,),
        known="position signal of every step the same, time signal its own",
    ),
    Subject(
        name="convolution",
        make=lambda: made.Convolved(8),
        inputs={"image": ("batch", 3, "height", "width")},
        loops=(8,),
        known="two convolutions an iteration",
    ),
    _states(
        "tied-prelude",
        lambda: made.TiedPrelude(6),
        (6,),
        "one linear of the loop is read before it too",
    ),
    _states("abab", lambda: made.Stacked("ABABABAB"), (4,), "two layers in turns"),
    _states("aaabbb", lambda: made.Stacked("AAABBB"), (3, 3), "three times A, then three times B"),
    _states(
        "two-loops", lambda: made.Stacked("AAAA-BBBBBB"), (4, 6), "two loops, a linear between them"
    ),
    Subject(
        name="lstm",
        make=lambda: made.OverTime(10),
        inputs={"x": ("batch", 10, 8)},
        loops=(10,),
        known="a cell over ten positions",
    ),
    _states("second-order", lambda: made.SecondOrder(6), (6,), "reads the two states before it"),
    _states(
        "every-iteration",
        lambda: made.EveryIteration(5),
        (5,),
        "readings of all iterations, stacked",
    ),
    _states(
        "every-output",
        lambda: made.EveryIteration(4, stacked=False),
        (4,),
        "readings of all iterations, an output each",
    ),
    _states(
        "dense-mean",
        lambda: made.Dense(5, weighed=False),
        (),
        "an iteration reads the mean of all before it",
    ),
    _states(
        "dense-pairs",
        lambda: made.Dense(5, weighed=True),
        (5,),
        "a weight of its own for each pair of iterations: sums that grow are states",
    ),
    _states("crossed", lambda: made.Crossed(6), (), "each iteration reads the one that mirrors it"),
    _states(
        "only-feed-forward",
        lambda: made.OnlyFeedForward(5),
        (),
        "attention of its own in each layer",
    ),
    _states(
        "untied", lambda: made.Stacked("ABCDEF"), (), "six equal layers with weights of their own"
    ),
    _states(
        "pairwise", lambda: made.Stacked("AABBCCDD"), (), "MobileLLM: each layer twice in a row"
    ),
    Subject(
        name="siamese",
        make=lambda: made.Siamese(),
        inputs=dict.fromkeys(("left", "right"), ("batch", "sequence", made.WIDTH)),
        loops=(),
        known="two inputs side by side through one encoder",
    ),
]
SUBJECTS = {subject.name: subject for subject in _SUBJECTS}
