"""The reference model: every choice does what its name says."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from loopedge.errors import InputError
from loopedge.model.config import LoopedConfig
from loopedge.model.contract import LoopedProtocol
from loopedge.model.timestep import FIELDS, sinusoid
from loopedge.model.transformer import LoopedTransformer


def make(**settings: Any) -> LoopedTransformer:
    torch.manual_seed(0)
    base = {"d_model": 16, "heads": 2, "loops": 3, "vocab_size": 11, "max_length": 8}
    model = LoopedTransformer(LoopedConfig(**{**base, **settings})).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(("timestep.last", "timestep.rows")):
                parameter.normal_(0.3, 0.3)
    return model


def run(model: LoopedTransformer, ids: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(ids, *rest, **named)  # type: ignore[no-any-return]


IDS = torch.arange(12).reshape(2, 6) % 11


@pytest.mark.parametrize("timestep", ["none", "constant", "sinusoidal", "learned"])
@pytest.mark.parametrize("positions", ["learned", "rotary", "none"])
def test_every_choice_runs_under_the_contract(timestep: str, positions: str) -> None:
    model = make(timestep=timestep, positions=positions, layers=2)
    assert isinstance(model, LoopedProtocol)
    assert run(model, IDS).shape == (2, 6, 11)
    table = model.timestep_table(5)
    names = {f"{field}.{m}" for field in FIELDS for m in range(2)}
    assert set(table) == (set() if timestep == "none" else names)
    assert all(rows.shape == (5, 16) for rows in table.values())


@pytest.mark.parametrize("timestep", ["none", "constant", "sinusoidal", "learned"])
def test_only_time_dependent_encodings_tell_iterations_apart(timestep: str) -> None:
    table = make(timestep=timestep).timestep_table(3)
    differ = any(not torch.equal(rows[0], rows[1]) for rows in table.values())
    assert differ == (timestep in {"sinusoidal", "learned"})


def test_an_untrained_sinusoidal_stack_is_the_identity() -> None:
    torch.manual_seed(0)
    model = LoopedTransformer(LoopedConfig(d_model=16, heads=2, vocab_size=11)).eval()
    assert torch.equal(run(model, IDS, loops=1), run(model, IDS, loops=7))


def test_the_loop_count_changes_the_output() -> None:
    model = make()
    assert not torch.allclose(run(model, IDS, loops=1), run(model, IDS))
    assert torch.equal(run(model, IDS, loops=3), run(model, IDS))


def test_causal_models_do_not_see_the_future_and_others_do() -> None:
    changed = IDS.clone()
    changed[:, -1] = 10
    for causal in (True, False):
        model = make(causal=causal)
        same = torch.allclose(run(model, IDS)[:, :-1], run(model, changed)[:, :-1], atol=1e-5)
        assert same == causal


@pytest.mark.parametrize("causal", [True, False])
def test_padded_positions_do_not_touch_kept_ones(causal: bool) -> None:
    model = make(padding=True, causal=causal, positions="rotary")
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
    changed = torch.where(mask.bool(), IDS, torch.full_like(IDS, 10))
    kept = mask.bool()
    first, second = run(model, IDS, mask), run(model, changed, mask)
    assert torch.allclose(first[kept], second[kept], atol=1e-5)
    nothing = torch.zeros_like(mask)
    assert torch.isfinite(run(model, IDS, nothing)).all()


def test_rotary_positions_depend_on_distance_alone() -> None:
    model = make(padding=True, positions="rotary", causal=True)
    ids = torch.tensor([[3, 5, 7]])
    shifted = torch.tensor([[1, 1, 3, 5, 7]])
    mask = torch.tensor([[0, 0, 1, 1, 1]])
    alone = run(model, ids, torch.ones_like(ids))
    assert torch.allclose(run(model, shifted, mask)[:, 2:], alone, atol=1e-5)


@pytest.mark.parametrize("max_length", [1, 5])
def test_a_sequence_past_the_learned_positions_is_refused(max_length: int) -> None:
    # With a single position PyTorch would broadcast it over the whole sequence.
    model = make(max_length=max_length)
    assert run(model, IDS[:, :max_length]).shape == (2, max_length, 11)
    with pytest.raises(InputError, match=f"has 6 positions, the model learned {max_length}"):
        run(model, IDS)
    assert run(make(max_length=max_length, positions="rotary"), IDS).shape == (2, 6, 11)


def test_layers_are_distinct_and_the_head_is_tied() -> None:
    model = make(layers=3)
    names = dict(model.named_parameters())
    assert "head.weight" not in names
    ups = [names[f"core_layers.{m}.mlp.up.weight"] for m in range(3)]
    assert not torch.equal(ups[0], ups[1])
    assert "head.weight" in dict(make(tied_head=False).named_parameters())


def test_a_forecaster_takes_and_gives_raw_units() -> None:
    model = make(
        vocab_size=None, features=2, outputs=1, horizon=4, read="last", timestep="constant"
    )
    x = torch.randn(3, 8, 2)
    plain = run(model, x)
    assert plain.shape == (3, 4, 1)
    mean, scale = torch.tensor([100.0, -7.0]), torch.tensor([10.0, 0.5])
    model.set_scaling(mean, scale, torch.tensor([100.0]), torch.tensor([10.0]))
    assert torch.allclose(run(model, x * scale + mean), plain * 10 + 100, atol=1e-3)
    with pytest.raises(ValueError, match="shape"):
        model.set_scaling(mean[:1], scale, mean[:1], scale[:1])
    with pytest.raises(ValueError, match="token model"):
        make().set_scaling(mean, scale, mean[:1], scale[:1])


def test_the_sinusoid_is_cosines_then_sines_from_zero() -> None:
    rows = sinusoid(3)
    assert rows.shape == (3, 256)
    assert torch.equal(rows[0], torch.cat([torch.ones(128), torch.zeros(128)]))
    assert rows[2, 0] == pytest.approx(float(torch.cos(torch.tensor(2.0))))
    assert rows[2, 128] == pytest.approx(float(torch.sin(torch.tensor(2.0))))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"vocab_size": 5, "features": 2}, "exactly one"),
        ({}, "exactly one"),
        ({"vocab_size": 5, "d_model": 10, "heads": 4}, "not a multiple"),
        ({"vocab_size": 5, "d_model": 6, "heads": 2, "positions": "rotary"}, "even head size"),
        ({"vocab_size": 5, "horizon": 3}, "read='last'"),
        ({"vocab_size": 5, "loops": 0}, "greater than or equal to 1"),
        ({"vocab_size": 5, "colour": "red"}, "Extra inputs"),
    ],
)
def test_bad_configurations_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        LoopedConfig(**settings)
