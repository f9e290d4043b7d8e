"""Stop strings across the borders of tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopedge.errors import InputError
from loopedge.inference.stop_strings import StopStrings


def fed(stops: list[str], pieces: list[str]) -> tuple[list[str], str | None, str]:
    watch = StopStrings(stops)
    shown = [watch.add(piece) for piece in pieces]
    return shown, watch.found, watch.rest()


@pytest.mark.parametrize(
    ("stops", "pieces", "shown", "found", "rest"),
    [
        ([], ["a", "b"], ["a", "b"], None, ""),
        (["END"], ["a E", "N", "D b"], ["a ", "", ""], "END", ""),
        (["END"], ["a E", "N", "x"], ["a ", "", "ENx"], None, ""),
        (["END"], ["a E", "N"], ["a ", ""], None, "EN"),
        (["aab"], ["aa", "ab", "c"], ["", "a", ""], "aab", ""),
        (["\n\n", "b"], ["a\n", "b"], ["a", "\n"], "b", ""),
        (["bc", "abcd"], ["xab", "cd"], ["x", "a"], "bc", ""),
    ],
)
def test_text_is_held_back_while_it_may_stop(
    stops: list[str], pieces: list[str], shown: list[str], found: str | None, rest: str
) -> None:
    assert fed(stops, pieces) == (shown, found, rest)


@given(
    st.lists(st.text("ab", min_size=1, max_size=3), max_size=3),
    st.lists(st.text("abc", max_size=4), max_size=8),
)
def test_what_is_shown_ends_at_the_first_stop_string(stops: list[str], pieces: list[str]) -> None:
    shown, found, rest = fed(stops, pieces)
    whole = "".join(pieces)
    ends = [place for stop in stops if (place := whole.find(stop)) >= 0]
    if found is None:
        assert not ends
        assert "".join(shown) + rest == whole
    else:
        assert "".join(shown) == whole[: whole.find(found)]
        assert rest == ""
        assert not any(stop in "".join(shown) for stop in stops)


def test_an_empty_one_is_refused() -> None:
    with pytest.raises(InputError, match="stop is empty"):
        StopStrings(["x", ""])
