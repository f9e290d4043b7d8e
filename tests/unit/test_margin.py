"""The difference that does not matter."""

from typing import Any

import pytest

from loopedge.errors import InputError
from loopedge.study.judging.margin import make_margin, read_margin


@pytest.mark.parametrize(
    ("text", "number", "share"),
    [("2%", 0.02, True), ("0.5 %", 0.005, True), (" 1e-3 ", 0.001, False), (0.25, 0.25, False), ("0", 0.0, False)],
)  # fmt: skip
def test_a_share_or_a_number_is_read(text: Any, number: float, share: bool) -> None:
    found, of_error = read_margin(text)
    assert found == pytest.approx(number)
    assert of_error is share


@pytest.mark.parametrize(
    "text", ["", "two", "2%%", "-1", "-2%", "nan", "inf", "1e999", "2 percent"]
)
def test_what_is_neither_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InputError, match="margin is ") as caught:
        read_margin(text)
    assert "\n" not in caught.value.message
    assert caught.value.hint == 'margin="2%"'


@pytest.mark.parametrize(
    ("reference", "higher", "samples", "value"),
    [
        (3.6, False, None, 0.072),  # of the error itself
        (0.9, True, 10_000, 0.002),  # of what is missing to 1
        (1.0, True, 96, 1 / 96),  # a baseline that is always right: one sample
        (0.98, True, 96, 1 / 96),
        (1.0, True, None, 0.001),
        (25.0, True, None, 0.5),  # a score that is no share
        (-4.0, False, None, 0.08),
    ],
)
def test_a_share_is_of_the_baselines_error(
    reference: float, higher: bool, samples: int | None, value: float
) -> None:
    found = make_margin(
        "2%", reference=reference, name="naive", higher_is_better=higher, samples=samples
    )
    assert found.value == pytest.approx(value)
    assert found.to_json() == {"value": found.value, "text": "2%", "of": "the error of naive"}


def test_a_number_is_in_the_metrics_unit_whatever_the_baseline() -> None:
    found = make_margin("0.05", reference=3.6, name="naive", higher_is_better=False)
    assert (found.value, found.of) == (0.05, "")
    alone = make_margin("2%", reference=None, name="", higher_is_better=False)
    assert (alone.value, alone.of) == (0.0, "")
    nothing = make_margin("0%", reference=1.0, name="naive", higher_is_better=True, samples=96)
    assert nothing.value == 0.0
