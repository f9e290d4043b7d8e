"""A causal model from PyTorch: packaged with a cache, and judged by its float model where it is quantized."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

import loopedge
from loopedge.artifact.artifact import Artifact, write_artifact
from loopedge.graph.metadata import write_metadata
from loopedge.packager.bundle import read_bundle
from tests.unit.bundles import array_of, client, package

if TYPE_CHECKING:
    from pathlib import Path

TASK = {"name": "text", "tokenizer": "bytes", "vocab_size": 256}
PROMPT = list(b"The ")


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float model of bytes that says so, with random weights."""
    folder = tmp_path_factory.mktemp("lm")
    torch.manual_seed(3)
    config = loopedge.LoopedConfig(d_model=32, heads=2, loops=3, vocab_size=256, max_length=32)
    model = loopedge.LoopedTransformer(config).eval()
    with torch.no_grad():
        for value in model.parameters():
            if not value.any():
                value.normal_(0.0, 0.5)
    loopedge.export(model, folder / "plain.onnx")
    artifact = Artifact.open(folder / "plain.onnx")
    graph = artifact.fresh_graph()
    known = artifact.metadata.model_copy(update={"task": TASK, "checkpoint_sha256": "c" * 64})
    write_metadata(known, graph.metadata_props)
    write_artifact(graph, folder / "lm.onnx")
    (folder / "plain.onnx").unlink()
    return folder / "lm.onnx"


@pytest.mark.slow
def test_a_model_of_text_gets_a_cache(exact: Path, tmp_path: Path) -> None:
    result = package(exact, "c", "python", path=tmp_path / "bundle", new_tokens=6)
    assert {model.id: model.form for model in result.models} == {"generate": "scan"}
    folder = tmp_path / "bundle"
    text = next(vector for vector in read_bundle(folder).vectors if vector.text is not None)
    session = loopedge.Session(exact)
    ids = list(PROMPT)
    for token in array_of(folder, text.outputs[0])[0].tolist():
        logits = session.run({"input_ids": np.array([ids])})["logits"][0, -1]
        assert token == int(logits.argmax())
        ids.append(token)
    assert list(client.load(folder).greedy(PROMPT, len(ids) - 4)) == ids[4:]


@pytest.mark.slow
def test_a_quantized_one_is_judged_by_whole_texts_of_its_float_model(
    exact: Path, tmp_path: Path
) -> None:
    loopedge.quantize(exact, exact.with_name("q.onnx"), scheme="dynamic", force=True)
    result = package(exact.with_name("q.onnx"), path=tmp_path / "bundle")
    assert result.reference == str(exact)
    vectors = {vector.name: vector for vector in read_bundle(tmp_path / "bundle").vectors}
    assert "logits, loops 1" not in vectors  # the float model runs three alone
    logits = vectors["logits"]
    ids = array_of(tmp_path / "bundle", logits.inputs[0])
    wanted = loopedge.Session(exact).run({"input_ids": ids})["logits"][:, -1:]
    np.testing.assert_allclose(
        array_of(tmp_path / "bundle", logits.outputs[0]),
        wanted,
        rtol=0,
        atol=1e-5 * np.abs(wanted).max(),
    )
    assert (logits.check.kind, logits.check.limit) == ("sqnr", logits.measured - 1)
    assert logits.measured > 10


@pytest.mark.slow
def test_a_provider_without_loop_gets_the_cache_written_out(exact: Path, tmp_path: Path) -> None:
    result = package(exact, "web", path=tmp_path / "bundle", provider="webgpu")
    assert [(model.id, model.form) for model in result.models] == [("generate", "unrolled")]
    manifest = read_bundle(tmp_path / "bundle")
    assert manifest.loops is not None
    assert (manifest.loops.default, manifest.loops.dynamic) == (3, False)
    assert manifest.decoding is not None
    names = {slot["name"] for slot in manifest.decoding.slots}
    assert names == {f"core.{t}.0.{part}" for t in range(3) for part in ("key", "value")}
