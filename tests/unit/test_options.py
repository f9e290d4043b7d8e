"""How options are merged, and how errors name them to whoever called."""

from dataclasses import dataclass
from typing import Any

import pytest

from loopedge.errors import InputError
from loopedge.options import by_face, naming_flags, option, option_name, with_keywords
from loopedge.quantizer.options import QuantizeOptions


@dataclass(frozen=True, kw_only=True)
class Sizes:
    width: int = 1
    depth: int = 2


def test_keywords_win_over_the_object_and_leave_it_as_it_is() -> None:
    given = Sizes(width=5, depth=7)
    assert with_keywords("verb", Sizes, None, {}) == Sizes()
    assert with_keywords("verb", Sizes, None, {"depth": 3}) == Sizes(width=1, depth=3)
    assert with_keywords("verb", Sizes, given, {"depth": 3}) == Sizes(width=5, depth=3)
    assert given == Sizes(width=5, depth=7)
    with pytest.raises(TypeError, match=r"verb\(\) got an unexpected keyword argument 'height'"):
        with_keywords("verb", Sizes, given, {"height": 3})


@pytest.mark.parametrize(
    ("name", "value", "python", "flags"),
    [
        ("force", True, "force=True", "--force"),
        ("last_rows", False, "last_rows=False", "--no-last-rows"),
        ("form", "loop", 'form="loop"', "--form loop"),
        ("loops", 3, "loops=3", "--loops 3"),
        ("lr", "5e-04", "lr=5e-04", "--lr 5e-04"),
        ("target", "COLUMN", "target=COLUMN", "--target COLUMN"),
        ("loops", (1, 4), "loops=(1, 4)", "--loops 1,4"),
        ("path", "m.onnx", 'path="m.onnx"', "--output m.onnx"),
        ("granularity", "auto", 'granularity="auto"', "--ranges auto"),
    ],
)
def test_an_option_is_written_as_the_caller_writes_it(
    name: str, value: object, python: str, flags: str
) -> None:
    assert option(name, value) == python
    with naming_flags():
        assert option(name, value) == flags
        assert option(name, value, command="run") == f"loopedge run {flags}"
    assert option(name, value, command="run") == python


def fail_as_a_command() -> None:
    with naming_flags(), naming_flags():
        raise ValueError(option_name("weight_only"))


def test_a_command_that_fails_leaves_python_as_it_was() -> None:
    with pytest.raises(ValueError, match=r"^--weight-only$"):
        fail_as_a_command()
    assert option_name("weight_only") == "weight_only"
    assert by_face("shell", "python") == "python"


def test_options_of_another_verb_are_refused() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Other:
        width: int = 1

    with pytest.raises(TypeError, match=r"verb\(\) takes options of Sizes, not Other"):
        with_keywords("verb", Sizes, Other(), {})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scheme": "dynamic", "method": "entropy"}, "method is for ranges, which dynamic has not"),
        ({"scheme": "weight-int4", "granularity": "shared"}, "granularity is for ranges"),
        ({"scheme": "weight-int8", "smoothing": False}, "smoothing is for ranges"),
        ({"scheme": "dynamic", "as_core": ["all"]}, "as_core is for ranges"),
        ({"ranges": "r.json", "method": "minmax"}, "method is what the ranges of ranges say, too"),
    ],
)
def test_options_of_ranges_are_refused_where_none_are_found(
    options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        QuantizeOptions(**options)
