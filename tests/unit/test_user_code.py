"""Whose line an error names: the user's, whatever room of the package called it."""

import sys
from pathlib import Path

import pytest

import loopedge
from loopedge.user_code import FOREIGN_CODE, reason_of

PACKAGE = Path(loopedge.__file__).parent


def error_behind(files: list[Path]) -> Exception:
    """Raise an error through functions that claim to stand in these files, the last innermost."""
    call = None
    for file in reversed(files):
        source = (
            "def step():\n    raise ValueError('no')\n"
            if call is None
            else "def step():\n    call()\n"
        )
        names: dict[str, object] = {"call": call}
        exec(compile(source, str(file), "exec"), names)
        call = names["step"]
    try:
        call()  # type: ignore[operator]
    except ValueError as error:
        error.__traceback__ = error.__traceback__.tb_next  # type: ignore[union-attr]
        return error
    raise AssertionError


@pytest.mark.parametrize("room", sorted(path.name for path in PACKAGE.iterdir() if path.is_dir()))
def test_lines_of_every_room_are_ours(room: str, tmp_path: Path) -> None:
    error = error_behind([tmp_path / "mine.py", PACKAGE / room / "module.py"])
    assert reason_of(error) == "ValueError: no (mine.py, line 2)"


def test_lines_of_a_module_beside_the_rooms_are_ours() -> None:
    assert reason_of(error_behind([PACKAGE / "files.py"])) == "ValueError: no"


def test_a_package_that_starts_with_our_name_is_not_ours() -> None:
    mine = PACKAGE.parent / "loopedge_mine" / "model.py"
    assert reason_of(error_behind([mine])) == "ValueError: no (model.py, line 2)"


def test_the_lines_of_torch_are_found_without_importing_it() -> None:
    folder = FOREIGN_CODE[0]
    assert folder == "<none>" or Path(folder).name == "torch"
    assert sys.modules.get("loopedge") is loopedge
