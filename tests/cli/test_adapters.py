"""``loopedge export FOLDER``: models as another package saved them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.parity.third_party import make_albert

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli


@pytest.mark.slow
def test_a_saved_folder_is_exported_beside_its_weights(cli: Cli, tmp_path: Path) -> None:
    make_albert("AlbertForMaskedLM").save_pretrained(tmp_path / "albert")
    said = cli("export", tmp_path / "albert", "--json")
    assert said.code == 0
    assert said.err == ""
    assert said.json()["loops"] == 3
    shown = cli("inspect", tmp_path / "albert" / "model.onnx", "--json").json()
    assert (shown["form"], shown["loops"]) == ("loop", 3)


def test_a_model_without_an_adapter_is_refused_in_two_lines(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    said = cli("export", tmp_path)
    assert said.code == 2
    first, second = said.err.strip().splitlines()
    assert first.startswith("error: model_type 'bert'")
    assert "loopedge.LoopedModule" in second
    assert not (tmp_path / "model.onnx").exists()
