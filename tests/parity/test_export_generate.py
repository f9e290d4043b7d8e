"""``export --task generate``: a module becomes a file that decodes, and no Loop form is left beside it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import loopedge
from loopedge.errors import InputError
from loopedge.exporter.module.opening import default_target
from tests.cli.in_process import run_words

CONFIG = loopedge.LoopedConfig(
    d_model=32, heads=2, loops=2, vocab_size=40, max_length=16, causal=True, timestep="sinusoidal"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "lm.pt"
    module = loopedge.LoopedTransformer(CONFIG)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    loopedge.save(module, path)
    return path


@pytest.mark.slow
def test_a_module_decodes_what_it_computes(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "lm.generate.onnx"
    said = run_words(["export", model, "--task", "generate", "-o", target])
    assert said.code == 0, said.err
    assert not [file for file in tmp_path.iterdir() if not file.name.startswith(target.name)]
    ids = torch.arange(9)[None] % 40
    with torch.no_grad():
        expected = loopedge.load(model).eval()(ids).numpy()[0, 6:]
    generator = loopedge.Generator(target, threads=1)
    given = [generator.prefill(ids[0, :7].tolist()), generator.step(7), generator.step(8)]
    assert np.abs(np.concatenate(given) - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize(
    "options",
    [
        {"task": "generate", "format": "ort"},
        {"task": "generate", "logits": "last"},
        {"task": "generate", "exit": "tolerance=0.1"},
        {"task": "generate", "dynamic_loops": True},
        {"task": "generate", "last_rows": True},
        {"task": "translate"},
        {"weight_bits": 3},
        {"weight_bits": 8, "storage": "float16"},
        {"weight_bits": 8},
    ],
)
def test_options_that_do_not_go_together_are_refused(
    options: dict[str, Any], model: Path, tmp_path: Path
) -> None:
    suffix = options.get("format", "onnx")
    with pytest.raises(InputError):
        loopedge.export(model, tmp_path / f"lm.{suffix}", **options)
    assert list(tmp_path.iterdir()) == []


def test_the_default_target_says_what_the_file_is_for(tmp_path: Path) -> None:
    assert default_target("lm.pt", task="generate") == Path("lm.generate.onnx")
    assert default_target(tmp_path, task="generate") == tmp_path / "model.generate.onnx"
    assert default_target(tmp_path) == tmp_path / "model.onnx"
