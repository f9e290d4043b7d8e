"""What a target chooses, and what wins over it."""

from pathlib import Path
from typing import Any

import pytest

import loopedge
from loopedge.errors import InputError
from loopedge.exporter.options import ExportOptions
from loopedge.exporter.targets import TARGETS, choose_settings
from loopedge.model.config import LoopedConfig
from loopedge.model.transformer import LoopedTransformer


def chosen(target: str | None, **named: Any) -> tuple[str, str, list[str]]:
    settings = choose_settings(ExportOptions(target=target, **named))  # type: ignore[arg-type]
    return settings.form, settings.memory, list(settings.notes)


def test_each_target_has_its_form() -> None:
    assert chosen("cpu") == ("loop", "balanced", [])
    assert chosen("cuda") == ("unrolled", "balanced", [])
    assert chosen(None) == chosen("cpu")
    assert set(TARGETS) == {"cpu", "cuda"}


def test_what_is_named_wins() -> None:
    assert chosen("cpu", form="unrolled", memory="low") == ("unrolled", "low", [])
    form, _, (note,) = chosen("cuda", form="loop")
    assert form == "loop"
    assert "cannot be captured as a CUDA graph" in note


@pytest.mark.parametrize(
    ("named", "need"),
    [
        ({"dynamic_loops": True}, "dynamic_loops=True"),
        ({"inner": "loop"}, 'inner="loop"'),
        ({"exit": "tolerance=1e-3"}, 'exit="tolerance=1e-3"'),
    ],
)
def test_what_only_a_loop_can_do_keeps_the_loop(named: dict[str, Any], need: str) -> None:
    form, _, (note,) = chosen("cuda", **named)
    assert form == "loop"
    assert f"the Loop is kept, which {need} needs" in note


def test_no_exit_needs_no_loop() -> None:
    assert chosen("cuda", exit="none")[0] == "unrolled"


@pytest.mark.parametrize(
    ("target", "named", "message"),
    [
        ("tpu", {}, "target 'tpu' is not known"),
        ("cpu", {"memory": "small"}, "memory profile 'small' is not known"),
        ("cuda", {"memory": "mapped"}, "packs weights for a CPU"),
        ("cuda", {"format": "ort"}, "ORT format is optimized for the CPU"),
    ],
)
def test_what_has_no_use_is_refused(target: str, named: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        chosen(target, **named)
    assert error.value.hint


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "form"), [("cpu", "loop"), ("cuda", "unrolled"), (None, "loop")]
)
def test_the_file_says_what_it_is_for(tmp_path: Path, target: Any, form: str) -> None:
    config = LoopedConfig(d_model=8, heads=2, loops=2, vocab_size=11, max_length=8)
    path = tmp_path / "m.onnx"
    result = loopedge.export(LoopedTransformer(config), path, target=target)
    assert (result.target, result.form) == (target, form)
    found = loopedge.inspect(path)
    assert found.form == form
    assert found.metadata.get("target") == target
