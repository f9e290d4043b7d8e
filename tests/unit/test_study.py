"""What a pilot compares: its options, its runs, and what is refused before the first of them."""

import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from loopedge.errors import InputError
from loopedge.study.design import Cell, make_design
from loopedge.study.options import ARMS, PilotKeywords, PilotOptions
from tests.unit.pilot_runs import MODEL, TASK, TRAIN, designed


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"arms": ["looped", "magic"]}, "arm 'magic' is not known"),
        ({"arms": ["looped", "looped"]}, "each must be named once"),
        ({"arms": []}, "arms none"),
        ({"arms": ["untied"]}, "there is no looped model to compare with"),
        ({"loops": [0, 1]}, "loops 0,1: different counts from 1"),
        ({"loops": [2, 2]}, "loops 2,2"),
        ({"seeds": 0}, "seeds is 0, at least 1 is needed"),
        ({"seeds": 400}, "the pilot has 3200 runs, at most 1000 are made"),
        ({"jobs": 0}, "jobs is 0, at least 1 is needed"),
        ({"model": {"d_model": 30, "heads": 4}}, "not a multiple of heads"),
        ({"train": {"lr": -1.0}}, "lr is -1"),
        ({"loops": range(1, 200)}, "at most 1000 are made"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_the_first_run(
    change: dict[str, Any], words: str
) -> None:
    options: dict[str, Any] = {"loops": [1, 2], "model": MODEL, "train": TRAIN}
    with pytest.raises(InputError, match=words):
        make_design(TASK, PilotOptions(**{**options, **change}))


def test_all_runs_share_everything_but_arm_loops_and_seed() -> None:
    design = designed(arms=["constant", "untied"], loops=[4, 2], seeds=2)
    assert [cell.name for cell in design.cells][:3] == [
        "constant-r2-s0",
        "constant-r4-s0",
        "untied-r4-s0",
    ]
    tied = design.model_config(TASK, Cell(arm="constant", loops=4, seed=1))
    assert (tied.timestep, tied.loops, tied.layers) == ("constant", 4, 1)
    untied = design.model_config(TASK, Cell(arm="untied", loops=4, seed=1))
    assert (untied.timestep, untied.loops, untied.layers) == ("none", 1, 4)
    assert design.train_config(Cell(arm="untied", loops=4, seed=7)).seed == 7


def test_more_seeds_than_printed_tables_have_are_designed() -> None:
    assert len(designed(arms=["looped"], loops=[1], seeds=100).cells) == 100


def test_keywords_of_a_pilot_are_its_options() -> None:
    assert get_type_hints(PilotKeywords) == get_type_hints(PilotOptions)


WITHOUT_SCIPY = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == "scipy":
            raise ModuleNotFoundError("No module named 'scipy'", name="scipy")

sys.meta_path.insert(0, Missing())
import loopedge

try:
    loopedge.pilot
except loopedge.errors.MissingExtraError as error:
    print(error.message, error.hint, sep="; ")
from loopedge_cli.app import run

sys.argv = ["loopedge", "pilot", "sorting"]
sys.exit(run())
"""


@pytest.mark.slow
def test_without_scipy_a_pilot_names_the_extra(tmp_path: Path) -> None:
    words = [sys.executable, "-c", WITHOUT_SCIPY]
    found = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (
        found.stdout
        == "loopedge.pilot needs the extra 'train'; in a clone of loopedge: pip install -c constraints.txt -e '.[train]'\n"
    )
    assert found.returncode == 2
    assert found.stderr == (
        "error: this command needs the extra 'train'\nhint: in a clone of loopedge: pip install -c constraints.txt -e '.[train]'\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_the_hint_of_an_unknown_arm_lists_the_arms() -> None:
    with pytest.raises(InputError) as caught:
        PilotOptions(arms=["magic"])
    assert caught.value.hint == f"arms={tuple(ARMS)}"
