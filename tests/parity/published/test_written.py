"""Folders with small random checkpoints of Huginn, Dory and HRM-Text, exported as files that decode."""

from pathlib import Path

import pytest
import torch

import loopedge
from tests.parity.published.checkpoints import (
    CONFIGS,
    make_module,
    random_tensors,
    write_checkpoint,
)
from tests.parity.published.test_modules import tokens
from tests.parity.third_party import relative_error

pytestmark = pytest.mark.long

TOLERANCE = 1e-4


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_folder_becomes_a_file_that_decodes(kind: str, tmp_path: Path) -> None:
    config = CONFIGS[kind]
    folder = write_checkpoint(tmp_path / "folder", config, random_tensors(kind, config))
    path = tmp_path / "model.onnx"
    result = loopedge.export(folder, path, task="generate")
    assert result.verified
    module, ids = make_module(kind), tokens(13, batch=1)
    with torch.no_grad():
        expected = module(ids).numpy()
    generator = loopedge.Generator(path, threads=1)
    assert relative_error(generator.prefill(ids[0, :12].numpy()), expected[:, 11]) < TOLERANCE
    assert relative_error(generator.step(int(ids[0, 12])), expected[:, 12]) < TOLERANCE
