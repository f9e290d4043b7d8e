"""Memory profiles: which one runs, what is refused, and the metadata read without the graph."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import loopedge.runtime.memory_profiles
from loopedge.artifact.properties import read_properties
from loopedge.errors import InputError
from loopedge.graph.metadata import FOREIGN, ArtifactMetadata, Prepared
from loopedge.runtime.memory_profiles import (
    ChosenProfile,
    check_profile,
    choose_profile,
    this_device,
)

TINY = Path(__file__).parents[1] / "fixtures" / "tiny.onnx"
DEVICE = Prepared(
    onnxruntime="1.32.0", architecture="x86_64", processor="Some Core", features=["avx2", "fma"]
)


@pytest.fixture(autouse=True)
def device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loopedge.runtime.memory_profiles, "this_device", lambda: DEVICE)


def metadata(**changes: Any) -> ArtifactMetadata:
    return ArtifactMetadata(version="0", form="loop", loops=3, trained_loops=3, **changes)


@pytest.mark.parametrize(
    ("asked", "stored", "runs"),
    [
        (None, "balanced", "balanced"),
        (None, "low", "low"),
        ("low", "balanced", "low"),
        ("balanced", "low", "balanced"),
        ("balanced", "mapped", "balanced"),
        ("low", "mapped", "low"),
    ],
)
def test_what_is_asked_overrides_what_is_stored(asked: str | None, stored: str, runs: str) -> None:
    stored_metadata = metadata(memory=stored)
    assert choose_profile(asked, stored_metadata, "m.onnx") == ChosenProfile(profile=runs)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "path", "provider", "runs"),
    [
        (None, "m.onnx", "CPUExecutionProvider", False),
        ("balanced", "m.onnx", "CPUExecutionProvider", True),
        (None, "m.ort", "CPUExecutionProvider", True),
        (None, "m.onnx", "CUDAExecutionProvider", True),
    ],
)
def test_optimizers_that_change_nothing_are_off_where_memory_is_short(
    asked: str | None, path: str, provider: str, runs: bool
) -> None:
    stored_metadata = metadata(memory="low", optimized=True)
    assert choose_profile(asked, stored_metadata, path, provider=provider).optimize == runs
    assert choose_profile(asked, metadata(memory="low"), path, provider=provider).optimize


def test_a_foreign_file_is_balanced() -> None:
    assert choose_profile(None, FOREIGN, "m.onnx").profile == "balanced"
    assert choose_profile("low", FOREIGN, "m.onnx").profile == "low"


def test_a_wish_runs_as_balanced_and_is_reported() -> None:
    chosen = choose_profile(None, metadata(memory="mapped"), "m.onnx")
    assert chosen.profile == "balanced"
    assert chosen.note is not None
    assert "loopedge prepare" in chosen.note


def test_mapped_cannot_be_asked_of_a_file_that_is_not_prepared() -> None:
    with pytest.raises(InputError, match="holds no packed weights") as caught:
        choose_profile("mapped", metadata(memory="low"), "m.onnx")
    assert caught.value.hint == "loopedge prepare m.onnx"


@pytest.mark.parametrize("asked", [None, "low", "mapped"])
def test_a_prepared_file_runs_on_its_device(asked: str | None) -> None:
    stored_metadata = metadata(memory="mapped", prepared=DEVICE)
    chosen = choose_profile(asked, stored_metadata, "m.prepared.onnx")
    assert (chosen.profile, chosen.note) == (asked or "mapped", None)


def test_a_prepared_file_is_not_balanced() -> None:
    stored_metadata = metadata(memory="mapped", prepared=DEVICE)
    with pytest.raises(InputError, match="balanced needs its source"):
        choose_profile("balanced", stored_metadata, "m.prepared.onnx")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"onnxruntime": "1.31.0"}, "with onnxruntime 1.31.0, this is onnxruntime 1.32.0"),
        ({"processor": "Other Core"}, "another processor: Other Core, here Some Core"),
        ({"architecture": "aarch64"}, "another processor: aarch64, here x86_64"),
        ({"features": ["avx2"]}, "instructions avx2, here avx2 fma"),
    ],
)
def test_another_device_is_refused_in_one_line(changed: dict[str, Any], words: str) -> None:
    stored_metadata = metadata(memory="mapped", prepared=DEVICE.model_copy(update=changed))
    for asked in (None, "low", "mapped"):
        with pytest.raises(InputError) as caught:
            choose_profile(asked, stored_metadata, "folder/m.prepared.onnx")
        assert words in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1
        assert str(caught.value.hint).startswith("loopedge prepare folder/m.onnx")


def test_a_prepared_file_is_for_the_cpu() -> None:
    stored_metadata = metadata(memory="mapped", prepared=DEVICE)
    with pytest.raises(InputError, match="prepared for the CPU"):
        choose_profile(None, stored_metadata, "m.prepared.onnx", provider="CUDAExecutionProvider")


def test_an_unknown_profile() -> None:
    with pytest.raises(InputError, match="allowed are balanced, low, mapped"):
        check_profile("lean")


def test_this_device_is_the_same_each_time() -> None:
    assert this_device() == this_device()
    assert this_device().processor


def test_properties_are_those_that_onnx_reads() -> None:
    model = onnx.load(TINY)
    assert read_properties(TINY) == {item.key: item.value for item in model.metadata_props}


@given(cut=st.integers(min_value=1, max_value=TINY.stat().st_size - 1))
def test_a_cut_file_is_reported_or_lacks_properties(
    cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "cut.onnx"
    path.write_bytes(TINY.read_bytes()[:cut])
    try:
        found = read_properties(path)
    except ValueError:
        return
    assert found.items() <= read_properties(TINY).items()


@given(garbage=st.binary(max_size=64))
def test_garbage_ends_in_a_value_error_at_most(
    garbage: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "garbage.onnx"
    path.write_bytes(garbage)
    with contextlib.suppress(ValueError):
        read_properties(path)


def test_the_graph_is_not_read(tmp_path: Path) -> None:
    """A graph of zeros cannot be parsed; the properties after it can be read."""
    path = tmp_path / "m.onnx"
    shutil.copy(TINY, path)
    entry = onnx.StringStringEntryProto(key="loopedge.form", value='"loop"').SerializeToString()
    graph = bytes(300)
    path.write_bytes(
        bytes([7 << 3 | 2, 300 & 0x7F | 0x80, 300 >> 7])
        + graph
        + bytes([14 << 3 | 2, len(entry)])
        + entry
    )
    assert read_properties(path) == {"loopedge.form": '"loop"'}
