"""Which token comes next: against a plain computation in float64, and what is refused."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from loopedge.errors import InputError
from loopedge.runtime.decoding.sampling import Sampler, Sampling, probability_of

LOGITS = np.array([2.0, 1.0, -1.0, 0.5, -3.0, 1.5, -np.inf, 0.0], np.float32)


def expected(**options: Any) -> dict[int, float]:
    """Return the probabilities of the tokens that may be drawn, in the documented order of steps."""
    logits = LOGITS.astype(np.float64) / options["temperature"]
    order = np.argsort(-logits, kind="stable")
    kept = [int(i) for i in order if np.isfinite(logits[i])][: options.get("top_k")]
    shares = np.exp(logits[kept]) / np.exp(logits[kept]).sum()
    if "top_p" in options:
        before = np.cumsum(shares) - shares
        kept = [
            i for i, sum_before in zip(kept, before, strict=True) if sum_before < options["top_p"]
        ]
        shares = shares[: len(kept)]
    if "min_p" in options:
        kept = [i for i, s in zip(kept, shares, strict=True) if s >= options["min_p"] * shares[0]]
        shares = shares[: len(kept)]
    return dict(zip(kept, shares / shares.sum(), strict=True))


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 1.0},
        {"temperature": 0.3},
        {"temperature": 5.0},
        {"temperature": 1.0, "top_k": 3},
        {"temperature": 1.0, "top_k": 99},
        {"temperature": 2.0, "top_p": 0.6},
        {"temperature": 1.0, "top_p": 1.0},
        {"temperature": 1.0, "min_p": 0.3},
        {"temperature": 2.0, "top_k": 5, "top_p": 0.8, "min_p": 0.5},
    ],
)
def test_draws_follow_the_distribution(options: dict[str, Any]) -> None:
    sampler = Sampler(Sampling(seed=3, **options), len(LOGITS))
    count = 4000
    drawn = Counter(sampler.choose(LOGITS) for _ in range(count))
    wanted = expected(**options)
    assert set(drawn) <= set(wanted)
    for token, share in wanted.items():
        assert drawn[token] / count == pytest.approx(share, abs=4 * np.sqrt(share / count) + 1e-3)


def test_a_large_vocabulary_is_cut_as_a_small_one() -> None:
    """Past the first candidates of top-p, which are sorted alone."""
    random = np.random.default_rng(0)
    logits = random.standard_normal(5000).astype(np.float32) * 0.1
    for share in (0.05, 0.5, 0.95):
        sampler = Sampler(Sampling(temperature=1.0, top_p=share, seed=0), len(logits))
        ids, _ = sampler._kept(logits)
        shares = np.sort(np.exp(logits.astype(np.float64)))[::-1]
        wanted = int(np.searchsorted(np.cumsum(shares / shares.sum()), share)) + 1
        assert abs(len(ids) - wanted) <= 1
        assert logits[ids].min() >= np.delete(logits, ids).max() - 1e-6


def test_a_seed_repeats_the_draws_and_leaves_the_logits() -> None:
    draws = []
    for _ in range(2):
        logits = LOGITS.copy()
        sampler = Sampler(Sampling(temperature=1.0, seed=7, repetition_penalty=1.5), len(LOGITS))
        sampler.see([0, 2])
        draws.append([sampler.choose(logits) for _ in range(50)])
        np.testing.assert_array_equal(logits, LOGITS)
    assert draws[0] == draws[1]
    assert len(set(draws[0])) > 2


def test_the_penalty_holds_for_the_most_likely_token_too() -> None:
    sampler = Sampler(Sampling(repetition_penalty=1.5), len(LOGITS))
    assert sampler.choose(LOGITS) == 0
    sampler.see(0)  # 2.0 becomes 1.33
    assert sampler.choose(LOGITS) == 5
    assert Sampler(Sampling(), len(LOGITS)).choose(LOGITS) == 0


def test_a_negative_logit_is_multiplied() -> None:
    logits = np.array([-1.0, -1.2], np.float32)
    sampler = Sampler(Sampling(repetition_penalty=1.5), 2)
    sampler.see([0])
    assert sampler.choose(logits) == 1


def test_the_probability_is_the_models_own() -> None:
    shares = np.exp(LOGITS.astype(np.float64))
    for token in range(len(LOGITS)):
        wanted = shares[token] / shares.sum()
        assert probability_of(LOGITS, token) == pytest.approx(wanted, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": 0.0}, "temperature is 0.0, 0.000001 to 100"),
        ({"temperature": -1.0}, "temperature is -1.0, 0.000001"),
        ({"temperature": 1e-50}, "temperature is 1e-50"),  # 0 in float32
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"temperature": 1.0, "top_k": 0}, "top_k is 0"),
        ({"temperature": 1.0, "top_p": 0.0}, "top_p is 0.0"),
        ({"temperature": 1.0, "top_p": 1.5}, "top_p is 1.5"),
        ({"temperature": 1.0, "min_p": -0.1}, "min_p is -0.1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0"),
        ({"temperature": 1.0, "seed": -1}, "seed is -1"),
        ({"top_k": 3}, "top_k has no effect without a temperature"),
        ({"seed": 3}, "seed has no effect without a temperature"),
    ],
)
def test_what_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        Sampling(**options)
    assert words in caught.value.message


@pytest.mark.slow
def test_the_cuts_are_those_of_transformers() -> None:
    pytest.importorskip("transformers", reason="the extra 'adapters'")
    import torch
    from transformers.generation.logits_process import (
        LogitsProcessorList,
        MinPLogitsWarper,
        RepetitionPenaltyLogitsProcessor,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    random = np.random.default_rng(1)
    for case in range(20):
        logits = random.standard_normal(300).astype(np.float32) * 3
        text = random.integers(0, 300, 20)
        sampling = Sampling(
            temperature=0.7, top_k=80, top_p=0.9, min_p=0.02, repetition_penalty=1.3, seed=case
        )
        warpers = LogitsProcessorList(
            [
                RepetitionPenaltyLogitsProcessor(1.3),
                TemperatureLogitsWarper(0.7),
                TopKLogitsWarper(80),
                TopPLogitsWarper(0.9),
                MinPLogitsWarper(0.02),
            ]
        )
        ids: Any = torch.from_numpy(text[None])
        scores: Any = torch.from_numpy(logits[None].copy())
        theirs = warpers(ids, scores)[0]
        wanted = set(np.flatnonzero(np.isfinite(theirs.numpy())).tolist())
        sampler = Sampler(sampling, 300)
        sampler.see(text)
        drawn = {sampler.choose(logits) for _ in range(300)}
        assert drawn <= wanted
        penalised = np.where(logits > 0, logits / 1.3, logits * 1.3)
        kept, _ = sampler._kept(np.where(sampler._seen, penalised, logits).astype(np.float32))
        assert set(kept.tolist()) == wanted
