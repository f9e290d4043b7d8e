"""A TMLT and its training step as a straightforward script writes them, to measure against.

Written from the description of the published code (github.com/kevin671/tmlt, a script in the style of nanoGPT)
and from the names of its weights (`loopedge.model.tmlt`); none of it is copied. What such a script does:
one merged product for q, k and v; the timestep's gates and scales computed inside the loop, in every
iteration; ``nn.RMSNorm``; ``scaled_dot_product_attention`` where PyTorch has it, else the softmax written
out; AdamW that is fused on CUDA alone; the loss read in every step.
"""

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F  # noqa: N812  PyTorch's own name for it
from torch import Tensor, nn

__all__ = ["Levers", "ReferenceLoop", "ReferenceTMLT", "Sizes"]

CLIP, LR, BETAS = 1.0, 1e-4, (0.9, 0.95)
WEIGHT_DECAY = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What is trained.

    Args:
        d_model: Width.
        heads: Attention heads.
        loops: Iterations.
        length: Positions.
        vocab_size: Tokens.
        batch_size: Samples per step.
    """

    d_model: int
    heads: int
    loops: int
    length: int
    vocab_size: int
    batch_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Levers:
    """What a script may do better, each on its own.

    Args:
        attention: ``fused`` (scaled_dot_product_attention) or ``written_out`` (softmax, mask buffer).
        table: Compute the gates and scales of all iterations at once.
        fused_adamw: One pass over all parameters, on the CPU too.
        compile: ``torch.compile`` of the whole module.
        autocast: Products in bfloat16.
    """

    attention: str = "fused"
    table: bool = False
    fused_adamw: bool = False
    compile: bool = False
    autocast: bool = False


class Attention(nn.Module):
    """Causal self-attention with one merged projection."""

    def __init__(self, sizes: Sizes, levers: Levers) -> None:
        super().__init__()
        self.heads, self.fused = sizes.heads, levers.attention == "fused"
        self.c_attn = nn.Linear(sizes.d_model, 3 * sizes.d_model, bias=False)
        self.c_proj = nn.Linear(sizes.d_model, sizes.d_model, bias=False)
        mask = torch.ones(sizes.length, sizes.length, dtype=torch.bool).tril()
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Attend; float32 (B, T, d_model)."""
        batch, length, width = x.shape
        q, k, v = self.c_attn(x).split(width, dim=2)
        q = q.view(batch, length, self.heads, -1).transpose(1, 2)  # (B, nh, T, hs)
        k = k.view(batch, length, self.heads, -1).transpose(1, 2)
        v = v.view(batch, length, self.heads, -1).transpose(1, 2)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            scores = (q @ k.transpose(-2, -1)) / math.sqrt(k.shape[-1])  # (B, nh, T, T)
            mask = self.get_buffer("mask")[:length, :length]
            y = F.softmax(scores.masked_fill(~mask, float("-inf")), dim=-1) @ v
        y = y.transpose(1, 2).contiguous().view(batch, length, width)
        projected: Tensor = self.c_proj(y)
        return projected


class MLP(nn.Module):
    """Linear, GELU, Linear."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(d_model, 4 * d_model, bias=False)
        self.gelu = nn.GELU()
        self.c_proj = nn.Linear(4 * d_model, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 (B, T, d_model) to the same shape."""
        mixed: Tensor = self.c_proj(self.gelu(self.c_fc(x)))
        return mixed


class TimestepEmbedder(nn.Module):
    """Sinusoid of the iteration's number, then two linears."""

    def __init__(self, d_model: int, frequencies: int = 256) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.mlp = nn.Sequential(
            nn.Linear(frequencies, d_model), nn.SiLU(), nn.Linear(d_model, d_model)
        )

    def forward(self, t: Tensor) -> Tensor:
        """Map iteration numbers (n,) to float32 (n, d_model)."""
        half = self.frequencies // 2
        rates = torch.exp(-math.log(10_000) * torch.arange(half, device=t.device) / half)
        angles = t[:, None].float() * rates[None]
        embedded: Tensor = self.mlp(torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1))
        return embedded


class ReferenceTMLT(nn.Module):
    """One block, looped, with timestep encoding (Xu & Sato 2025); weights named as published.

    Args:
        sizes: What is trained.
        levers: What is done better than in the published style.
    """

    def __init__(self, sizes: Sizes, levers: Levers) -> None:
        super().__init__()
        width = sizes.d_model
        self.loops, self.table = sizes.loops, levers.table
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(sizes.vocab_size, width),
                "wpe": nn.Embedding(sizes.length, width),
                "attn": Attention(sizes, levers),
                "mlp": MLP(width),
                "ln_f": nn.RMSNorm(width),
            }
        )
        self.norm_1 = nn.RMSNorm(width, elementwise_affine=False)
        self.norm_2 = nn.RMSNorm(width, elementwise_affine=False)
        self.timestep_embedder = TimestepEmbedder(width)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 4 * width))
        self.lm_head = nn.Linear(width, sizes.vocab_size, bias=False)
        self.apply(initialise)
        self.lm_head.weight = self.transformer["wte"].weight  # type: ignore[assignment]

    def forward(self, ids: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits float32 (B, T, vocab_size) and the mean loss; both inputs int64 (B, T)."""
        part = self.transformer
        batch, length = ids.shape
        x = part["wte"](ids) + part["wpe"](torch.arange(length, device=ids.device))
        rows = None
        if self.table:
            steps = torch.arange(self.loops, device=ids.device)
            rows = self.adaLN_modulation(self.timestep_embedder(steps))[:, None, None]
        for t in range(self.loops):
            if rows is None:
                steps = torch.full((batch,), t, device=ids.device)
                row = self.adaLN_modulation(self.timestep_embedder(steps)).unsqueeze(1)
            else:
                row = rows[t]
            # each (B, 1, d_model), or (1, 1, d_model) from the table
            gate_a, gate_m, scale_a, scale_m = row.chunk(4, dim=-1)
            x = x + gate_a * part["attn"](self.norm_1(x) * (1 + scale_a))
            x = x + gate_m * part["mlp"](self.norm_2(x) * (1 + scale_m))
        logits = self.lm_head(part["ln_f"](x))
        loss = F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))
        return logits, loss


def initialise(module: nn.Module) -> None:
    """Draw weights with a standard deviation of 0.02.

    The modulation does not start at zero here: time does not depend on it, and a comparison of outputs would
    be one of zeros.
    """
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


@dataclass(slots=True)
class ReferenceLoop:
    """The training step of such a script.

    Args:
        sizes: What is trained.
        levers: What is done better than in the published style.
        device: Where.
    """

    sizes: Sizes
    levers: Levers
    device: torch.device
    model: ReferenceTMLT = field(init=False)
    called: nn.Module = field(init=False)
    optimizer: torch.optim.AdamW = field(init=False)

    def __post_init__(self) -> None:
        self.model = ReferenceTMLT(self.sizes, self.levers).to(self.device)
        parameters = list(self.model.parameters())
        groups = [
            {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": WEIGHT_DECAY},
            {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
        ]
        fused = self.levers.fused_adamw or self.device.type == "cuda"
        self.optimizer = torch.optim.AdamW(groups, lr=LR, betas=BETAS, fused=fused)
        self.called = torch.compile(self.model) if self.levers.compile else self.model  # type: ignore[assignment]

    def step(self, ids: Tensor, targets: Tensor) -> float:
        """Make one step on int64 (B, T) tensors of the device; return the loss."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.levers.autocast):
            _, loss = self.called(ids, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(loss.item())
