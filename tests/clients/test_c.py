"""The client for C: compiled without a warning, it computes what the vectors say, and refuses what a model cannot take."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper

import loopedge
from loopedge.packager.manifest import CHECKSUM_ZEROS, MANIFEST_NAME, manifest_checksum
from tests.clients.c_programs import Programs, build, runtime_folder
from tests.clients.models import CONTEXT, LEAST, LONGEST
from tests.graph.generate_files import GenerateModel, write_generate_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Built = Callable[[str], Programs]

KINDS = ("forecast", "int8", "loops", "gaps", "labels", "text", "tokens", "large")
BENCH = {
    "name", "path", "runtime", "provider", "form", "quantization", "memory", "batch", "sequence", "loops", "threads",
    "processes", "file_bytes", "weight_bytes", "load_seconds", "baseline_bytes", "rss_load_bytes", "anon_bytes",
    "mapped_bytes", "uss_bytes", "rss_peak_bytes", "output_error", "latency_ms", "heap_bytes",
}  # fmt: skip


@pytest.fixture(scope="session")
def built(written_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Make the bundle of a kind of model for C, and its programs, when it is first asked for."""
    folder = tmp_path_factory.mktemp("c")
    known: dict[str, Programs] = {}

    def programs(kind: str) -> Programs:
        if kind not in known:
            bundle = folder / kind
            loopedge.package(written_model(kind), bundle, clients=("c",), threads=1)
            known[kind] = build(
                bundle, probe=True, programs=() if kind == "forecast" else ("verify",)
            )
        return known[kind]

    return programs


def manifest_of(bundle: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((bundle / MANIFEST_NAME).read_text())
    return content


def window(positions: int, columns: int = 1, dtype: type = np.float32) -> Any:
    generator = np.random.default_rng(5)
    return (20 + 3 * generator.normal(size=(1, positions, columns))).astype(dtype)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_is_verified_by_its_own_program(kind: str, built: Built) -> None:
    programs = built(kind)
    found = programs.verify()
    stated = manifest_of(programs.bundle)["vectors"]
    assert [one["vector"] for one in found] == [one["name"] for one in stated]
    for one, vector in zip(found, stated, strict=True):
        assert one["passed"], one
        assert one["check"] == vector["check"]["kind"]
        assert one["limit"] == pytest.approx(vector["check"]["limit"], rel=1e-6)
        assert one["measured"] is not None


def test_every_file_that_changed_by_a_byte_is_refused_by_its_name(
    built: Built, tmp_path: Path
) -> None:
    programs = built("forecast")
    listed = [file["path"] for file in manifest_of(programs.bundle)["files"]]
    assert "c/loopedge_model.h" in listed
    copy = tmp_path / "copy"
    shutil.copytree(programs.bundle, copy, ignore=shutil.ignore_patterns("build"))
    for name in (*listed, MANIFEST_NAME):
        path = copy / name
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        line = programs.refused("verify", copy)
        assert line.startswith(f"error: {name}: ") or name == MANIFEST_NAME, (name, line)
        path.write_bytes(content)
    assert programs.verify(copy)


def test_a_changed_digit_of_the_manifest_is_refused(built: Built, tmp_path: Path) -> None:
    programs = built("forecast")
    copy = tmp_path / "copy"
    shutil.copytree(programs.bundle, copy, ignore=shutil.ignore_patterns("build"))
    text = (copy / MANIFEST_NAME).read_text()
    assert '"horizon": 6' in text
    (copy / MANIFEST_NAME).write_text(text.replace('"horizon": 6', '"horizon": 7'))
    assert "manifest.json: its checksum is" in programs.refused("verify", copy)
    (copy / MANIFEST_NAME).unlink()
    assert "manifest.json: cannot be read" in programs.refused("verify", copy)


def test_a_manifest_of_a_newer_schema_is_refused(built: Built, tmp_path: Path) -> None:
    programs = built("forecast")
    copy = tmp_path / "copy"
    shutil.copytree(programs.bundle, copy, ignore=shutil.ignore_patterns("build"))
    text = (copy / MANIFEST_NAME).read_text()
    stated = json.loads(text)["checksum"]
    text = text.replace('"schema_version": 1', '"schema_version": 9', 1).replace(
        stated, CHECKSUM_ZEROS, 1
    )
    text = text.replace(CHECKSUM_ZEROS, manifest_checksum(text, CHECKSUM_ZEROS), 1)
    (copy / MANIFEST_NAME).write_text(text)
    assert "manifest.json: schema 9, this client reads 1" in programs.refused("verify", copy)


def test_a_program_refuses_the_bundle_of_another_model(built: Built) -> None:
    line = built("forecast").refused("verify", built("loops").bundle)
    assert "manifest.json: lists another" in line
    assert "loopedge_model.h" in line


def test_a_file_that_was_cut_is_refused_where_sizes_alone_are_compared(
    built: Built, tmp_path: Path
) -> None:
    programs = built("forecast")
    copy = tmp_path / "copy"
    shutil.copytree(programs.bundle, copy, ignore=shutil.ignore_patterns("build"))
    model = copy / manifest_of(copy)["models"][0]["file"]
    whole = model.read_bytes()
    model.write_bytes(whole[:-1])
    words = programs.words({"inputs": window(CONTEXT)}, tmp_path)
    line = programs.refused("probe", copy, "verify=size", *words[1:])
    name = manifest_of(copy)["models"][0]["file"]
    assert (
        line
        == f"{name}: {len(whole) - 1} bytes, the bundle was made with {len(whole)}: copy the file again"
    )


def test_outputs_are_those_of_a_session_in_python(
    built: Built, written_model: Callable[[str], Path], tmp_path: Path
) -> None:
    inputs = window(CONTEXT)
    expected = loopedge.Session(written_model("forecast"), threads=1).run({"inputs": inputs})
    found = built("forecast").outputs({"inputs": inputs}, tmp_path)
    assert found.keys() == expected.keys()
    scale = np.abs(expected["outputs"]).max()
    assert np.abs(found["outputs"] - expected["outputs"]).max() <= 1e-5 * scale


@pytest.mark.parametrize("positions", [LEAST, LEAST + 1, CONTEXT - 1, CONTEXT])
def test_a_short_window_is_padded_and_masked_as_in_python(
    positions: int, built: Built, written_model: Callable[[str], Path], tmp_path: Path
) -> None:
    inputs = window(positions, columns=2)
    inputs[0, 2, 1] = np.nan  # a missing value
    expected = loopedge.Session(written_model("gaps"), threads=1).run({"inputs": inputs})
    found = built("gaps").outputs({"inputs": inputs}, tmp_path)["outputs"]
    scale = np.abs(expected["outputs"]).max()
    assert np.abs(found - expected["outputs"]).max() <= 1e-5 * scale


def test_a_mask_of_ones_is_what_no_mask_is(built: Built, tmp_path: Path) -> None:
    inputs = window(LEAST + 2, columns=2)
    mask = np.ones((1, LEAST + 2), np.int64)
    without = built("gaps").outputs({"inputs": inputs}, tmp_path)["outputs"]
    found = built("gaps").outputs({"inputs": inputs, "attention_mask": mask}, tmp_path)["outputs"]
    np.testing.assert_array_equal(found, without)


def refusal(programs: Programs, arrays: dict[str, Any], work: Path, *options: str) -> str:
    return programs.refused("probe", *programs.words(arrays, work, *options))


def test_windows_that_training_never_saw_are_refused(built: Built, tmp_path: Path) -> None:
    forecast, gaps = built("forecast"), built("gaps")
    for positions in (CONTEXT - 1, CONTEXT + 1):
        line = refusal(forecast, {"inputs": window(positions)}, tmp_path)
        assert line == f"input inputs: {positions} positions, the model takes {CONTEXT}"
    line = refusal(gaps, {"inputs": window(LEAST - 1, columns=2)}, tmp_path)
    assert f"{LEAST - 1} table rows, the model was trained on at least {LEAST}" in line
    line = refusal(gaps, {"inputs": window(CONTEXT + 1, columns=2)}, tmp_path)
    assert line == f"input inputs: {CONTEXT + 1} positions, the model takes at most {CONTEXT}"
    mask = np.ones((1, CONTEXT), np.int64)
    mask[0, -1] = 0
    line = refusal(gaps, {"inputs": window(CONTEXT, columns=2), "attention_mask": mask}, tmp_path)
    assert "sample 1 masks its last position" in line
    mask[0, -1] = 2
    line = refusal(gaps, {"inputs": window(CONTEXT, columns=2), "attention_mask": mask}, tmp_path)
    assert f"sample 1, position {CONTEXT} is 2, a mask holds 1" in line
    line = refusal(
        gaps, {"inputs": window(CONTEXT, columns=2), "attention_mask": mask[:, :-1]}, tmp_path
    )
    assert f"1 x {CONTEXT - 1}, the positions that it masks are 1 x {CONTEXT}" in line


def test_numbers_that_are_none_are_refused_with_their_place(built: Built, tmp_path: Path) -> None:
    inputs = window(CONTEXT)
    inputs[0, 3, 0] = np.nan
    line = refusal(built("forecast"), {"inputs": inputs}, tmp_path)
    assert (
        line
        == "input inputs: sample 1, position 4, column 1 is NaN, the model takes finite numbers"
    )
    inputs = window(CONTEXT, columns=2)
    inputs[0, 7, 1] = np.inf
    line = refusal(built("gaps"), {"inputs": inputs}, tmp_path)
    assert (
        "sample 1, position 8, column 2 is infinite, the model takes finite numbers and NaN" in line
    )


def test_inputs_of_another_name_type_or_shape_are_refused(built: Built, tmp_path: Path) -> None:
    forecast = built("forecast")
    values = window(CONTEXT)
    line = refusal(forecast, {"input": values}, tmp_path)
    assert line == "no input input: the model takes inputs"
    assert refusal(forecast, {}, tmp_path) == "input inputs is missing: the model takes inputs"
    line = refusal(forecast, {"inputs": values.astype(np.float64)}, tmp_path)
    assert line == "input inputs: the type is float64, the model takes float32"
    line = refusal(forecast, {"inputs": window(CONTEXT, columns=2)}, tmp_path)
    assert line == "input inputs: axis 3 has size 2, the model takes 1"
    line = refusal(forecast, {"inputs": values[0]}, tmp_path)
    assert line == "input inputs: 2 axes, the model takes 3"
    ids = np.array([[1, 2, 64]], np.int64)
    line = refusal(built("large"), {"input_ids": ids}, tmp_path)
    assert line == "input input_ids: sample 1, position 3 is 64, the model takes ids from 0 to 63"


def test_loop_counts_are_held_to_those_of_the_model(
    built: Built, written_model: Callable[[str], Path], tmp_path: Path
) -> None:
    programs, inputs = built("loops"), window(CONTEXT)
    for loops in (0, 4):
        arrays = {"inputs": inputs, "loops": np.array(loops, np.int64)}
        assert refusal(programs, arrays, tmp_path) == f"loops: {loops}, the model runs 1 to 3"
    session = loopedge.Session(written_model("loops"), threads=1)
    expected = session.run({"inputs": inputs}, loops=3)["outputs"]
    arrays = {"inputs": inputs, "loops": np.array(3, np.int64)}
    for given in ({"inputs": inputs}, arrays):
        found = programs.outputs(given, tmp_path)["outputs"]
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    trained = manifest_of(programs.bundle)["loops"]["range"]
    if trained == [3, 3]:
        done = programs.run(
            "probe", *programs.words(arrays | {"loops": np.array(1, np.int64)}, tmp_path)
        )
        assert (done.returncode, done.stderr) == (
            0, "warning: loops: 1, the model was trained on 3 to 3\n",
        )  # fmt: skip


def test_a_form_that_is_not_there_is_refused(built: Built, tmp_path: Path) -> None:
    line = refusal(built("forecast"), {"inputs": window(CONTEXT)}, tmp_path, "form=other")
    assert line.startswith("form other: the bundle of forecast has none of this name, its own is ")


@pytest.mark.parametrize("loops", [0, 1, 2])
def test_a_text_goes_on_as_in_python(
    loops: int, built: Built, written_model: Callable[[str], Path]
) -> None:
    prompt = list(b"the loop")
    generator = loopedge.Generator(written_model("text"), threads=1, loops=loops or None)
    expected = [token.id for token in generator.stream(np.array(prompt), new_tokens=100)]
    assert 8 < len(expected) < 100  # the context ends it
    done = built("text").run("probe", built("text").bundle, "generate", 100, loops, *prompt)
    assert done.returncode == 0, done.stderr
    assert [int(word) for word in done.stdout.split()] == expected


def test_a_prompt_that_cannot_be_taken_is_refused(built: Built) -> None:
    text = built("text")
    context = manifest_of(text.bundle)["decoding"]["context"]
    line = text.refused("probe", text.bundle, "generate", 4, 0, *[65] * (context + 1))
    assert line == f"the prompt has {context + 1} tokens, the model takes at most {context}"
    line = text.refused("probe", text.bundle, "generate", 4, 0, 65, 1000)
    assert line.startswith("the prompt: token 2 is 1000, the model takes ids from 0 to ")
    assert text.refused("probe", text.bundle, "generate", 4, 0) == (
        "the prompt is empty, at least one token is needed"
    )
    assert (
        text.refused("probe", text.bundle, "generate", 4, 9, 65)
        == "loops: 9, the model runs 1 to 3"
    )


@pytest.mark.parametrize("cache", ["per-loop", "last-loop"])
def test_a_text_of_a_fixed_loop_count_runs_no_other(
    tmp_path: Path, cache: Literal["per-loop", "last-loop"]
) -> None:
    model = GenerateModel(form="unrolled", context=32, cache=cache)
    source = write_generate_file(model, tmp_path / "lm.generate.onnx")
    loopedge.package(source, tmp_path / "lm", clients=("c",))
    text = build(tmp_path / "lm", probe=True, programs=("verify",))
    generator = loopedge.Generator(source, threads=1)
    expected = [token.id for token in generator.stream(np.array([97, 98]), new_tokens=4)]
    if cache == "per-loop":
        assert expected == model.greedy([97, 98], 4)
    for loops in (0, 3):
        done = text.run("probe", text.bundle, "generate", 4, loops, 97, 98)
        assert [int(word) for word in done.stdout.split()] == expected, done.stderr
    line = text.refused("probe", text.bundle, "generate", 4, 5, 97, 98)
    assert line == "models/lm.generate.onnx runs 3 loops, 5 were asked for"


def test_numbers_may_be_any_where_the_file_says_nothing_of_them(tmp_path: Path) -> None:
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in "xy"]
    nodes = [helper.make_node("Neg", ["x"], ["y"])]
    model = helper.make_model(
        helper.make_graph(nodes, "g", ports[:1], ports[1:]),
        ir_version=8,
        opset_imports=[helper.make_opsetid("", 17)],
    )
    onnx.save(model, tmp_path / "m.onnx")
    loopedge.package(tmp_path / "m.onnx", tmp_path / "m", clients=("c",))
    programs = build(tmp_path / "m", probe=True, programs=("verify",))
    values = np.array([[np.nan, np.inf, 1]], np.float32)
    np.testing.assert_array_equal(programs.outputs({"x": values}, tmp_path)["y"], -values)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the switch is that of x86-64")
def test_denormals_are_zero_within_a_model_and_not_behind_it(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]>
        g (float[n] x) => (float[n] y) <float tiny = {1e-20}, float huge = {1e20}> {
          a = Mul (x, tiny) b = Mul (a, tiny) c = Mul (b, huge) d = Mul (c, huge) y = Add (x, d)
        }"""
    )
    onnx.save(model, tmp_path / "m.onnx")
    loopedge.package(tmp_path / "m.onnx", tmp_path / "m", clients=("c",))
    programs = build(tmp_path / "m", probe=True, programs=("verify",))
    ones = np.ones(3, np.float32)
    # 2 where b, which is 1e-40, is not zero; the probe fails where its own arithmetic was changed.
    np.testing.assert_array_equal(programs.outputs({"x": ones}, tmp_path)["y"], ones)


@pytest.mark.parametrize("words", [("--loops", "abc"), ("--runs", "2x"), ("--threads", "0")])
def test_bench_takes_whole_numbers(built: Built, words: tuple[str, str]) -> None:
    done = built("forecast").run("bench", built("forecast").bundle, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: bench [FOLDER]")


def test_a_model_without_a_cache_computes_the_whole_text_for_each_token(
    built: Built, written_model: Callable[[str], Path]
) -> None:
    session = loopedge.Session(written_model("lengths"), threads=1)
    ids = [5, 9, 33]
    for _ in range(6):
        logits = session.run({"input_ids": np.array([ids], np.int64)})["logits"]
        ids.append(int(logits[0, -1].argmax()))
    programs = built("lengths")
    done = programs.run("probe", programs.bundle, "generate", 6, 0, *ids[:3])
    assert done.returncode == 0, done.stderr
    assert [int(word) for word in done.stdout.split()] == ids[3:]
    assert LONGEST > 9


def test_the_report_of_a_device_holds_what_profile_prints(built: Built) -> None:
    done = built("forecast").run("bench", built("forecast").bundle, "--runs", 25)
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert report["schema_version"] == 3
    assert (report["client"], report["failures"], report["limits"]) == ("c", [], [])
    [run] = report["runs"]
    assert set(run) == BENCH
    stated = manifest_of(built("forecast").bundle)
    model = stated["models"][0]
    assert run["path"] == model["file"]
    sizes = {file["path"]: file["bytes"] for file in stated["files"]}
    assert run["file_bytes"] == sizes[model["file"]]
    assert run["latency_ms"]["runs"] == 25
    assert run["latency_ms"]["min"] <= run["latency_ms"]["p50"] <= run["latency_ms"]["p99"]
    assert (run["batch"], run["sequence"], run["loops"], run["threads"]) == (1, CONTEXT, 3, 1)
    assert run["output_error"] <= 1e-5
    assert report["machine"]["host"] is None


def test_another_library_is_linked_though_it_is_older(built: Built, tmp_path: Path) -> None:
    bundle = built("forecast").bundle
    library = next(runtime_folder().glob("libonnxruntime.so*"))
    other = tmp_path / "older"
    other.mkdir()
    os.utime(shutil.copyfile(library, other / "libonnxruntime.so.1"), (0, 0))
    for folder in (runtime_folder(), other):
        programs = build(bundle, name="relinked", runtime=folder, programs=("verify",))
        linked = (programs.folder / "lib" / "libonnxruntime.so").resolve()
        assert linked.parent == folder.resolve()
        assert programs.verify()


def test_the_example_prints_what_the_first_vector_says(built: Built) -> None:
    programs = built("forecast")
    done = programs.run("example", programs.bundle)
    assert (done.returncode, done.stderr) == (0, "")
    vector = manifest_of(programs.bundle)["vectors"][0]
    expected = np.fromfile(programs.bundle / vector["outputs"][0]["file"], np.float32)
    name, _, numbers = done.stdout.partition(":")
    assert name == "outputs"
    np.testing.assert_allclose([float(word) for word in numbers.split()], expected, rtol=1e-4)


def test_the_checksum_is_that_of_the_standard(built: Built) -> None:
    sizes = [0, 1, 3, 54, 55, 56, 57, 63, 64, 65, 119, 120, 127, 128, 1000, 65536]
    content = bytes(7 * i % 256 for i in range(1 << 16))
    expected = [hashlib.sha256(content[:size]).hexdigest() for size in sizes]
    done = built("forecast").run("probe", "-", "sha256", *sizes)
    assert done.stdout.split() == expected


def test_nothing_leaks_and_no_byte_is_read_beside_an_array(built: Built, tmp_path: Path) -> None:
    flags = "-O0 -g -fsanitize=address,undefined -fno-sanitize-recover=all"
    for kind, arrays in (("gaps", {"inputs": window(LEAST, columns=2)}), ("text", None)):
        programs = build(
            built(kind).bundle, probe=True, name="sanitized", flags=flags, programs=("verify",)
        )
        assert programs.run("verify", programs.bundle).stderr == ""
        if arrays is not None:
            programs.outputs(arrays, tmp_path)
            refusal(programs, {"inputs": window(LEAST - 1, columns=2)}, tmp_path)
        else:
            done = programs.run("probe", programs.bundle, "generate", 20, 2, *b"the")
            assert (done.returncode, done.stderr.count("ERROR")) == (0, 0)
