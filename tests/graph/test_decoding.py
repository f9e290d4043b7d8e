"""Language models as graphs: with a cache they compute what they compute of whole texts, or they are refused in one line."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from loopedge.errors import InputError
from loopedge.graph.decoding import tried_lengths
from loopedge.graph.decoding.attention import attentions
from loopedge.graph.decoding.attention.masks import Causal, Refused, classify
from loopedge.graph.decoding.decoding import Decoding, give_cache
from loopedge.graph.decoding.length_values import LengthValues
from loopedge.graph.decoding.tried_lengths import lengths_to_try, longest_text
from tests.fuzz.decoding import judge_decoding
from tests.fuzz.language_models import write_language_model
from tests.fuzz.language_specs import FAULTS, LanguageSpec, draw_spec

ROTARY: dict[str, Any] = {"positions": None, "rotary": "sd"}

DECODED: dict[str, dict[str, Any]] = {
    "learned rows": {"layers": 2, "timestep": True},
    "rows at a running sum of the mask": {"positions": "cumsum offset", "attention_mask": True},
    "rows that are clipped": {"positions": "clipped"},
    "positions as an input": {"positions": "expanded", "position_ids": True},
    "rotary in the layout of the projections": ROTARY | {"rotary": "s1d", "split": False},
    "rotary of a part, interleaved": ROTARY | {"interleaved": True, "rotary_part": 4},
    "rotary as the operator": ROTARY | {"rotary_operator": "angles", "prelude": 1},
    "rotary by positions of a table": ROTARY | {"rotary_operator": "positions"},
    "made inside the body of constant nodes": ROTARY | {"inside": True, "nodes": 1.0, "mask": "ranges"},
    "windows that differ": ROTARY | {"layers": 2, "mask": "where", "windows": (2, 7)},
    "a stored mask": {"mask": "table", "rows": 48, "mask_rank": 4},
    "padding": {"mask": "additive padding", "attention_mask": True},
    "heads that repeat": {"heads": 4, "kv_heads": 2, "repeat": "tile", "query_norm": True},
    "a gate behind the core": ROTARY | {"coda": 2, "gate": True, "softcap": 3.0, "scale": 0.2},
    "stacks and two cores": {"stacked": True, "cores": 2, "coda": 1, "tied": True},
    "a state that starts from positions": {"second_state": "positions", "value_residual": True},
    "a loop count at run time": {"counted": True, "loops": 4, "second_state": "zeros"},
    "no shapes noted": {"noted": 0.0, "nodes": 1.0},
}  # fmt: skip
"""Models by what is special of them."""

SLOW = {
    "rows that are clipped", "rotary as the operator", "a stored mask", "padding", "windows that differ", "no shapes noted",
    "rotary of a part, interleaved", "a loop count at run time", "stacks and two cores",
}  # fmt: skip

REFUSED = {
    "bidirectional": "behind their own",
    "prefix": "behind their own",
    "strict": "not causal",
    "dilated": "not causal",
    "local chunks": "not causal",
    "sinks": "not causal",
    "later window": "there at some lengths, and not at others",
    "alibi": "adds something to the scores",
    "per head": "differs from head to head",
    "by token": "depends on more than the number of positions",
    "documents": "depends on more than the number of positions",
    "reversed positions": "depends on the length of the whole text",
    "scaled positions": "depends on the length of the whole text",
    "long base": "depends on the length of the whole text",
    "one over length": "depends on the length of the whole text",
    "log length": "depends on the length of the whole text",
    "from the end": "depends on the length of the whole text",
    "memory only": "not those of the text",
}
"""By fault, what the pass says."""

UNSEEN = sorted(set(FAULTS) - set(REFUSED))
"""Faults that no shape and no mask shows."""


def cache_of(**options: Any) -> Decoding:
    """Give a model a cache."""
    return give_cache(ir.from_proto(write_language_model(LanguageSpec(**options))))


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in DECODED]
)
def test_with_a_cache_it_computes_what_it_does_of_whole_texts(name: str, tmp_path: Path) -> None:
    outcome = judge_decoding(LanguageSpec(**DECODED[name]), tmp_path)
    assert (outcome.kind, outcome.problem) == ("decoded", None), outcome.reason


@pytest.mark.parametrize("fault", REFUSED)
def test_what_a_mask_or_a_length_shows_is_refused_in_one_line(fault: str) -> None:
    spec = LanguageSpec(fault=fault, mask="ranges", positions="gather", rotary="sd")
    with pytest.raises(InputError, match=REFUSED[fault]) as caught:
        give_cache(ir.from_proto(write_language_model(spec)))
    assert len(caught.value.message.splitlines()) == 1
    assert (
        caught.value.hint is None or "MODEL" in caught.value.hint or "export" in caught.value.hint
    )


@pytest.mark.slow
@pytest.mark.parametrize("fault", UNSEEN)
def test_no_core_that_mixes_positions_elsewhere_passes_the_check(
    fault: str, tmp_path: Path
) -> None:
    outcome = judge_decoding(LanguageSpec(fault=fault, prelude=1, **ROTARY), tmp_path)
    assert outcome.kind in {"refused", "refused by the check"}, outcome
    assert outcome.problem is None


@pytest.mark.slow
@pytest.mark.parametrize("number", range(6))
def test_random_models_decode_or_are_refused_in_one_line(number: int, tmp_path: Path) -> None:
    outcome = judge_decoding(draw_spec(f"held.{number}"), tmp_path)
    assert outcome.problem is None


@pytest.mark.parametrize("mask", ["ranges", "bool triu"])
@pytest.mark.parametrize("window", [200, 300, 4096])
def test_a_window_is_found_however_long_it_is(window: int, mask: str) -> None:
    (slot,) = cache_of(windows=(window,), mask=mask, **ROTARY).slots
    assert slot.window == window


def test_the_window_of_a_stored_mask_is_found_and_a_longer_one_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No number says where it ends: the array is looked at as a whole, or not at all."""
    monkeypatch.setattr(tried_lengths, "LONGEST", 260)
    spec = LanguageSpec(known=True, rows=400, mask="table", windows=(350,), heads=1, kv_heads=1)
    decoding = give_cache(ir.from_proto(write_language_model(spec)))
    assert [slot.window for slot in decoding.slots] == [350]
    monkeypatch.setattr(attentions, "LONGEST_STORED", 300)
    with pytest.raises(InputError, match="is stored for 400 positions, at most 300"):
        give_cache(ir.from_proto(write_language_model(spec)))


@pytest.mark.parametrize(
    ("options", "context"),
    [
        ({"rows": 48}, 48),
        ({"rows": 48, "positions": "offset"}, 46),
        ({"rows": 48, "positions": "cumsum"}, 48),
        ({"rows": 300, "mask": "table", **ROTARY}, 300),
        ({"rows": 128, "rotary_operator": "positions", **ROTARY}, 128),
        ({"rows": 128, "rotary_table": True, **ROTARY}, 128),
        ({"rows": 48, **ROTARY}, None),
        ({"rows": 9, "positions": "modulo"}, None),
    ],
)
def test_the_context_is_how_many_positions_the_shortest_table_has(
    options: dict[str, Any], context: int | None
) -> None:
    model = ir.from_proto(write_language_model(LanguageSpec(**options)))
    assert longest_text(LengthValues(model, model.graph.inputs[0])) == context


def test_a_file_that_does_not_say_how_often_it_loops_is_refused() -> None:
    model = ir.from_proto(write_language_model(LanguageSpec(counted=True)))
    model.metadata_props.clear()
    with pytest.raises(InputError, match="does not say how often"):
        give_cache(model)


def test_lengths_pass_the_numbers_behind_which_something_may_begin() -> None:
    assert lengths_to_try(None) == [3, 5, 8, 13, 67, 259]
    assert lengths_to_try(64, [300]) == [3, 5, 8, 13, 64]
    assert lengths_to_try(4096, [300, 2**40]) == [3, 5, 8, 13, 67, 259, 303, 2048]


def masks_of(rule: Any) -> dict[int, np.ndarray[Any, Any]]:
    """Return masks of several lengths by a rule of queries and keys."""
    return {size: rule(np.arange(size)[:, None], np.arange(size)[None, :]) for size in (3, 8, 13)}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (lambda q, k: q >= k, Causal()),
        (lambda q, k: (q >= k) & (q - k < 4), Causal(4)),
        (lambda q, k: q == k, Causal(1)),
        (lambda q, k: np.where(q >= k, 0.0, -np.inf), Causal()),
        (lambda q, k: np.where(q >= k, 0.0, -1e9)[None, None], Causal()),
        (lambda q, k: q <= k, "behind their own"),
        (lambda q, k: q > k, "nor a window"),
        (lambda q, k: np.where(q >= k, -0.5 * (q - k), -np.inf), "adds something"),
        (lambda q, k: np.where(q >= k, 0.0, -9.0), "adds something"),
        (lambda q, k: (q >= k).astype(np.int64), "its type is"),
        (lambda q, k: np.stack([q >= k, q == k]), "from head to head"),
        (lambda q, k: (q >= k) & (q - k < len(q) // 2), "changes with the length"),
        (lambda q, k: (q >= k)[:, :2], "it has shape"),
    ],
)  # fmt: skip
def test_masks_are_told_apart_by_their_values(rule: Any, expected: Causal | str) -> None:
    found = classify(masks_of(rule))
    if isinstance(expected, Causal):
        assert found == expected
    else:
        assert isinstance(found, Refused)
        assert expected in found.reason
