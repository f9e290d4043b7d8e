"""The loader of bundles for Python: what it fills in, what it refuses, and that no damaged file passes."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest

from tests.unit.bundles import client, package, short_model, tiny

if TYPE_CHECKING:
    from pathlib import Path

WINDOW = np.arange(8, dtype=np.float32).reshape(1, 4, 2)


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("short")
    package(short_model(folder))
    return folder / "bundle"


@pytest.fixture(scope="module")
def dynamic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dynamic")
    package(tiny(folder, dynamic=True))
    return folder / "bundle"


def test_a_whole_window_is_taken_as_it_is(short: Path) -> None:
    found = client.load(short).run(WINDOW)
    np.testing.assert_array_equal(found["seen"], WINDOW)
    np.testing.assert_array_equal(found["kept"], [[1, 1, 1, 1]])
    np.testing.assert_array_equal(found["outputs"], [[[4], [6]]])  # the last two of the target


def test_a_short_window_is_padded_with_the_means_and_masked(short: Path) -> None:
    found = client.load(short).run(WINDOW[:, -3:])
    np.testing.assert_array_equal(found["seen"][0, 0], [7, 8])
    np.testing.assert_array_equal(found["seen"][:, 1:], WINDOW[:, -3:])
    np.testing.assert_array_equal(found["kept"], [[0, 1, 1, 1]])


def test_a_short_window_may_bring_its_mask(short: Path) -> None:
    mask = np.array([[0, 1, 1]])
    found = client.load(short).run({"inputs": WINDOW[:, -3:], "attention_mask": mask})
    np.testing.assert_array_equal(found["kept"], [[0, 0, 1, 1]])


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (WINDOW[:, -1:], "has 1 positions, 2 to 4 are allowed"),
        (np.zeros((1, 5, 2), np.float32), "has 5 positions, 2 to 4 are allowed"),
        (WINDOW[0], r"has shape \(4, 2\), \(batch, sequence, 2\) is needed"),
        (WINDOW[:, :, :1], r"has shape \(1, 4, 1\)"),
        (WINDOW[:0], r"has shape \(0, 4, 2\)"),
        (np.full((1, 4, 2), np.nan), r"holds nan at \(0, 0, 0\), finite numbers are needed"),
        (np.full((1, 4, 2), 1e300), r"holds inf at \(0, 0, 0\)"),
        (np.array([["a"]]), "is <U1, float32 is needed"),
        ({"windows": WINDOW}, "there is no input windows, the model takes inputs, attention_mask"),
        ({"attention_mask": np.ones((1, 4), int)}, "input inputs is missing"),
        ({"inputs": WINDOW, "attention_mask": np.full((1, 4), 2)}, "holds more than 0 and 1"),
        ({"inputs": WINDOW, "attention_mask": np.ones((1, 3), int)}, r"has shape \(1, 3\)"),
        (
            {"inputs": WINDOW, "attention_mask": np.array([[1, 1, 1, 0]])},
            "hides the last position",
        ),
        (
            {"inputs": WINDOW, "attention_mask": np.array([[0, 0, 0, 1]])},
            "a window has 1 positions, the model was trained on 2 at least",
        ),
    ],
)
def test_inputs_that_the_model_was_not_made_for_are_refused(
    short: Path, inputs: Any, words: str
) -> None:
    with pytest.raises(client.BundleError, match=words):
        client.load(short).run(inputs)


def test_a_missing_value_passes_where_it_means_one(tmp_path: Path) -> None:
    package(short_model(tmp_path, missing_values=True))
    window = WINDOW.copy()
    window[0, 1, 1] = np.nan
    found = client.load(tmp_path / "bundle").run(window)
    np.testing.assert_array_equal(found["seen"], window)
    window[0, 1, 1] = np.inf
    with pytest.raises(client.BundleError, match="holds inf"):
        client.load(tmp_path / "bundle").run(window)


def test_ids_outside_of_the_vocabulary_are_refused(dynamic: Path) -> None:
    bundle = client.load(dynamic)
    assert bundle.run(np.array([[0, 47]]))["logits"].shape == (1, 2, 48)
    for ids in ([[0, 48]], [[-1, 0]]):
        with pytest.raises(client.BundleError, match="0 to 47 are allowed"):
            bundle.run(np.array(ids))
    with pytest.raises(client.BundleError, match="is float64, int64 is needed"):
        bundle.run(np.array([[0.5]]))
    with pytest.raises(client.BundleError, match="has 17 positions, 1 to 16 are allowed"):
        bundle.run(np.zeros((1, 17), int))


def test_the_loop_count_is_filled_in_checked_and_warned_of(dynamic: Path) -> None:
    bundle, ids = client.load(dynamic), np.array([[1, 2, 3]])
    trained = bundle.run(ids)["logits"]
    np.testing.assert_array_equal(bundle.run(ids, loops=3)["logits"], trained)
    with pytest.warns(UserWarning, match="1 loops, the model was trained with 3"):
        fewer = bundle.run(ids, loops=1)["logits"]
    assert np.abs(fewer - trained).max() > 1e-3
    for loops in (0, 4):
        with pytest.raises(client.BundleError, match=f"loops is {loops}, 1 to 3 are allowed"):
            bundle.run(ids, loops=loops)
    with pytest.raises(client.BundleError, match="takes no tolerance"):
        bundle.run(ids, tolerance=0.1)


def test_a_form_that_fixes_the_loop_count_refuses_others(short: Path) -> None:
    bundle = client.load(short)
    bundle.run(WINDOW, loops=1)
    with pytest.raises(client.BundleError, match=r"loops is 2, models/short\.onnx runs 1 loops"):
        bundle.run(WINDOW, loops=2)


@pytest.mark.parametrize("verify", ["full", "size"])
def test_a_bundle_is_loaded_from_the_folder_of_its_loader(short: Path, verify: str) -> None:
    code = (
        "import loopedge_bundle, numpy; bundle = loopedge_bundle.load(verify='" + verify + "'); "
        "print(bundle.run(numpy.ones((1, 4, 2)))['outputs'].tolist())"
    )
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=short / "python", capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[[[1.0], [1.0]]]", done.stderr


def flip(path: Path) -> None:
    """Change the last byte of a file."""
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


@pytest.mark.slow
def test_a_byte_changed_in_any_file_is_refused_with_its_name(tmp_path: Path) -> None:
    package(tiny(tmp_path, dynamic=True), "web", "node", "c", "python")
    folder = tmp_path / "bundle"
    manifest = client.read_manifest(folder)
    listed = [file["path"] for file in manifest["files"]]
    assert len(listed) > 30
    for name in listed:
        flip(folder / name)
        with pytest.raises(client.BundleError, match=f"^{name} is damaged"):
            client.check_files(folder, manifest)
        flip(folder / name)
    client.check_files(folder, manifest)
    for name in [model["file"] for model in manifest["models"]]:
        identity = next(model["id"] for model in manifest["models"] if model["file"] == name)
        flip(folder / name)
        with pytest.raises(client.BundleError, match=f"^{name} is damaged"):
            client.load(folder, model=identity)
        flip(folder / name)


def test_a_byte_changed_in_the_manifest_is_refused(short: Path, tmp_path: Path) -> None:
    text = (short / "manifest.json").read_text(encoding="utf-8")
    for old, new in (('"short"', '"shirt"'), ("{", "["), ("checksum", "checksun")):
        (tmp_path / "manifest.json").write_text(text.replace(old, new, 1), encoding="utf-8")
        with pytest.raises(client.BundleError, match=r"manifest\.json"):
            client.read_manifest(tmp_path)


def test_data_of_another_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would load: names and sizes are the same."""
    monkeypatch.setattr("loopedge.packager.models.EXTERNAL_THRESHOLD_BYTES", 0)
    package(tiny(tmp_path))
    folder = tmp_path / "bundle"
    [data] = client.read_manifest(folder)["models"][0]["data"]
    stands = folder / data["file"]
    assert data["location"] == stands.name
    stands.write_bytes(bytes(stands.stat().st_size))
    with pytest.raises(client.BundleError, match=rf"^models/{stands.name} is damaged"):
        client.load(folder)
    bundle = client.load(folder, verify="size")
    assert bundle.run(np.array([[1]]))["logits"].shape == (1, 1, 48)


def test_sizes_and_absence_are_seen_without_checksums(short: Path, tmp_path: Path) -> None:
    manifest = client.read_manifest(short)
    with pytest.raises(client.BundleError, match=r"^README\.md is missing"):
        client.check_files(tmp_path, manifest, ["README.md"], verify="size")
    (tmp_path / "README.md").write_bytes(b"#")
    with pytest.raises(client.BundleError, match=r"^README\.md has 1 bytes"):
        client.check_files(tmp_path, manifest, ["README.md"], verify="size")


def test_a_newer_manifest_and_an_old_runtime_are_refused(
    short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = json.loads((short / "manifest.json").read_text(encoding="utf-8"))
    (tmp_path / "manifest.json").write_text(json.dumps(fields | {"schema_version": 2}))
    with pytest.raises(client.BundleError, match=r"has schema 2, this loader reads 1"):
        client.load(tmp_path)
    with pytest.raises(client.BundleError, match="is no bundle"):
        client.load(tmp_path / "nowhere")
    with pytest.raises(client.BundleError, match="full or size is needed"):
        client.load(short, verify="none")
    with pytest.raises(client.BundleError, match="no provider abacus, it has"):
        client.load(short, provider="abacus")
    with pytest.raises(client.BundleError, match="holds no model big, it holds"):
        client.load(short, model="big")
    monkeypatch.setattr(onnxruntime, "__version__", "1.16.3")
    with pytest.raises(client.BundleError, match=r"needs onnxruntime 1\.17, this is 1\.16\.3"):
        client.load(short)


@pytest.mark.slow
def test_the_programs_of_a_bundle_run(dynamic: Path) -> None:
    verified = program(dynamic, "verify.py")
    assert [json.loads(line)["passed"] for line in verified.stdout.splitlines()] == [True] * 5
    report = json.loads(program(dynamic, "bench.py", "--runs", "20").stdout)
    assert (report["client"], report["machine"]["loopedge"]) == ("python", "0.1.0")
    [run] = report["runs"]
    assert (run["path"], run["loops"], run["latency_ms"]["runs"]) == (
        "models/tiny_dynamic.onnx",
        3,
        20,
    )
    assert run["output_error"] < 1e-5
    assert "logits" in program(dynamic, "example.py").stdout


def program(bundle: Path, name: str, *words: str, code: int = 0) -> Any:
    done = subprocess.run(
        [sys.executable, bundle / "python" / name, *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done


@pytest.mark.slow
def test_verifying_fails_where_an_output_is_another_one(tmp_path: Path) -> None:
    """The vector is changed, and the checksums with it: the numbers alone tell."""
    from loopedge.packager.bundle import read_bundle
    from loopedge.packager.writing import listed_files, write_manifest

    package(tiny(tmp_path, dynamic=True))
    folder = tmp_path / "bundle"
    manifest = read_bundle(folder)
    file = folder / manifest.vectors[0].outputs[0].file
    logits = np.fromfile(file, "<f4")
    logits[np.abs(logits).argmax()] *= 1.001
    logits.tofile(file)
    write_manifest(manifest.model_copy(update={"files": listed_files(folder)}), folder)
    done = program(folder, "verify.py", code=1)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["passed"] for line in lines] == [False, True, True, True, True]
    assert 9e-4 < lines[0]["measured"] < 1.1e-3


def test_measures_are_those_of_the_manifest() -> None:
    expected, found = np.array([3.0, -4.0]), np.array([3.0, -4.5])
    assert client.measure("relative", [expected], [found]) == pytest.approx(0.5 / 4)
    assert client.measure("sqnr", [expected], [found]) == pytest.approx(10 * np.log10(25 / 0.25))
    assert client.measure("sqnr", [expected], [expected]) == 200
    assert client.measure("equal", [expected], [expected]) == 1
    assert client.measure("equal", [expected], [found]) == 0
    assert client.measure("relative", [expected], [found[:1]]) == float("inf")
    assert client.measure("sqnr", [expected], [found[:1]]) == float("-inf")
    assert client.passes("relative", 1e-6, 1e-5)
    assert not client.passes("relative", float("nan"), 1e-5)
    assert client.passes("sqnr", 40.0, 39.0)
    assert not client.passes("sqnr", 38.0, 39.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nan = np.array([np.nan])
        assert not client.passes("relative", client.measure("relative", [expected[:1]], [nan]), 1.0)
        assert not client.passes("sqnr", client.measure("sqnr", [expected[:1]], [nan]), 1.0)


class Assigned:
    """A session that has assigned nodes to providers, by their names in ONNX Runtime."""

    def __init__(self, **counts: int) -> None:
        self.parts = [
            SimpleNamespace(ep_name=name, get_nodes=lambda count=count: [None] * count)
            for name, count in counts.items()
        ]

    def get_provider_graph_assignment_info(self) -> list[SimpleNamespace]:
        """Return the parts of the graph, as a session does."""
        return self.parts


def test_a_provider_that_runs_no_node_is_refused() -> None:
    place = sys.modules["loopedge_session"].check_placement
    with pytest.raises(client.BundleError, match=r"runs none of the 7 nodes of m\.onnx"):
        place(Assigned(CPUExecutionProvider=7), "openvino", "m.onnx")
    with pytest.warns(UserWarning, match=r"2 of 9 nodes of m\.onnx run on openvino"):
        place(Assigned(CPUExecutionProvider=7, OpenVINOExecutionProvider=2), "openvino", "m.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        place(Assigned(OpenVINOExecutionProvider=2), "openvino", "m.onnx")
