"""What people see of the state's cosines, and of the samples that figures were measured on."""

from typing import Any

import pytest

from loopedge.units import cosine_text
from loopedge_cli.view_rows import held_out_rows, state_rows


@pytest.mark.parametrize(
    ("cosine", "text"),
    [
        (1.0, "1"),
        (1 - 1e-12, "1"),
        (1 - 2.34e-9, "0.999999998"),
        (0.999985, "0.999985"),
        (0.9985, "0.9985"),
        (0.8123, "0.8123"),
        (-0.5, "-0.5000"),
        (0.0, "0.0000"),
    ],
)
def test_a_cosine_shows_what_it_lacks_to_one(cosine: float, text: str) -> None:
    assert cosine_text(cosine) == text


def shown(*states: dict[str, Any]) -> list[str]:
    rows = state_rows([{"core": "core", "state": "s", **state} for state in states])
    assert {name for name, _ in rows} <= {"state"}
    return [text for _, text in rows]


def test_the_first_the_worst_and_the_last_iteration() -> None:
    (text,) = shown({"mean": [0.99, 0.7, 0.8], "worst": [0.98, 0.6, 0.5]})
    assert text == (
        "cosine to float's 0.9900 in iteration 0, 0.7000 in 1 (worst), 0.8000 in 2 (last); worst sample 0.5000 in 2"
    )
    (text,) = shown({"mean": [0.9], "worst": [0.8]})
    assert text == "cosine to float's 0.9000 in iteration 0; worst sample 0.8000"


def test_a_row_for_each_core_of_the_state_that_is_worst() -> None:
    good, bad = {"mean": [0.9], "worst": [0.9]}, {"mean": [0.9], "worst": [0.1], "state": "t"}
    first, second = shown(good, bad, {**good, "core": "core2"})
    assert first.startswith("core: ")
    assert first.endswith("worst sample 0.1000; state t of 2")
    assert second.startswith("core2: ")
    assert shown() == []


def test_iterations_without_a_cosine_are_left_out() -> None:
    (text,) = shown({"mean": [None, 0.9], "worst": [None, 0.8], "undefined": [3, 0]})
    assert text == (
        "cosine to float's 0.9000 in iteration 1 (last); worst sample 0.8000 in 1; "
        "3 samples with none: zeros in float"
    )
    assert "zeros in the float model" in shown({"mean": [None], "worst": [None]})[0]


@pytest.mark.parametrize(
    ("samples", "words"), [(1, "1 sample that was generated"), (8, "8 samples that were generated")]
)
def test_generated_samples_are_counted_in_good_english(samples: int, words: str) -> None:
    fields = {"source": "generated", "samples": samples, "sqnr_db": 30.0, "metric": None}
    assert words in held_out_rows(fields)[0][1].replace("[yellow]", "").replace("[/yellow]", "")
