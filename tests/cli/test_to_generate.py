"""``loopedge to-generate``: what it writes and says, and the files that no cache can be given to."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from loopedge.artifact.artifact import Artifact, write_artifact
from loopedge.artifact.companions import companion_contents, describe_companions
from loopedge.graph.metadata import ArtifactMetadata, LastPositions, Prepared, write_metadata
from tests.cli.test_bad_input import assert_refused
from tests.cli.test_docs import SECTIONS
from tests.fuzz.decoding import DecodingRunner, session_of, whole_logits
from tests.fuzz.language_models import write_language_model
from tests.fuzz.language_specs import LanguageSpec

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli

SPEC = LanguageSpec(known=True, rows=32, layers=2, kv_heads=1, mask="where", windows=(None, 4))


@pytest.fixture
def lm(tmp_path: Path) -> Path:
    """A causal language model, three loops of two layers, the second with a window."""
    return save(tmp_path / "lm.onnx")


def save(path: Path, spec: LanguageSpec = SPEC, **said: Any) -> Path:
    """Write a model, and what it shall say of itself besides."""
    proto = write_language_model(spec)
    if said:
        metadata = ArtifactMetadata(version="0", form="loop", loops=3, trained_loops=3, **said)
        properties: dict[str, str] = {}
        write_metadata(metadata, properties)
        onnx.helper.set_model_props(proto, properties)
    onnx.save(proto, path)
    return path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_file_stands_beside_the_model_and_says_what_it_is(cli: Cli, lm: Path) -> None:
    found = cli("to-generate", lm, "--json").json()
    target = lm.with_suffix(".generate.onnx")
    assert found["path"] == str(target)
    assert names(lm.parent) == {"lm.onnx", target.name}
    assert (found["form"], found["cache"], found["loops"], found["context"]) == (
        "scan",
        "per-loop",
        3,
        32,
    )
    assert [(slot["name"], slot["loops"], slot["window"]) for slot in found["slots"]] == [
        ("core.0", 3, None),
        ("core.1", 3, 4),
    ]
    assert found["cache_bytes_per_token"] == 2 * 3 * 2 * SPEC.head_size * 4
    assert found["max_rel_error"] < 1e-4
    keys = [*found, *found["slots"][0], *found["seconds"]]
    assert [key for key in keys if not re.search(rf"\b{key}\b", SECTIONS["to-generate"])] == []
    shown = cli("inspect", target, "--json").json()
    assert shown["form"] == "scan"


def test_it_decodes_what_the_model_computes_of_the_whole_text(cli: Cli, lm: Path) -> None:
    assert cli("to-generate", lm).code == 0
    target = lm.with_suffix(".generate.onnx")
    ids = np.random.default_rng(0).integers(0, 23, (1, 32))
    expected = whole_logits(session_of(str(lm)), ids)
    slots = Artifact.open(target).metadata.generate
    assert slots is not None
    runner = DecodingRunner(
        str(target),
        [(s.name, (s.loops or 1,), s.kv_heads, s.head_size) for s in slots.slots],
    )
    runner.start(1, 32, None)
    done = 0
    for size in (6, 1, 1, 9, 15):
        found = runner.run(ids[:, done : done + size], [done + size])
        done += size
        np.testing.assert_allclose(found, expected[:, done - 1], rtol=1e-3, atol=1e-4)


def test_quiet_prints_the_path_alone(cli: Cli, lm: Path) -> None:
    outcome = cli("to-generate", lm, "--quiet")
    assert (outcome.out, outcome.err) == (f"{lm.with_suffix('.generate.onnx')}\n", "")


def test_people_see_the_slots_and_the_cache(cli: Cli, lm: Path) -> None:
    shown = " ".join(cli("to-generate", lm).out.split())
    assert "core.0" in shown
    assert "per token" in shown


def test_a_target_that_is_there_is_kept_without_force(cli: Cli, lm: Path) -> None:
    target = lm.with_suffix(".generate.onnx")
    target.write_text("mine")
    assert_refused(cli("to-generate", lm), "exists")
    assert target.read_text() == "mine"
    assert cli("to-generate", lm, "--force").code == 0
    assert onnx.load(target).graph.node


def test_the_model_itself_is_no_target(cli: Cli, lm: Path) -> None:
    before = lm.read_bytes()
    assert_refused(cli("to-generate", lm, "-o", lm, "--force"), "lm.onnx")
    assert lm.read_bytes() == before


PREPARED = Prepared(onnxruntime="1.32", architecture="x", processor="y", features=[])

SAID: dict[str, tuple[dict[str, Any], str]] = {
    "exit": ({"exit": "tolerance=0.1"}, "in a form that no cache can be given to"),
    "last rows": ({"last_rows": LastPositions(axes={0: 1}, indices=[-1])}, "no cache"),
    "last logits": ({"logits": "last"}, "no cache"),
    "prepared": ({"prepared": PREPARED}, "prepare"),
}


@pytest.mark.parametrize("kind", SAID)
def test_forms_that_take_no_cache_are_refused(cli: Cli, tmp_path: Path, kind: str) -> None:
    said, words = SAID[kind]
    lm = save(tmp_path / "lm.onnx", **said)
    assert_refused(cli("to-generate", lm), words)
    assert names(tmp_path) == {"lm.onnx"}


def test_a_file_that_decodes_already_is_refused(cli: Cli, lm: Path) -> None:
    assert cli("to-generate", lm).code == 0
    target = lm.with_suffix(".generate.onnx")
    assert_refused(cli("to-generate", target), "decodes with a cache already")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (LanguageSpec(fault="bidirectional", mask="ranges"), "not causal"),
        (LanguageSpec(fault="alibi", mask="ranges"), "adds something to the scores"),
        (LanguageSpec(fault="documents", mask="ranges"), "depends on more than"),
        (LanguageSpec(fault="one over length"), "depends on the length of the whole text"),
    ],
    ids=lambda value: value.fault if isinstance(value, LanguageSpec) else "",
)
def test_what_is_not_causal_is_refused_by_its_node(
    cli: Cli, tmp_path: Path, spec: LanguageSpec, words: str
) -> None:
    outcome = cli("to-generate", save(tmp_path / "lm.onnx", spec))
    assert_refused(outcome, words)
    assert re.search(r"Attention\.\d+|Mul\.\d+", outcome.err)
    assert names(tmp_path) == {"lm.onnx"}


def test_a_core_that_mixes_positions_leaves_nothing_behind(cli: Cli, tmp_path: Path) -> None:
    lm = save(tmp_path / "lm.onnx", LanguageSpec(fault="token shift"))
    outcome = cli("to-generate", lm)
    assert_refused(outcome, "the generate file differs from", code=3)
    assert "a core that mixes positions" in outcome.err
    assert names(tmp_path) == {"lm.onnx"}


@pytest.mark.parametrize("kind", ["features", "fixed", "two", "flat", "image"])
def test_what_is_no_language_model_is_refused(cli: Cli, tmp_path: Path, kind: str) -> None:
    lm = tmp_path / "lm.onnx"
    onnx.save(other_model(kind), lm)
    words = {
        "features": "token ids (batch, sequence) are needed",
        "fixed": "has a fixed size",
        "two": "token ids (batch, sequence) are needed",
        "flat": "there is nothing to keep in a cache",
        "image": "token ids (batch, sequence) are needed",
    }
    assert_refused(cli("to-generate", lm), words[kind])
    assert names(tmp_path) == {"lm.onnx"}


def other_model(kind: str) -> onnx.ModelProto:
    """Return a model that is none of language, or one of fixed sizes."""
    model = write_language_model(SPEC)
    (ids,) = model.graph.input
    dims = ids.type.tensor_type.shape.dim
    if kind == "fixed":
        dims[1].dim_value = 16
    elif kind == "features":
        ids.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    elif kind == "image":
        dims.add().dim_value = 3
    elif kind == "two":
        more = model.graph.input.add()
        more.CopyFrom(ids)
        more.name = "other_ids"
    elif kind == "flat":
        nodes = [onnx.helper.make_node("Gather", ["table", "input_ids"], ["logits"])]
        table = onnx.numpy_helper.from_array(np.ones((23, 23), np.float32), "table")
        graph = onnx.helper.make_graph(
            nodes, "flat", list(model.graph.input), list(model.graph.output), [table]
        )
        opset = [onnx.helper.make_opsetid("", 23)]
        return onnx.helper.make_model(graph, opset_imports=opset, ir_version=11)
    return model


def test_an_ort_file_is_sent_back_to_the_onnx_one(cli: Cli, tiny: Path) -> None:
    assert cli("convert", tiny, "-o", tiny.with_suffix(".ort"), "--threads", 1).code == 0
    outcome = cli("to-generate", tiny.with_suffix(".ort"))
    assert_refused(outcome, "ORT format")
    assert f"hint: loopedge to-generate {tiny}" in outcome.err


@pytest.mark.parametrize(
    "words",
    [
        ("--form", "loop"),
        ("--cache", "none"),
        ("--cache-type", "int2"),
        ("--threads", 0),
        ("--cache", "last-loop", "--form", "scan"),
        ("--cache-type", "int8"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    cli: Cli, lm: Path, words: tuple[str | int, ...]
) -> None:
    outcome = cli("to-generate", lm, *words)
    assert outcome.code == 2, outcome.err
    assert outcome.out == ""
    assert names(lm.parent) == {"lm.onnx"}


def test_weights_beside_the_model_and_a_target_elsewhere(cli: Cli, tmp_path: Path) -> None:
    wide = LanguageSpec(known=True, rows=512, heads=8, kv_heads=8, head_size=32)
    (tmp_path / "source").mkdir()
    (tmp_path / "target").mkdir()
    lm = tmp_path / "source" / "lm.onnx"
    write_artifact(ir.from_proto(write_language_model(wide)), lm)
    source = names(lm.parent)
    assert len(source) == 2  # the weights have a file of their own
    target = tmp_path / "target" / "lm.onnx"
    found = cli("to-generate", lm, "-o", target, "--threads", 1, "--json").json()
    assert names(lm.parent) == source
    assert {file["path"].rpartition("/")[2] for file in found["files"]} == names(target.parent)
    assert cli("inspect", target, "--verify").code == 0
    assert_refused(cli("to-generate", lm, "-o", tmp_path / "none" / "lm.onnx"), "none")


@pytest.mark.parametrize("name", ["rows", "per-loop"])
def test_a_target_of_the_name_of_a_copy_that_is_checked(
    cli: Cli, tmp_path: Path, name: str
) -> None:
    wide = LanguageSpec(
        known=True, rows=64, heads=8, kv_heads=8, head_size=32, timestep=True, loops=2
    )
    (tmp_path / "source").mkdir()
    lm = tmp_path / "source" / "rows.onnx"
    write_artifact(ir.from_proto(write_language_model(wide)), lm)
    target = tmp_path / f"{name}.generate.onnx"
    words = ["--cache", "last-loop"] if name == "per-loop" else []
    if name == "per-loop":
        target = tmp_path / "per-loop.onnx"
    found = cli("to-generate", lm, "-o", target, "--threads", 1, "--json", *words).json()
    assert {file["path"].rpartition("/")[2] for file in found["files"]} == {
        path.name for path in tmp_path.iterdir() if path.is_file()
    }
    assert len(found["files"]) == 2
    assert cli("inspect", target, "--verify").code == 0


def test_a_tokenizer_goes_with_it(cli: Cli, tmp_path: Path) -> None:
    from loopedge.data.tokenizer import train_tokenizer

    texts = train_tokenizer(["the loop, the loop"], 260).companions()
    lm = tmp_path / "lm.onnx"
    described = describe_companions(texts, lm)
    model = ir.from_proto(onnx.load(save(lm, companions=described)))
    write_artifact(model, lm, force=True, companions=companion_contents(texts, lm))
    source = names(tmp_path)
    assert any("tokenizer" in name for name in source)
    (tmp_path / "there").mkdir()
    target = tmp_path / "there" / "other.onnx"
    assert cli("to-generate", lm, "-o", target).code == 0
    (copied,) = [name for name in names(target.parent) if "tokenizer" in name]
    assert json.loads((target.parent / copied).read_text())["version"] == "1.0"
    assert cli("inspect", target, "--verify").code == 0
