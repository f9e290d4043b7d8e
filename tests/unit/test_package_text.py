"""`loopedge.package` of models that write text: the cached form, its tokenizer, logits and greedy completions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from loopedge.data.tokenizer import train_tokenizer
from loopedge.errors import InputError
from loopedge.packager.bundle import read_bundle
from tests.graph.generate_files import GenerateModel, write_generate_file
from tests.unit.bundles import array_of, client, package, tiny

if TYPE_CHECKING:
    from pathlib import Path

PROMPT = "The loop"


@pytest.fixture
def model() -> GenerateModel:
    """Whose likely bytes are letters: the others are made unlikely."""
    model = GenerateModel(context=64)
    model.weights["head"][:, :97] = model.weights["head"][:, 123:] = 0
    return model


@pytest.fixture
def lm(model: GenerateModel, tmp_path: Path) -> Path:
    return write_generate_file(model, tmp_path / "lm.generate.onnx")


def test_vectors_are_logits_and_a_completion(
    tmp_path: Path, model: GenerateModel, lm: Path
) -> None:
    package(lm, prompt=PROMPT, new_tokens=10)
    folder = tmp_path / "bundle"
    manifest = read_bundle(folder)
    assert (manifest.name, manifest.models[0].id) == ("lm", "generate")
    vectors = {vector.name: vector for vector in manifest.vectors}
    assert list(vectors) == ["logits", "logits, loops 1", "text"]
    ids = array_of(folder, vectors["logits"].inputs[0])
    assert array_of(folder, vectors["logits, loops 1"].inputs[1]) == 1
    assert [array_of(folder, v.outputs[0]).shape for v in vectors.values()] == [
        (1, 1, 256),
        (1, 1, 256),
        (1, 10),
    ]
    assert ids.shape == (1, 12)
    text = vectors["text"]
    assert array_of(folder, text.inputs[0]).tolist() == [list(PROMPT.encode())]
    expected = model.greedy(list(PROMPT.encode()), 10)
    assert array_of(folder, text.outputs[0]).tolist() == [expected]
    assert text.text == {"prompt": PROMPT, "completion": bytes(expected).decode()}
    assert (text.check.kind, text.measured) == ("equal", 1.0)


def test_the_manifest_describes_the_cache(tmp_path: Path, lm: Path) -> None:
    package(lm)
    manifest = read_bundle(tmp_path / "bundle")
    assert manifest.decoding is not None
    assert manifest.decoding.context == 64
    slots = {slot["name"]: slot for slot in manifest.decoding.slots}
    assert set(slots) == {"core.0.key", "core.0.value"}
    key = slots["core.0.key"]
    assert (key["past"], key["presents"]) == ("past.core.0.key", ["present.core.0.key"])
    assert (key["loops"], len(key["shape"])) == (3, 5)
    assert manifest.loops is not None
    assert (manifest.loops.dynamic, manifest.loops.most) == (True, 4)
    assert manifest.tokenizer is not None
    assert (manifest.tokenizer.kind, manifest.tokenizer.file) == ("bytes", None)
    roles = {port.role for port in manifest.inputs}
    assert roles == {"ids", "lengths", "past"}


def test_the_loader_writes_as_the_model_does(
    tmp_path: Path, model: GenerateModel, lm: Path
) -> None:
    package(lm)
    bundle = client.load(tmp_path / "bundle")
    prompt = list(PROMPT.encode())
    assert bundle.generate(PROMPT, new_tokens=20) == bytes(model.greedy(prompt, 20)).decode()
    fewer = bytes(model.greedy(prompt, 8, loops=2)).decode()
    with pytest.warns(UserWarning, match="2 loops"):
        assert bundle.generate(PROMPT, new_tokens=8, loops=2) == fewer
    full = bundle.generate("a" * 60, new_tokens=100)
    assert len(full) == 4  # the context is full
    with pytest.raises(client.BundleError, match="has 65 positions, 1 to 64 are allowed"):
        bundle.generate("a" * 65)
    with pytest.raises(client.BundleError, match="has shape"):
        bundle.generate("")
    with pytest.raises(client.BundleError, match="loops is 5, 1 to 4 are allowed"):
        bundle.generate(PROMPT, loops=5)


def test_end_ids_end_a_text(tmp_path: Path) -> None:
    model = GenerateModel(context=64)
    ids = model.greedy(list(PROMPT.encode()), 6)
    ending = GenerateModel(context=64, end_ids=(ids[3],))
    package(write_generate_file(ending, tmp_path / "lm.generate.onnx"), prompt=PROMPT)
    folder = tmp_path / "bundle"
    bundle = client.load(folder)
    wanted = ids[: ids.index(ids[3])]
    assert list(bundle.greedy(list(PROMPT.encode()), 20)) == wanted
    manifest = read_bundle(folder)
    assert manifest.tokenizer is not None
    assert manifest.tokenizer.end_ids == [ids[3]]


def test_a_tokenizer_travels_at_the_root(tmp_path: Path) -> None:
    tokenizer = train_tokenizer([f"{PROMPT} runs, and the loop ran " * 30], 300)
    task = {"name": "text", "vocab_size": 300, **tokenizer.describe()}
    model = GenerateModel(context=64, vocab=300, properties={"task": task})
    source = write_generate_file(
        model, tmp_path / "lm.generate.onnx", companions=tokenizer.companions()
    )
    package(source, prompt=PROMPT)
    folder = tmp_path / "bundle"
    written = (folder / "tokenizer.json").read_text(encoding="utf-8")
    assert written == tokenizer.companions()["tokenizer.json"]
    bundle = client.load(folder)
    found = bundle.generate(PROMPT, new_tokens=5)
    ids = tokenizer.encode(PROMPT).tolist()
    assert found == tokenizer.decode(model.greedy(ids, 5))
    (folder / "tokenizer.json").write_text(written.replace("a", "b", 1), encoding="utf-8")
    with pytest.raises(client.BundleError, match=r"^tokenizer\.json"):
        client.load(folder)


def test_a_completion_ends_where_two_tokens_are_nearly_equally_likely(tmp_path: Path) -> None:
    model = GenerateModel(context=64)
    first = model.greedy(list(PROMPT.encode()), 1)[0]
    twin = (first + 1) % 256
    model.weights["head"][:, twin] = model.weights["head"][:, first]
    source = write_generate_file(model, tmp_path / "lm.generate.onnx")
    result = package(source, prompt=PROMPT)
    assert [vector.name for vector in result.vectors] == ["logits", "logits, loops 1"]
    assert any("nearly equally likely" in note for note in result.notes)


def test_a_scan_is_refused_for_a_provider_without_one(tmp_path: Path, lm: Path) -> None:
    with pytest.raises(InputError, match="is one Scan: for a provider without one"):
        package(lm, "web", provider="webgpu")
    assert not (tmp_path / "bundle").exists()


def test_a_model_of_ids_that_is_no_text_has_no_cache(tmp_path: Path) -> None:
    package(tiny(tmp_path))
    manifest = read_bundle(tmp_path / "bundle")
    assert (manifest.decoding, manifest.tokenizer) == (None, None)
    bundle = client.load(tmp_path / "bundle")
    with pytest.raises(client.BundleError, match="writes no text"):
        bundle.generate("a")


def test_vectors_are_seeded(tmp_path: Path, lm: Path) -> None:
    package(lm, path=tmp_path / "one")
    package(lm, path=tmp_path / "two")
    for path in (tmp_path / "one" / "vectors").iterdir():
        np.testing.assert_array_equal(
            np.fromfile(path, np.uint8),
            np.fromfile(tmp_path / "two" / "vectors" / path.name, np.uint8),
        )
