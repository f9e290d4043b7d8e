"""Files damaged at random, by a fixed seed: each command ends with its outputs, or with one line and nothing left.

``make fuzz`` goes on with other seeds for as long as one likes.
"""

import random
from pathlib import Path

import pytest

from tests.fuzz.outcomes import CASES, draw, judge
from tests.fuzz.seeds import make_seeds

SEED = 15
PARTS, FILES = 10, 52


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seeds")
    make_seeds(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_no_damage_is_unexpected(part: int, seeds: Path, tmp_path: Path) -> None:
    problems = []
    for number in range(FILES * part, FILES * (part + 1)):
        folder = tmp_path / str(number)
        folder.mkdir()
        case = draw(CASES, seeds, folder, random.Random(f"{SEED}.{number}"))
        problem = judge(case, folder)
        if problem is not None:
            problems.append(f"--replay {SEED}.{number}: {case}: {problem}")
    assert problems == []


@pytest.mark.slow
def test_the_sound_files_pass(seeds: Path, tmp_path: Path) -> None:
    """Else nothing would be fuzzed but the first check."""
    import shutil

    fine = 0
    for number, case in enumerate(case for case in CASES if case.file == "tiny.onnx"):
        folder = Path(shutil.copytree(seeds, tmp_path / str(number)))
        assert judge(case, folder) is None
        fine += any(path.stem == "out" for path in folder.iterdir())
    assert fine == 4  # run, convert, prepare and quantize
