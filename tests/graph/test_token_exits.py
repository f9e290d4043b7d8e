"""Tokens that exit early while a text is decoded: what they compute, what they leave for later tokens, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import loopedge
from loopedge.artifact.artifact import Artifact
from loopedge.deployment.decoding.exit_check import compare_exits, never_done
from loopedge.errors import InputError, LoopedgeError, VerificationError
from loopedge.graph.decoding.cache.skipping import skip_done

if TYPE_CHECKING:
    from loopedge.graph.decoding.cache.skipping import ExitPolicy
    from loopedge.graph.metadata import Generation

pytestmark = pytest.mark.slow

TINY = Path(__file__).parents[1] / "fixtures" / "tiny.onnx"
LOOPS, CONTEXT, VOCABULARY = 3, 16, 48
TEXT = np.random.default_rng(0).integers(0, VOCABULARY, CONTEXT)
POLICIES: tuple[ExitPolicy, ...] = ("copy", "holes")
EXPORTED = 0.01
BODY = """
    rows = Unsqueeze(done, axes); kept = Where(rows, {before}, {after}); feature = Gather(kept, first, axis=2)
    last = Gather(feature, minus, axis=1); size = Abs(last); small = LessOrEqual(size, tolerance)
    done_next = Or(done, small); running = Not(done); one_more = Cast(running, to=7); count_next = Add(so_far, one_more)
    number = Cast(done_next, to=7); least = ReduceMin(number, keepdims=0); none = Cast(least, to=9)
    condition_next = Not(none)
"""


def nodes_of(text: str) -> list[onnx.NodeProto]:
    """Return nodes that are written as ``y = Op(a, b, attribute=1)``."""
    found = []
    for line in text.replace("\n", ";").split(";"):
        if line.strip():
            output, call = (part.strip() for part in line.split("=", 1))
            op, rest = call.rstrip(")").split("(")
            words = [word.strip() for word in rest.split(",")]
            attributes: dict[str, Any] = {
                word.split("=")[0]: int(word.split("=")[1]) for word in words if "=" in word
            }
            names = [word for word in words if "=" not in word]
            found.append(helper.make_node(op, names, [output], **attributes))
    return found


def write_with_exit(path: Path, exit: str, *, noise: bool = False) -> Path:
    """Write the tiny model with an exit: a row is done where a feature of its last position is small enough.

    With ``noise`` an input of that name is added to what the Loop starts from.
    """
    model = onnx.load(TINY)
    graph = model.graph
    (loop,) = [node for node in graph.node if node.op_type == "Loop"]
    body = next(each.g for each in loop.attribute if each.name == "body")
    value = helper.make_tensor_value_info
    body.node.extend(nodes_of(BODY.format(before=body.input[2].name, after=body.output[1].name)))
    body.input.extend(
        [value("done", TensorProto.BOOL, ["batch"]), value("so_far", TensorProto.INT64, ["batch"])]
    )
    state = body.output[1].type
    del body.output[:]
    body.output.extend(
        [
            value("condition_next", TensorProto.BOOL, []),
            helper.make_value_info("kept", state),
            value("done_next", TensorProto.BOOL, ["batch"]),
            value("count_next", TensorProto.INT64, ["batch"]),
        ]
    )
    place = list(graph.node).index(loop)
    size = helper.make_node("Shape", ["input_ids"], ["rows_there"], start=0, end=1)
    starts = [
        helper.make_node("ConstantOfShape", ["rows_there"], [name], value=held)
        for name, held in (
            ("none_done", helper.make_tensor("v", TensorProto.BOOL, [1], [0])),
            ("none_run", helper.make_tensor("v", TensorProto.INT64, [1], [0])),
        )
    ]
    for offset, node in enumerate((size, *starts)):
        graph.node.insert(place + offset, node)
    loop.input.extend(["none_done", "none_run"])
    loop.output.extend(["all_done", "iterations"])
    for name, array in (("axes", [1, 2]), ("first", 0), ("minus", -1)):
        graph.initializer.append(numpy_helper.from_array(np.array(array, np.int64), name))
    if exit == "halt":
        held = numpy_helper.from_array(np.array(EXPORTED, np.float32), "tolerance")
        graph.initializer.append(held)
    else:
        graph.input.append(value("tolerance", TensorProto.FLOAT, []))
    if noise:
        graph.input.append(value("noise", TensorProto.FLOAT, ["batch", "sequence", 32]))
        graph.node.insert(
            list(graph.node).index(loop),
            helper.make_node("Add", [loop.input[2], "noise"], ["noisy"]),
        )
        loop.input[2] = "noisy"
    graph.output.append(value("iterations", TensorProto.INT64, ["batch"]))
    kept = [each for each in model.metadata_props if each.key not in {"loopedge.checksum"}]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    added: dict[str, Any] = {
        "exit": exit,
        "task": {"name": "text", "tokenizer": "bytes", "vocab_size": VOCABULARY},
    }
    if noise:
        added["random_inputs"] = {"noise": 0.3}
    for name, said in added.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = f"loopedge.{name}", json.dumps(said)
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models with an exit by tolerance, by a halt of their own, and one that is never done."""
    folder = tmp_path_factory.mktemp("exits")
    found = {
        name: write_with_exit(folder / f"{name}.onnx", exit)
        for name, exit in (("tolerance", f"tolerance={EXPORTED}"), ("halt", "halt"))
    }
    return found | {
        "none": never_done(Artifact.open(found["tolerance"]), folder / "none.onnx").path
    }


def decode(path: Path, prompt: int = 3) -> tuple[np.ndarray, list[int]]:
    """Return the logits of each call of a text, a prompt and token by token, and the iterations."""
    generator = loopedge.Generator(path, threads=1)
    logits, counts = [generator.prefill(TEXT[:prompt])], []
    for place in range(-1, CONTEXT - prompt):
        if place >= 0:
            logits.append(generator.step(int(TEXT[prompt + place])))
        assert generator.iterations is not None
        counts.append(int(generator.iterations[0]))
    return np.concatenate(logits), counts


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", ["tolerance", "halt"])
def test_tokens_end_by_themselves_and_prompts_do_not(
    tmp_path: Path, sources: dict[str, Path], name: str, policy: ExitPolicy
) -> None:
    result = loopedge.to_generate(
        sources[name], tmp_path / "m.onnx", exit=policy, tolerance=None, threads=1
    )
    assert result.exit == policy
    _, counts = decode(tmp_path / "m.onnx")
    assert counts[0] == LOOPS
    assert min(counts) < LOOPS
    assert len(set(counts[1:])) > 1


@pytest.mark.parametrize("policy", POLICIES)
def test_an_exit_that_comes_last_changes_nothing(
    tmp_path: Path, sources: dict[str, Path], policy: ExitPolicy
) -> None:
    loopedge.to_generate(
        sources["tolerance"], tmp_path / "m.onnx", exit=policy, tolerance=0.0, threads=1
    )
    loopedge.to_generate(sources["none"], tmp_path / "plain.onnx", threads=1)
    found, counts = decode(tmp_path / "m.onnx")
    assert set(counts) == {LOOPS}
    generator = loopedge.Generator(tmp_path / "plain.onnx", threads=1)
    wanted = [generator.prefill(TEXT[:3]), *(generator.step(int(each)) for each in TEXT[3:])]
    assert np.abs(found - np.concatenate(wanted)).max() <= 1e-4 * np.abs(found).max()


def test_copies_and_holes_differ_for_later_tokens_alone(
    tmp_path: Path, sources: dict[str, Path]
) -> None:
    found = {}
    for policy in POLICIES:
        path = tmp_path / f"{policy}.onnx"
        loopedge.to_generate(sources["tolerance"], path, exit=policy, threads=1)
        found[policy] = decode(path)
    copy, holes = (found[policy][0] for policy in POLICIES)
    first = next(at for at, count in enumerate(found["copy"][1]) if count < LOOPS)
    assert np.allclose(copy[: first + 1], holes[: first + 1], rtol=1e-4, atol=1e-4)
    assert not np.allclose(copy[first + 1 :], holes[first + 1 :], rtol=1e-3, atol=1e-3)


def test_what_skipped_iterations_keep_is_verified(tmp_path: Path, sources: dict[str, Path]) -> None:
    """The reference of another policy refuses the file."""
    files: dict[str, tuple[Path, Generation]] = {}
    kinds: tuple[tuple[str, str, ExitPolicy | None], ...] = (
        ("holes", "tolerance", "holes"),
        ("plain", "none", None),
    )
    for name, source, policy in kinds:
        path = tmp_path / f"{name}.onnx"
        loopedge.to_generate(sources[source], path, exit=policy, threads=1)
        generation = Artifact.open(path).metadata.generate
        assert generation is not None
        files[name] = path, generation
    assert 1 <= compare_exits(files["plain"], files["holes"], "holes", noise={}, threads=1) < LOOPS
    with pytest.raises(VerificationError, match="differs from as many loops"):
        compare_exits(files["plain"], files["holes"], "copy", noise={}, threads=1)


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (3.0, r"ends after \d of 3 iterations, .* it goes on"),
        (0.3, r"runs \d iterations, .* it ends after"),
    ],
)
def test_when_a_token_ends_is_verified(
    tmp_path: Path,
    sources: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    factor: float,
    words: str,
) -> None:
    """A file whose threshold is another one computes at each token what so many loops give, and is refused."""

    def other(model: ir.Model, policy: ExitPolicy) -> None:
        skip_done(model, policy)
        held = model.graph.initializers["exit/tolerance"]
        assert held.const_value is not None
        held.const_value = ir.tensor(held.const_value.numpy() * np.float32(factor), name=held.name)

    monkeypatch.setattr("loopedge.deployment.decoding.generate_graph.skip_done", other)
    with pytest.raises(VerificationError, match=words):
        loopedge.to_generate(sources["tolerance"], tmp_path / "m.onnx", exit="copy", threads=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("policy", POLICIES)
def test_tokens_of_a_model_with_noise_end_by_themselves(tmp_path: Path, policy: ExitPolicy) -> None:
    source = write_with_exit(tmp_path / "noisy.onnx", f"tolerance={EXPORTED}", noise=True)
    result = loopedge.to_generate(
        source, tmp_path / "m.onnx", exit=policy, tolerance=0.15, threads=1
    )
    assert result.exit == policy
    found = []
    for seed in (1, 1, 2):
        generator = loopedge.Generator(tmp_path / "m.onnx", threads=1, seed=seed)
        logits = [generator.prefill(TEXT[:3])]
        counts = []
        for token in TEXT[3:]:
            logits.append(generator.step(int(token)))
            assert generator.iterations is not None
            counts.append(int(generator.iterations[0]))
        found.append((np.concatenate(logits), counts))
    (first, counts), (again, same), (other, _) = found
    assert min(counts) < LOOPS
    assert counts == same
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_evaluate_says_how_many_iterations_ran(tmp_path: Path, sources: dict[str, Path]) -> None:
    loopedge.to_generate(sources["tolerance"], tmp_path / "g.onnx", exit="copy", threads=1)
    text = tmp_path / "text.txt"
    text.write_bytes(bytes(range(1, VOCABULARY)) * 3)
    (each,) = loopedge.evaluate(tmp_path / "g.onnx", text, context=8, samples=2).evaluations
    assert each.mode == "cache"
    assert each.iterations is not None
    assert 1 <= each.iterations <= LOOPS


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        ("none", {"exit": "copy"}, "has no early exit"),
        ("none", {"tolerance": 0.1}, "is of an early exit"),
        ("tolerance", {}, "in a form that no cache can be given to"),
        ("tolerance", {"exit": "skip"}, "not known"),
        ("tolerance", {"exit": "copy", "tolerance": -1.0}, "finite and at least 0"),
        ("tolerance", {"exit": "copy", "form": "unrolled"}, "needs the form scan"),
        ("halt", {"exit": "copy", "tolerance": 0.1}, "ends by a halt of its own"),
        (
            "tolerance",
            {"exit": "copy", "cache_type": "int8", "data": {"input_ids": np.zeros((4, 4), int)}},
            "the cache holds floats",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(
    tmp_path: Path, sources: dict[str, Path], source: str, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        loopedge.to_generate(sources[source], tmp_path / "m.onnx", **options)
    assert list(tmp_path.iterdir()) == []


def test_several_texts_at_once_are_refused(tmp_path: Path, sources: dict[str, Path]) -> None:
    loopedge.to_generate(sources["tolerance"], tmp_path / "m.onnx", exit="copy", threads=1)
    with pytest.raises(LoopedgeError):
        loopedge.Generator(tmp_path / "m.onnx", batch=2, threads=1).prefill([[1], [2]])


def test_slots_are_as_without_an_exit(tmp_path: Path, sources: dict[str, Path]) -> None:
    result = loopedge.to_generate(sources["tolerance"], tmp_path / "m.onnx", exit="copy", threads=1)
    assert [slot.name for slot in result.slots] == ["core.0"]
    assert Artifact.open(tmp_path / "m.onnx").metadata.exit == f"tolerance={EXPORTED}"
