"""The published TMLT module, written out once more here, against ours with its weights mapped."""

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  PyTorch's own name for it
from torch import Tensor, nn

from loopedge.errors import InputError
from loopedge.model.tmlt import from_tmlt, map_tmlt_state_dict

D, HEADS, VOCABULARY, LENGTH = 32, 4, 40, 12


class Reference(nn.Module):
    """One block looped; gates and scales come from the iteration number (Xu & Sato 2025)."""

    def __init__(self, *, bias: bool) -> None:
        super().__init__()
        attention = nn.ModuleDict(
            {"c_attn": nn.Linear(D, 3 * D, bias=bias), "c_proj": nn.Linear(D, D, bias=bias)}
        )
        mlp = nn.ModuleDict(
            {"c_fc": nn.Linear(D, 4 * D, bias=bias), "c_proj": nn.Linear(4 * D, D, bias=bias)}
        )
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(VOCABULARY, D),
                "wpe": nn.Embedding(LENGTH, D),
                "attn": attention,
                "mlp": mlp,
                "ln_f": nn.RMSNorm(D),
            }
        )
        self.timestep_embedder = nn.ModuleDict(
            {"mlp": nn.Sequential(nn.Linear(256, D), nn.SiLU(), nn.Linear(D, D))}
        )
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(D, 4 * D))
        self.lm_head = nn.Linear(D, VOCABULARY, bias=False)
        self.lm_head.weight = self.transformer["wte"].weight  # type: ignore[assignment]

    def modulation(self, t: int) -> Tensor:
        frequencies = torch.exp(-math.log(10_000.0) * torch.arange(128) / 128)
        angles = t * frequencies
        encoded = torch.cat([torch.cos(angles), torch.sin(angles)])
        embedded = self.timestep_embedder["mlp"](encoded)
        return self.adaLN_modulation(embedded)  # type: ignore[no-any-return]

    def attend(self, x: Tensor) -> Tensor:
        part = self.transformer["attn"]
        batch, length, _ = x.shape
        q, k, v = (
            piece.view(batch, length, HEADS, D // HEADS).transpose(1, 2)
            for piece in part["c_attn"](x).split(D, dim=2)  # type: ignore[index]
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        y = y.transpose(1, 2).reshape(batch, length, D)
        return part["c_proj"](y)  # type: ignore[index, no-any-return]

    def forward(self, ids: Tensor, loops: int) -> Tensor:
        part = self.transformer
        x = part["wte"](ids) + part["wpe"](torch.arange(ids.shape[1]))
        for t in range(loops):
            gate_a, gate_m, scale_a, scale_m = self.modulation(t).chunk(4)
            x = x + gate_a * self.attend(F.rms_norm(x, (D,)) * (1 + scale_a))
            hidden = part["mlp"]["c_fc"](F.rms_norm(x, (D,)) * (1 + scale_m))  # type: ignore[index]
            x = x + gate_m * part["mlp"]["c_proj"](F.gelu(hidden))  # type: ignore[index]
        return self.lm_head(part["ln_f"](x))  # type: ignore[no-any-return]


def reference(*, bias: bool) -> Reference:
    torch.manual_seed(1)
    module = Reference(bias=bias).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("loops", [1, 3, 12])
def test_published_weights_give_the_published_outputs(bias: bool, loops: int) -> None:
    module = reference(bias=bias)
    ours = from_tmlt(module.state_dict(), heads=HEADS, loops=loops)
    ids = torch.randint(VOCABULARY, (3, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, given = module(ids, loops), ours(ids)
    assert torch.allclose(given, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    assert float(expected.std()) > 0.05, "the comparison is of something"


def test_every_tensor_of_ours_is_mapped_and_prefixes_are_stripped() -> None:
    published = {f"_orig_mod.{k}": v for k, v in reference(bias=True).state_dict().items()}
    mapped = map_tmlt_state_dict(published)
    model = from_tmlt(published, heads=HEADS, loops=2)
    assert set(mapped) == set(model.state_dict())


def test_what_does_not_fit_is_named() -> None:
    state = reference(bias=False).state_dict()
    with pytest.raises(InputError, match=r"transformer\.extra"):
        map_tmlt_state_dict({**state, "transformer.extra": torch.zeros(1)})
    with pytest.raises(InputError, match=r"lacks embedding\.weight"):
        from_tmlt({k: v for k, v in state.items() if "wte" not in k}, heads=HEADS, loops=2)
    with pytest.raises(InputError, match="does not fit"):
        from_tmlt({k: v for k, v in state.items() if "ln_f" not in k}, heads=HEADS, loops=2)
