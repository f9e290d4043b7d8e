"""The published TMLT modules, written out once more here, against ours with their weights mapped."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  PyTorch's own name for it
from torch import Tensor, nn

from loopedge.errors import InputError
from loopedge.model.tmlt import from_tmlt, map_tmlt_state_dict

D, HEADS, VOCABULARY, LENGTH = 32, 4, 40, 12
State = dict[str, Tensor]


def linear(weights: State, name: str, x: Tensor) -> Tensor:
    return F.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))


def unit(x: Tensor) -> Tensor:
    """Divide by the root mean square of the features; no weight."""
    return x / torch.sqrt(x.square().mean(-1, keepdim=True) + torch.finfo(x.dtype).eps)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention, written out; each (batch, length, D)."""
    q, k, v = (torch.unflatten(part, -1, (HEADS, -1)).transpose(1, 2) for part in (q, k, v))
    scores = q @ k.transpose(-1, -2) / math.sqrt(D // HEADS)
    later = torch.triu(torch.ones(scores.shape[-2:]), diagonal=1).bool()
    read = scores.masked_fill(later, float("-inf")).softmax(-1) @ v
    return read.transpose(1, 2).flatten(2)


def time_vector(weights: State, embedder: str, t: int) -> Tensor:
    """What every block's modulation reads: SiLU of the embedded iteration number."""
    angles = t * 10_000.0 ** (-torch.arange(128) / 128)
    encoded = torch.cat([angles.cos(), angles.sin()])
    hidden = F.silu(linear(weights, f"{embedder}.mlp.0", encoded))
    return F.silu(linear(weights, f"{embedder}.mlp.2", hidden))


def timed_block(weights: State, block: str, x: Tensor, modulation: Tensor) -> Tensor:
    """Scale what attention and MLP read, gate what they add."""
    gate_a, gate_m, scale_a, scale_m = modulation.chunk(4)
    read = unit(x) * (1 + scale_a)
    if f"{block}.attn.c_attn.weight" in weights:
        parts = linear(weights, f"{block}.attn.c_attn", read).chunk(3, dim=-1)
    else:
        parts = tuple(linear(weights, f"{block}.attn.{part}", read) for part in "qkv")
    x = x + gate_a * linear(weights, f"{block}.attn.c_proj", attend(*parts))
    hidden = linear(weights, f"{block}.mlp.c_fc", unit(x) * (1 + scale_m))
    return x + gate_m * linear(weights, f"{block}.mlp.c_proj", F.gelu(hidden))


def published_forward(weights: State, ids: Tensor, loops: int) -> Tensor:
    """Logits of a TMLT module of either layout, float32 (batch, length, VOCABULARY)."""
    several = "transformer.norm_f.weight" in weights
    embedder, final = ("time_embedder", "norm_f") if several else ("timestep_embedder", "ln_f")
    prefixes = {name.split(".attn.")[0] for name in weights if ".attn." in name}
    x = weights["transformer.wte.weight"][ids] + weights["transformer.wpe.weight"][: ids.shape[1]]
    for t in range(loops):
        vector = time_vector(weights, embedder, t)
        for block in sorted(prefixes):
            owner = f"{block}." if several else ""
            x = timed_block(
                weights, block, x, linear(weights, f"{owner}adaLN_modulation.1", vector)
            )
    return F.linear(
        unit(x) * weights[f"transformer.{final}.weight"], weights["transformer.wte.weight"]
    )


class Weights:
    """Random weights by name, seeded."""

    def __init__(self, *, bias: bool) -> None:
        self.bias, self.generator = bias, torch.Generator().manual_seed(1)
        self.state: State = {}

    def tensor(self, name: str, *shape: int, around: float = 0.0) -> None:
        self.state[name] = around + 0.15 * torch.randn(*shape, generator=self.generator)

    def linear(self, name: str, outputs: int, inputs: int, *, bias: bool | None = None) -> None:
        self.tensor(f"{name}.weight", outputs, inputs)
        if self.bias if bias is None else bias:
            self.tensor(f"{name}.bias", outputs)

    def block(self, name: str, *, merged: bool, hidden: int = 4 * D) -> None:
        if merged:
            self.linear(f"{name}.attn.c_attn", 3 * D, D)
        else:
            for part in "qkv":
                self.linear(f"{name}.attn.{part}", D, D)
        self.linear(f"{name}.attn.c_proj", D, D)
        self.linear(f"{name}.mlp.c_fc", hidden, D)
        self.linear(f"{name}.mlp.c_proj", D, hidden)

    def ends(self, norm: str) -> State:
        self.tensor("transformer.wte.weight", VOCABULARY, D)
        self.tensor("transformer.wpe.weight", LENGTH, D)
        self.tensor(f"transformer.{norm}.weight", D, around=1.0)
        self.state["lm_head.weight"] = self.state["transformer.wte.weight"]
        return self.state

    def time(self, embedder: str, modulations: list[str]) -> None:
        self.linear(f"{embedder}.mlp.0", D, 256, bias=True)
        self.linear(f"{embedder}.mlp.2", D, D, bias=True)
        for name in modulations:
            self.linear(f"{name}adaLN_modulation.1", 4 * D, D, bias=True)


def papers(*, bias: bool = False, merged: bool = False, timed: bool = True) -> State:
    """The layout of kevin671/tmlt: one block; q, k and v merged in its first versions."""
    weights = Weights(bias=bias)
    weights.block("transformer", merged=merged)
    if timed:
        weights.time("timestep_embedder", [""])
    return weights.ends("ln_f")


def loopformers(*, bias: bool = False) -> State:
    """The layout of armenjeddi/loopformer: three blocks, an MLP of another width."""
    weights = Weights(bias=bias)
    blocks = [f"transformer.h.blocks.{m}" for m in range(3)]
    for block in blocks:
        weights.block(block, merged=True, hidden=80)
    weights.time("time_embedder", [f"{block}." for block in blocks])
    return weights.ends("norm_f")


LAYOUTS: dict[str, Callable[..., State]] = {
    "separate": papers,
    "merged": lambda **options: papers(merged=True, **options),
    "blocks": loopformers,
}
IDS = torch.randint(VOCABULARY, (3, 9), generator=torch.Generator().manual_seed(0))


def largest_difference(ours: nn.Module, expected: Tensor) -> float:
    with torch.no_grad():
        return float((ours(IDS) - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("loops", [1, 3, 12])
def test_published_weights_give_the_published_outputs(layout: str, bias: bool, loops: int) -> None:
    weights = LAYOUTS[layout](bias=bias)
    expected = published_forward(weights, IDS, loops)
    assert float(expected.std()) > 0.05, "the comparison is of something"
    ours = from_tmlt(weights, heads=HEADS, loops=loops)
    assert largest_difference(ours, expected) < 1e-5
    if loops > 1:
        fewer = from_tmlt(weights, heads=HEADS, loops=loops - 1)
        assert largest_difference(fewer, expected) > 1e-2, "the iterations count"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_tensor_of_ours_is_mapped_and_prefixes_are_stripped(layout: str) -> None:
    weights = LAYOUTS[layout](bias=True)
    published = {f"module._orig_mod.{name}": value for name, value in weights.items()}
    model = from_tmlt(published, heads=HEADS, loops=2)
    assert set(map_tmlt_state_dict(published)) == set(model.state_dict())


def test_a_checkpoint_that_holds_the_head_alone_ties_it() -> None:
    weights = papers()
    expected = published_forward(weights, IDS, 2)
    del weights["transformer.wte.weight"]
    assert largest_difference(from_tmlt(weights, heads=HEADS, loops=2), expected) < 1e-5


def plain_forward(weights: State, ids: Tensor, loops: int, *, normed: bool) -> Tensor:
    """LoopedGPT: with both norms, or with values and MLP that read the state as it is."""
    x = weights["transformer.wte.weight"][ids] + weights["transformer.wpe.weight"][: ids.shape[1]]
    for _ in range(loops):
        q, k, _ = linear(weights, "transformer.attn.c_attn", unit(x)).chunk(3, dim=-1)
        values = unit(x) if normed else x
        v = linear(weights, "transformer.attn.c_attn", values).chunk(3, dim=-1)[2]
        x = x + linear(weights, "transformer.attn.c_proj", attend(q, k, v))
        hidden = linear(weights, "transformer.mlp.c_fc", unit(x) if normed else x)
        x = x + linear(weights, "transformer.mlp.c_proj", F.gelu(hidden))
    return F.linear(unit(x) * weights["transformer.ln_f.weight"], weights["lm_head.weight"])


def test_a_plain_module_with_both_norms_is_taken_when_its_caller_says_so() -> None:
    weights = papers(merged=True, timed=False)
    ours = from_tmlt(weights, heads=HEADS, loops=3, plain_norms=True)
    assert largest_difference(ours, plain_forward(weights, IDS, 3, normed=True)) < 1e-5
    assert largest_difference(ours, plain_forward(weights, IDS, 3, normed=False)) > 0.1


def refused(weights: State, **options: bool) -> InputError:
    with pytest.raises(InputError) as caught:
        from_tmlt(weights, heads=HEADS, loops=2, **options)
    assert "\n" not in str(caught.value)
    return caught.value


def test_another_order_of_operations_is_refused_in_one_line() -> None:
    plain = papers(timed=False)
    assert "MLP read states without a norm" in str(refused(plain))
    assert "MLP read states without a norm" in str(refused(plain, plain_norms=True))
    merged = refused(papers(merged=True, timed=False))
    assert "do not say whether attention and MLP" in str(merged)
    assert "plain_norms=True" in str(merged.hint)
    stepped = loopformers() | {"dt_embedder.mlp.0.weight": torch.zeros(D, 256)}
    assert "read the step size" in str(refused(stepped))
    learned = loopformers() | {"transformer.h.blocks.1.norm_1.weight": torch.ones(D)}
    assert "learned norms" in str(refused(learned))
    untied = papers() | {"lm_head.weight": torch.zeros(VOCABULARY, D)}
    assert "lm_head.weight differs" in str(refused(untied))
    assert "has a timestep encoding" in str(refused(papers(), plain_norms=True))


def test_what_does_not_fit_is_named() -> None:
    state = papers()
    with pytest.raises(InputError, match=r"transformer\.extra"):
        map_tmlt_state_dict({**state, "transformer.extra": torch.zeros(1)})
    with pytest.raises(InputError, match="model is not a tensor"):
        map_tmlt_state_dict({"model": state})  # type: ignore[dict-item]
    del state["transformer.wte.weight"], state["lm_head.weight"]
    with pytest.raises(InputError, match=r"lacks embedding\.weight"):
        from_tmlt(state, heads=HEADS, loops=2)
