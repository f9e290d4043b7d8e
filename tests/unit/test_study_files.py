"""Files of a pilot's folder that were damaged are one line, with what to do."""

from pathlib import Path

import pytest

from loopedge.errors import InputError
from loopedge.study.design import Cell
from loopedge.study.folder import DESIGN_FILE, open_folder
from loopedge.study.runs.cell import cell_path, read_cell

CELL = Cell(arm="looped", loops=2, seed=0)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"status": 1}', "[" * 5000])
def test_the_result_of_a_run(tmp_path: Path, text: str) -> None:
    path = cell_path(tmp_path, CELL)
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(InputError, match="the result of a run") as caught:
        read_cell(tmp_path, CELL)
    assert caught.value.hint is not None
    assert caught.value.hint.startswith(f"rm {path}")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"design": 1}'])
def test_the_design(tmp_path: Path, text: str) -> None:
    (tmp_path / DESIGN_FILE).write_text(text)
    with pytest.raises(InputError, match="the design of a pilot"):
        open_folder(tmp_path, {"design": {}}, resume=True, force=False)
