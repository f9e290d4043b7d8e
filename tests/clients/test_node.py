"""Bundles in Node: onnxruntime-node, and onnxruntime-web as WebAssembly; right values are computed in Python."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import loopedge
from loopedge.data.tables.timeline.frequency import parse_frequency
from loopedge.packager.manifest import CHECKSUM_ZEROS, MANIFEST_NAME, manifest_checksum
from tests.clients.models import CONTEXT, HORIZON, LONGEST, table_of
from tests.clients.node_process import ask_node, run_node
from tests.graph.generate_files import GenerateModel, write_generate_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Bundles = Callable[[str], Path]

RUNTIMES = ("onnxruntime-node", "onnxruntime-web")
KINDS = ("loops", "int8", "gaps", "labels", "text", "tokens", "large")
FLAT_BYTES = 2 * 2**20


def manifest_of(bundle: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((bundle / MANIFEST_NAME).read_text(encoding="utf-8"))
    return found


def rewrite(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a manifest and make its checksum right again."""
    manifest = manifest_of(bundle)
    change(manifest)
    text = json.dumps(manifest | {"checksum": CHECKSUM_ZEROS})
    checksum = manifest_checksum(text, CHECKSUM_ZEROS)
    (bundle / MANIFEST_NAME).write_text(text.replace(CHECKSUM_ZEROS, checksum, 1), encoding="utf-8")


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_test_vector_passes(
    kind: str, runtime: str, packaged: Bundles, node_packages: Path
) -> None:
    bundle = packaged(kind)
    done = run_node(node_packages, bundle / "node" / "verify.mjs", "--runtime", runtime)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    vectors = manifest_of(bundle)["vectors"]
    assert [line["vector"] for line in lines] == [vector["name"] for vector in vectors]
    assert all(line["passed"] for line in lines), done.stdout
    assert (done.returncode, done.stderr) == (0, "")
    for line, vector in zip(lines, vectors, strict=True):
        assert {"check": line["check"], "limit": line["limit"]} == {
            "check": vector["check"]["kind"], "limit": vector["check"]["limit"],
        }  # fmt: skip


def test_another_result_than_that_of_the_vector_fails(
    packaged: Bundles, node_packages: Path, tmp_path: Path
) -> None:
    import hashlib

    bundle = shutil.copytree(packaged("loops"), tmp_path / "bundle")
    path = manifest_of(bundle)["vectors"][1]["outputs"][0]["file"]
    values = np.fromfile(bundle / path, np.float32)
    (values * np.float32(1.0001)).tofile(bundle / path)
    sha256 = hashlib.sha256((bundle / path).read_bytes()).hexdigest()

    def change(manifest: dict[str, Any]) -> None:
        next(file for file in manifest["files"] if file["path"] == path)["sha256"] = sha256

    rewrite(bundle, change)
    done = run_node(node_packages, bundle / "node" / "verify.mjs")
    assert done.returncode == 1
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["passed"] for line in lines] == [True, False, True, True]
    assert 0.5e-4 < lines[1]["measured"] < 2e-4


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("kind", ["loops", "gaps"])
def test_a_forecast_is_that_of_python(
    kind: str, runtime: str, packaged: Bundles, written_model: Bundles, node_packages: Path
) -> None:
    model = written_model(kind)
    table = table_of(model.parent)
    expected = loopedge.forecast(model, table)
    cells = [line.split(",") for line in table.read_text(encoding="utf-8").splitlines()][1:]
    rows = [
        [float(cell) if cell else None for cell in (row[1], row[2])] for row in cells[-CONTEXT:]
    ]
    given = {
        "rows": rows if kind == "gaps" else [row[0] for row in rows],
        "last": cells[-1][0],
    }
    code = "answer(await (await open()).forecast(given.rows, { lastTime: given.last }));"
    found = ask_node(node_packages, packaged(kind), code, runtime=runtime, given=given)
    assert expected.values is not None
    assert found["times"] == list(expected.times[0])
    assert found["targets"] == list(expected.targets)
    np.testing.assert_allclose(found["values"], expected.values[0], rtol=1e-5)
    assert [interval["level"] for interval in found["intervals"]] == list(expected.intervals)
    for interval, (low, high) in zip(found["intervals"], expected.intervals.values(), strict=True):
        np.testing.assert_allclose(interval["low"], low[0], rtol=1e-5)
        np.testing.assert_allclose(interval["high"], high[0], rtol=1e-5)


def test_a_short_window_is_padded_and_masked_as_by_python(
    packaged: Bundles, written_model: Bundles, node_packages: Path
) -> None:
    rows = [[20.0 + place, 9.0 - place] for place in range(12)]
    session = loopedge.Session(written_model("gaps"), threads=1)
    expected = session.run({"inputs": np.array([rows], np.float32)})["outputs"]
    code = (
        "const { values, notes } = await (await open()).forecast(given); answer({ values, notes });"
    )
    found = ask_node(node_packages, packaged("gaps"), code, given=rows)
    np.testing.assert_allclose(found["values"], expected[0], rtol=1e-6)
    assert found["notes"] == [f"12 positions are padded on the left to the context of {CONTEXT}"]


def test_a_label_is_that_of_python(
    packaged: Bundles, written_model: Bundles, node_packages: Path
) -> None:
    model = written_model("labels")
    table = table_of(model.parent)
    expected = loopedge.forecast(model, table)
    assert expected.probabilities is not None
    cells = [line.split(",") for line in table.read_text(encoding="utf-8").splitlines()][1:]
    rows = [float(row[1]) for row in cells[-CONTEXT:]]
    found = ask_node(
        node_packages,
        packaged("labels"),
        "answer(await (await open()).forecast(given));",
        given=rows,
    )
    assert found["label"] == expected.labels[0]
    assert list(found["probabilities"]) == list(expected.classes)
    np.testing.assert_allclose(
        list(found["probabilities"].values()), expected.probabilities[0], rtol=1e-5
    )


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("loops", [1, 3])
def test_a_text_is_that_of_python(
    loops: int, runtime: str, packaged: Bundles, written_model: Bundles, node_packages: Path
) -> None:
    prompt = "line 7: the "
    generator = loopedge.Generator(written_model("text"), loops=loops, threads=1)
    ids = [
        token.id for token in generator.stream(list(prompt.encode()))
    ]  # to the end of the context
    code = """
    const model = await open();
    const shown = [];
    const found = await model.generate(given.prompt, { loops: given.loops, newTokens: 99, onText: (text) => shown.push(text) });
    answer({ ...found, shown: shown.length });
    """
    given = {"prompt": prompt, "loops": loops}
    found = ask_node(node_packages, packaged("text"), code, runtime=runtime, given=given)
    assert found["ids"] == ids
    assert len(ids) == 48 - len(prompt) + 1
    assert found["text"] == bytes(ids).decode(errors="replace")
    assert (found["ended"], found["shown"]) == ("context", len(ids))
    assert len(found["notes"]) == (loops == 1)


def test_special_tokens_are_read_as_in_python(packaged: Bundles, node_packages: Path) -> None:
    content = json.loads((packaged("tokens") / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = content["model"]["vocab"]
    mark = {"id": max(vocabulary.values()) + 1, "content": "<mark>", "special": True}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    content["added_tokens"].append(mark | flags)
    vocabulary["<mark>"] = mark["id"]
    code = """
    const { openTokenizer } = await from("javascript/tokenizer.mjs");
    const manifest = (await openBundle("BUNDLE")).manifest;
    const bundle = { manifest, bytes: async () => new TextEncoder().encode(JSON.stringify(given)) };
    const tokenizer = await openTokenizer(bundle, tokenizers);
    const ids = tokenizer.encode("the loop<mark> keeps");
    answer({ ids, text: tokenizer.decode(ids) });
    """.replace("BUNDLE", packaged("tokens").as_posix())
    found = ask_node(node_packages, packaged("tokens"), code, given=content)
    assert mark["id"] in found["ids"]
    assert found["text"] == "the loop<mark> keeps"


def test_numbers_may_be_any_where_the_file_says_nothing_of_them(
    tmp_path: Path, node_packages: Path
) -> None:
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in "xy"]
    nodes = [helper.make_node("Neg", ["x"], ["y"])]
    opsets = [helper.make_opsetid("", 17)]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:])
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=opsets), tmp_path / "m.onnx")
    loopedge.package(tmp_path / "m.onnx", tmp_path / "m", clients=("node",))
    code = """
    const { outputs } = await (await open()).run({ x: [[NaN, Infinity, 1]] });
    answer(Array.from(outputs.y.data, String));
    """
    assert ask_node(node_packages, tmp_path / "m", code) == ["NaN", "-Infinity", "-1"]


def test_a_text_goes_on_in_chunks(packaged: Bundles, node_packages: Path) -> None:
    code = """
    const generator = (await open()).generator();
    const whole = await generator.prefill(given);
    generator.reset();
    await generator.prefill(given.slice(0, 3));
    await generator.prefill(given.slice(3, 9));
    const parts = await generator.prefill(given.slice(9));
    const apart = Math.max(...whole.map((value, i) => Math.abs(value - parts[i])));
    answer({ apart, largest: Math.max(...whole.map(Math.abs)), length: generator.length });
    """
    found = ask_node(node_packages, packaged("text"), code, given=list(b"the loop is short"))
    assert found["apart"] <= 1e-5 * found["largest"]
    assert found["length"] == 17


def test_a_byte_changed_in_any_file_is_refused_with_its_name(
    packaged: Bundles, node_packages: Path, tmp_path: Path
) -> None:
    bundle = shutil.copytree(packaged("tokens"), tmp_path / "bundle")
    code = """
    const { readFileSync, writeFileSync } = await import("node:fs");
    const paths = [...(await openBundle(given)).manifest.files.map((file) => file.path), "manifest.json"];
    const refusals = {};
    for (const path of paths) {
      const whole = readFileSync(`${given}/${path}`);
      const changed = Buffer.from(whole);
      changed[changed.length >> 1] ^= 1;
      writeFileSync(`${given}/${path}`, changed);
      refusals[path] = [
        await refusal(async () => (await openBundle(given)).checkAll()),
        await refusal(async () => (await open()).tokenizer()),
      ];
      writeFileSync(`${given}/${path}`, whole);
    }
    answer({ refusals, after: await refusal(async () => (await openBundle(given)).checkAll()) });
    """
    found = ask_node(node_packages, bundle, code, given=str(bundle))
    manifest = manifest_of(bundle)
    assert len(found["refusals"]) == len(manifest["files"]) + 1
    used = {manifest["models"][0]["file"], "tokenizer.json", MANIFEST_NAME}
    assert used < set(found["refusals"])
    for path, (checked, loaded) in found["refusals"].items():
        assert checked is not None
        assert checked.startswith(f"{path} "), checked
        assert (loaded == checked) if path in used else (loaded is None), loaded
    assert found["after"] is None


def test_weights_of_another_model_under_this_name_are_refused(
    packaged: Bundles, node_packages: Path, tmp_path: Path
) -> None:
    bundle = shutil.copytree(packaged("large"), tmp_path / "bundle")
    [model] = [each for each in manifest_of(bundle)["models"] if each["form"] == "loop"]
    [data] = model["data"]
    path = bundle / data["file"]
    other = np.fromfile(path, np.float32)[::-1]  # as many bytes, other weights
    other.tofile(path)
    for runtime in RUNTIMES:
        code = 'answer([await refusal(open), await refusal(() => open({ verify: "size" }))]);'
        full, by_size = ask_node(node_packages, bundle, code, runtime=runtime)
        assert full.startswith(f"{data['file']} was changed"), full
        assert by_size is None
    path.write_bytes(path.read_bytes()[:-4])
    refused = ask_node(
        node_packages, bundle, 'answer(await refusal(() => open({ verify: "size" })));'
    )
    assert refused.startswith(f"{data['file']} has {path.stat().st_size} bytes, manifest.json says")


def test_a_bundle_that_cannot_be_used_is_refused_in_one_line(
    packaged: Bundles, node_packages: Path, tmp_path: Path
) -> None:
    bundle = shutil.copytree(packaged("loops"), tmp_path / "bundle")
    whole = (bundle / MANIFEST_NAME).read_text(encoding="utf-8")
    name = json.loads(whole)["models"][0]["file"]
    asked: list[tuple[str, dict[str, Any]]] = []

    def ask(change: Callable[[dict[str, Any]], Any], **options: Any) -> None:
        (bundle / MANIFEST_NAME).write_text(whole, encoding="utf-8")
        rewrite(bundle, change)
        asked.append(((bundle / MANIFEST_NAME).read_text(encoding="utf-8"), options))

    ask(lambda _: None)
    ask(lambda manifest: manifest.update(schema_version=2))
    ask(lambda manifest: manifest["clients"].pop("node"))
    ask(lambda manifest: manifest["models"][0].update(min_runtime="1.99"))
    ask(lambda manifest: manifest["files"][0].update(path="../outside"))
    ask(lambda manifest: manifest["models"][0].update(file="models/absent.onnx"))
    ask(lambda _: None, model="other")
    ask(lambda _: None, verify="none")
    ask(lambda _: None, provider="webgpu", model="loop")
    asked.append(("{", {}))
    code = f"""
    const {{ writeFileSync }} = await import("node:fs");
    const said = [];
    for (const [manifest, options] of given) {{
      writeFileSync("{bundle.as_posix()}/manifest.json", manifest);
      said.push(await refusal(() => open(options)));
    }}
    answer(said);
    """
    fine, *said = ask_node(node_packages, bundle, code, given=asked)
    assert fine is None
    expected = [
        "manifest.json has schema version 2, this loader reads 1; take the loader that came with the bundle",
        "the bundle is for web, this is onnxruntime-node; make one: loopedge package MODEL --for node",
        f"{name} needs ONNX Runtime 1.99, this is onnxruntime-node 1.",
        "../outside leaves the bundle; make the bundle again: loopedge package",
        "models/absent.onnx is not in the files of manifest.json",
        "the bundle has no model other; it has loop",
        'verify is "none", "full" or "size" is needed',
        f"WebGPU computes no Loop, and {name} is of the form loop",
        "manifest.json holds no JSON",
    ]
    for one, message in zip(said, expected, strict=True):
        assert one.startswith(message), one


ROWS = [float(place) for place in range(CONTEXT)]
REFUSED: dict[str, tuple[str, str, str]] = {
    "short": ("loops", "m.forecast([1, 2, 3])",
              f"input inputs has 3 positions, the model was trained on windows of {CONTEXT} table rows"),
    "long": ("loops", "m.forecast([...given, 1])", f"input inputs has {CONTEXT + 1} positions, the model takes {CONTEXT}"),
    "missing": ("loops", "m.forecast([null, ...given.slice(1)])",
                "input inputs: position 1, column 'sales' is NaN, the model takes finite numbers; fill missing values first"),
    "infinite": ("gaps", "m.forecast(given.map((v, i) => [v, i === 4 ? Infinity : 1]))",
                 "input inputs: position 5, column 'degrees' is Infinity, the model takes finite numbers and missing values"),
    "columns": ("gaps", "m.forecast(given)", "a table row has 1 values, the model takes sales, degrees"),
    "too few rows": ("gaps", "m.forecast(given.slice(0, 9).map((v) => [v, v]))",
                     "sample 1 has 9 positions, the model was trained on 10 table rows at least"),
    "mask": ("gaps", "m.run({ inputs: given.map((v) => [v, v]), attention_mask: given.map((v) => Number(v < 20)) })",
             "input attention_mask: sample 1 masks its last position, the model answers at that one"),
    "two in a mask": ("gaps", "m.run({ inputs: given.map((v) => [v, v]), attention_mask: given.map(() => 2) })",
                      "input attention_mask: position 1 is 2, a mask holds 1"),
    "unknown input": ("loops", "m.run({ input: given })", "there is no input input; the model takes inputs, loops"),
    "no input": ("loops", "m.run({})", "input inputs is missing; the model takes inputs, loops"),
    "rank": ("loops", "m.run({ inputs: [[[[1]]]] })", "input inputs has shape (1, 1, 1, 1), the model takes (batch, sequence, 1)"),
    "ragged": ("loops", "m.run({ inputs: [[1], [2, 3]] })", "input inputs: its rows differ in length"),
    "text for numbers": ("loops", "m.run({ inputs: ['1'] })", "input inputs holds \"1\", numbers are needed"),
    "fixed loops": ("gaps", "m.forecast(given.map((v) => [v, v]), { loops: 2 })", "runs 3 loops, 2 were asked for"),
    "no loops": ("loops", "m.forecast(given, { loops: 0 })", "loops is 0, a whole number of at least 1 is needed"),
    "half a loop": ("loops", "m.forecast(given, { loops: 1.5 })", "loops is 1.5, a whole number"),
    "too many loops": ("loops", "m.forecast(given, { loops: 4 })", "loops is 4, the model holds tables for 3"),
    "tolerance": ("loops", "m.forecast(given, { tolerance: 1 })", "the model ends its loop by no tolerance"),
    "id": ("large", "m.run({ input_ids: [1, 64] })", "input input_ids: position 2 is 64, the model takes ids from 0 to 63"),
    "fraction": ("large", "m.run({ input_ids: [1, 2.5] })", "input input_ids holds 2.5, whole numbers are needed"),
    "length": ("large", "m.run({ input_ids: Array(33).fill(1) })", "input input_ids has 33 positions, the model takes at most 32"),
    "no table": ("large", "m.forecast([1])", "the model was trained on no table"),
    "no cache": ("large", "m.generate('a')", "the bundle holds no model with a cache"),
    "arrays": ("text", "m.run({ input_ids: [1] })", "goes on from a cache; call model.generate"),
    "empty text": ("text", "m.generate('')", "the text is empty"),
    "long text": ("text", "m.generate('a'.repeat(49))", "the text has 49 tokens and the context is 48 positions"),
    "tokens": ("text", "m.generate('a', { newTokens: -1 })", "newTokens is -1"),
    "text loops": ("text", "m.generate('a', { loops: 4 })", "loops is 4, the model holds tables for 3"),
    "token id": ("text", "m.generator().prefill([1, 256])", "token 2 is 256, the model takes ids from 0 to 255"),
}  # fmt: skip


def test_bad_input_is_refused_in_one_line(packaged: Bundles, node_packages: Path) -> None:
    for kind in sorted({kind for kind, _, _ in REFUSED.values()}):
        calls = {name: call for name, (of, call, _) in REFUSED.items() if of == kind}
        asked = ", ".join(
            f"{json.dumps(name)}: await refusal(() => {call})" for name, call in calls.items()
        )
        found = ask_node(
            node_packages,
            packaged(kind),
            f"const m = await open(); answer({{ {asked} }});",
            given=ROWS,
        )
        for name in calls:
            said = found[name]
            assert said is not None, name
            assert REFUSED[name][2] in said, said
            assert "\n" not in said


def test_a_loop_count_that_training_did_not_see_is_noted(
    packaged: Bundles, node_packages: Path
) -> None:
    code = """
    const m = await open();
    const notes = [];
    for (const loops of [1, 2, 3, undefined]) notes.push((await m.forecast(given, { loops })).notes);
    answer(notes);
    """
    one = "1 loop asked for, the model was trained with 3"
    two = "2 loops asked for, the model was trained with 3"
    assert ask_node(node_packages, packaged("loops"), code, given=ROWS) == [[one], [two], [], []]


def test_outputs_and_inputs_of_64_bits_are_big_integers(
    packaged: Bundles, node_packages: Path
) -> None:
    code = """
    const m = await open();
    const forms = [[1, 2, 3], [[1n, 2n, 3n]], BigInt64Array.of(1n, 2n, 3n), Int32Array.of(1, 2, 3),
      { data: [1, 2, 3], dims: [1, 3] }];
    const sums = [];
    for (const ids of forms) sums.push((await m.run({ input_ids: ids })).outputs.logits.data.reduce((a, b) => a + b));
    answer(sums);
    """
    sums = ask_node(node_packages, packaged("large"), code)
    assert len(set(sums)) == 1


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_memory_is_flat_over_lengths_in_random_order(
    runtime: str, packaged: Bundles, node_packages: Path
) -> None:
    from tests.clients import node_process

    script = f"{node_process.__file__.rpartition('/')[0]}/node/lengths.mjs"
    done = run_node(node_packages, script, packaged("lengths"), runtime, "1")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["lengths"] == LONGEST
    assert found["grown"] <= FLAT_BYTES, found


def test_the_own_sha256_is_that_of_the_standard_and_of_the_browser(
    packaged: Bundles, node_packages: Path
) -> None:
    code = """
    const { sha256, sha256Plain } = await from("javascript/sha256.mjs");
    const text = (letters) => new TextEncoder().encode(letters);
    const known = [text(""), text("abc"), text("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"), text("a".repeat(1e6))];
    const same = [];
    for (let length = 0; length < 300; length++) {
      const bytes = Uint8Array.from({ length }, (_, i) => (i * 7919 + length * 31) % 256);
      same.push(sha256Plain(bytes) === (await sha256(bytes)));
    }
    answer({ known: known.map(sha256Plain), same, subtle: Boolean(globalThis.crypto?.subtle) });
    """
    found = ask_node(node_packages, packaged("loops"), code)
    assert found["known"] == [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
    ]  # FIPS 180-4, its examples
    assert found["subtle"]
    assert found["same"] == [True] * 300


def test_the_plain_sha256_is_used_where_the_browser_has_none(
    packaged: Bundles, node_packages: Path
) -> None:
    code = """
    Object.defineProperty(globalThis, "crypto", { value: undefined });
    answer(await refusal(open));
    """
    runtime = "onnxruntime-web"
    assert ask_node(node_packages, packaged("loops"), code, runtime=runtime) is None


STEPS = {
    "2024-01-31": ["D", "3D", "W", "B", "MS", "ME", "QE", "YS", "YE"],
    "2023-12": ["MS", "QS"],
    "2024-02-29 23:45": ["15min", "h", "6h", "D", "ME"],
    "2024-02-29T23:45:10": ["s", "min"],
}


def test_times_ahead_are_those_of_python(packaged: Bundles, node_packages: Path) -> None:
    from datetime import datetime

    asked = [(last, step) for last, steps in STEPS.items() for step in steps]
    code = """
    const { timesAhead } = await from("javascript/times.mjs");
    answer(given.map(([last, step]) => timesAhead(last, step, 4)));
    """
    found = ask_node(node_packages, packaged("loops"), code, given=asked)
    for (last, step), times in zip(asked, found, strict=True):
        full = f"{last}-01" if len(last) == 7 else last
        start = int(np.datetime64(full, "ns").astype(np.int64))
        ahead = parse_frequency(step).at(start, np.arange(1, 5))
        dates = [
            datetime.fromisoformat(str(np.datetime64(int(each), "s")))
            for each in np.asarray(ahead) // 10**9
        ]
        between = last[10:11]
        clock = {
            7: "%Y-%m",
            10: "%Y-%m-%d",
            16: f"%Y-%m-%d{between}%H:%M",
            19: f"%Y-%m-%d{between}%H:%M:%S",
        }
        assert times == [date.strftime(clock[len(last)]) for date in dates], (last, step)


def test_times_that_are_not_known_are_left_out(packaged: Bundles, node_packages: Path) -> None:
    code = """
    const { timesAhead } = await from("javascript/times.mjs");
    answer([timesAhead("31.01.2024", "D", 1), timesAhead("2024-01-31", "Mon-Sat", 1), timesAhead("2024-01-31", null, 1),
      timesAhead(undefined, "D", 1), timesAhead("7", "2", 2), timesAhead("7.5", "0.25", 2)]);
    """
    found = ask_node(node_packages, packaged("loops"), code)
    assert found == [None, None, None, None, ["9", "11"], ["7.75", "8.00"]]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_bench_writes_a_report(
    runtime: str, packaged: Bundles, node_packages: Path, tmp_path: Path
) -> None:
    bundle = packaged("loops")
    program = bundle / "node" / "bench.mjs"
    done = run_node(node_packages, program, "--runs", "20", "--loops", "1,3", "--runtime", runtime)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    model = manifest_of(bundle)["models"][0]
    stated = {file["path"]: file["bytes"] for file in manifest_of(bundle)["files"]}
    assert report["client"] == ("web" if runtime.endswith("web") else "node")
    assert [run["loops"] for run in report["runs"]] == [1, 3]
    for run in report["runs"]:
        assert run["path"] == model["file"]
        assert run["file_bytes"] == stated[model["file"]]
        assert (run["batch"], run["sequence"], run["provider"]) == (
            1,
            CONTEXT,
            "CPUExecutionProvider",
        )
        assert run["latency_ms"]["runs"] == 20
        assert 0 < run["latency_ms"]["min"] <= run["latency_ms"]["p50"] <= run["latency_ms"]["p99"]
        assert (run["heap_bytes"] is None) == runtime.endswith("node")
    assert report["runs"][0]["output_error"] is None  # the vector is of three loops
    assert report["runs"][1]["output_error"] < 1e-5
    path = tmp_path / "report.json"
    path.write_text(done.stdout, encoding="utf-8")
    assert len(loopedge.compare(path, path).runs) == 2


@pytest.mark.parametrize(
    ("program", "words", "said"),
    [
        ("verify", ["a", "b"], "one folder is taken, 2 are named; known are FOLDER, --runtime, --provider, --model"),
        ("verify", ["--bogus"], "Unknown option '--bogus'; known are FOLDER, --runtime"),
        ("bench", ["--runs"], "; known are FOLDER, --runtime, --provider, --model, --runs, --loops, --threads"),
        ("bench", ["--runs", "-5"], "argument is ambiguous; known are FOLDER"),
        ("bench", ["--bundle", "a", "b"], "one folder is taken, 2 are named"),
        ("bench", ["--runs", "2.5"], "--runs and --threads take whole numbers of at least 1"),
        ("verify", ["nowhere"], "nowhere is no bundle: it holds no manifest.json"),
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_one_line(
    packaged: Bundles, node_packages: Path, program: str, words: list[str], said: str
) -> None:
    done = run_node(node_packages, packaged("forecast") / "node" / f"{program}.mjs", *words)
    assert done.returncode == (2 if "known are" in done.stderr else 1)
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert said in line


def test_a_text_of_the_last_loops_cache_is_verified(node_packages: Path, tmp_path: Path) -> None:
    model = GenerateModel(form="unrolled", context=32, cache="last-loop")
    source = write_generate_file(model, tmp_path / "lm.generate.onnx")
    loopedge.package(source, tmp_path / "lm", clients=("node",))
    done = run_node(node_packages, tmp_path / "lm" / "node" / "verify.mjs", tmp_path / "lm")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["passed"] for line in lines] == [True, True], done.stderr
    assert done.returncode == 0


def test_the_example_prints_a_forecast(packaged: Bundles, node_packages: Path) -> None:
    bundle = packaged("loops")
    done = run_node(node_packages, bundle / "node" / "example.mjs")
    assert (done.returncode, done.stderr) == (0, "")
    first, _, rest = done.stdout.partition("\n")
    assert first == f"columns: sales; table rows: {CONTEXT}"
    assert len(json.loads(rest)["values"]) == HORIZON


def test_the_types_fit_what_programs_write(packaged: Bundles, node_packages: Path) -> None:
    from pathlib import Path

    source = (Path(__file__).parent / "node" / "types.mts").read_text(encoding="utf-8")
    folder = node_packages.parent / "types"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(packaged("loops") / "javascript", folder / "javascript")
    (folder / "types.mts").write_text(source, encoding="utf-8")
    options = [
        "--noEmit",
        "--strict",
        "--skipLibCheck",
        "--target",
        "es2022",
        "--module",
        "nodenext",
    ]
    done = run_node(
        node_packages, node_packages / "typescript" / "bin" / "tsc", *options, folder / "types.mts"
    )
    assert done.returncode == 0, done.stdout
