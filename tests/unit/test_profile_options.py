"""Options of a profile: one object or keywords, checked before any work."""

from typing import Any, get_type_hints

import pytest

import loopedge
from loopedge.errors import InputError, LoopedgeError
from loopedge.profiler import pipeline
from loopedge.profiler.options import ProfileKeywords, ProfileOptions
from loopedge.profiler.sweep import Configuration


def test_keywords_are_the_fields() -> None:
    assert get_type_hints(ProfileKeywords) == get_type_hints(ProfileOptions)


def test_sizes_make_every_combination() -> None:
    options = ProfileOptions(batch=[1, 4], loops=(2, 2, 8))
    assert options.points == [
        Configuration(batch=batch, sequence=None, loops=loops, threads=1)
        for batch in (1, 4)
        for loops in (2, 8)
    ]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"runs": 0}, "runs is 0, at least 1 is needed"),
        ({"processes": 0}, "processes is 0"),
        ({"seconds": 0.0}, "seconds is 0.0, a number above 0 is needed"),
        ({"batch": []}, "no size of batch was named"),
        ({"threads": [1, 0]}, "threads is 0"),
        ({"provider_options": {"": "1"}}, "provider_options has '': '1', texts are needed"),
        ({"input": "x.npz", "batch": [1, 2]}, "x.npz has one batch"),
        ({"cuda_graphs": True}, "needs a CUDA device"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_where_it_is_written(
    asked: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        ProfileOptions(**asked)


def test_keywords_win_over_the_object(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[ProfileOptions] = []

    def gather(models: Any, options: ProfileOptions, scratch: Any) -> Any:
        seen.append(options)
        raise LoopedgeError("enough")

    monkeypatch.setattr(pipeline, "gather_subjects", gather)
    given = ProfileOptions(untied=True, processes=2, seconds=12)
    with pytest.raises(LoopedgeError, match="enough"):
        loopedge.profile(["m.onnx"], options=given, processes=5)
    assert seen == [ProfileOptions(untied=True, processes=5, seconds=12)]
    assert seen[0].is_soak
    with pytest.raises(TypeError, match="treads"):
        loopedge.profile(["m.onnx"], treads=1)  # type: ignore[call-arg]
