"""No command writes over what it reads, ``--force`` or not, and no output over another one."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import loopedge
from loopedge.errors import InputError

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

HASH = "0123456789abcdef"
STEPS = ("--steps", 1, "--d-model", 8, "--heads", 2, "--loops", 1)
WINDOW = ("--target", "y", "--context", 4, "--horizon", 1)


@pytest.fixture
def here(
    tmp_path: Path, tiny: Path, external: Path, ids: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder with a model, one with its data apart, samples, and links; it is the current one."""
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.arange(12).reshape(2, 6))
    os.link("x.npz", "hard.npz")
    Path("soft.npz").symlink_to("x.npz")
    Path("r.json").write_text("{}")
    Path("d.csv").write_text("y\n" + "".join(f"{row % 7}\n" for row in range(60)))
    Path("t.txt").write_text("the loop " * 40)
    Path("p.jsonl").write_text(json.dumps({"input": "a", "output": "b"}) + "\n")
    shutil.copy("tiny.onnx", "other.onnx")
    # What an artifact names is found by reading it, not by its own name.
    shutil.copy("external.onnx", "renamed.onnx")
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


TORCH_FREE = [
    "profile tiny.onnx --html tiny.onnx",
    "profile tiny.onnx --against other.onnx --html other.onnx",
    "profile renamed.onnx --html external.onnx.data",
    "profile tiny.onnx --input x.npz --html x.npz",
    "profile tiny.onnx --input soft.npz --html x.npz",
    "run tiny.onnx -i x.npz -o x.npz",
    "run tiny.onnx -i x.npy -o x.npy",
    "run tiny.onnx -i x.npz -o hard.npz",
    "run tiny.onnx -i x.npz -o soft.npz",
    "quantize tiny.onnx -o tiny.onnx",
    "quantize renamed.onnx -o external.onnx",
    "quantize renamed.onnx -o external.onnx.data",
    "quantize tiny.onnx --data x.npz -o q.onnx --save-ranges x.npz",
    "quantize tiny.onnx --data x.npz -o x.npz",
    "quantize tiny.onnx --data . -o q.onnx --save-ranges x.npz",
    "quantize tiny.onnx --data x.npz -o q.onnx --save-ranges tiny.onnx",
    "quantize tiny.onnx --data x.npz -o q.onnx --save-ranges q.onnx",
    "quantize tiny.onnx --data x.npz -o q.onnx --save-ranges q.onnx.data",
    f"quantize tiny.onnx --data x.npz -o q.onnx --save-ranges q.onnx.{HASH}.data",
    "quantize tiny.onnx --ranges-file r.json -o r.json",
    "quantize tiny.onnx --ranges-file r.json -o q.onnx --save-ranges r.json",
    "quantize renamed.onnx --data x.npz -o q.onnx --save-ranges external.onnx.data",
    "convert renamed.onnx -o renamed.onnx",
    "reroll tiny.onnx -o tiny.onnx",
    "reroll renamed.onnx -o external.onnx",
    "reroll renamed.onnx -o external.onnx.data",
    "prepare tiny.onnx -o tiny.onnx",
    "prepare renamed.onnx -o external.onnx",
    "prepare renamed.onnx -o external.onnx.data",
    "unroll tiny.onnx -o tiny.onnx",
    "unroll renamed.onnx -o external.onnx",
    "unroll renamed.onnx -o external.onnx.data",
]


@pytest.mark.parametrize("words", TORCH_FREE)
def test_an_output_that_is_an_input_or_another_output(cli: Cli, here: Path, words: str) -> None:
    before = contents(here)
    outcome = cli(*words.split(), "--force")
    assert outcome.code == 2, outcome.err
    assert "is also a file of" in outcome.err
    assert "which it would replace" in outcome.err
    assert outcome.err.splitlines()[1].startswith("hint: name another file with --")
    assert contents(here) == before


def test_data_that_the_target_is_named_for_counts_as_read(cli: Cli, here: Path) -> None:
    """Weights under a name of their content, of the artifact that would be written."""
    import onnx_ir as ir

    ir.save(
        ir.load("tiny.onnx"), "a.onnx", external_data=f"q.onnx.{HASH}.data", size_threshold_bytes=1
    )
    before = contents(here)
    for words in (("quantize", "a.onnx", "-o", "q.onnx"), ("prepare", "a.onnx", "-o", "q.onnx")):
        outcome = cli(*words, "--force")
        assert (outcome.code, f"q.onnx.{HASH}.data is also a file of MODEL" in outcome.err) == (
            2,
            True,
        )
    assert contents(here) == before


def test_the_operators_beside_an_ort_file_are_no_model(cli: Cli, here: Path) -> None:
    shutil.copy("tiny.onnx", "m.required_operators.config")
    before = contents(here)
    outcome = cli("convert", "m.required_operators.config", "-o", "m.ort", "--force")
    assert (outcome.code, "is also a file of MODEL" in outcome.err) == (2, True)
    assert contents(here) == before


def test_the_verbs_of_python_check_the_same(here: Path) -> None:
    before = contents(here)
    for call in (
        lambda: loopedge.quantize("tiny.onnx", "tiny.onnx", force=True),
        lambda: loopedge.quantize("renamed.onnx", "external.onnx", force=True),
        lambda: loopedge.quantize("tiny.onnx", "r.json", ranges="r.json", force=True),
        lambda: loopedge.convert("tiny.onnx", "tiny.onnx", force=True),
        lambda: loopedge.prepare("renamed.onnx", "external.onnx", force=True),
        lambda: loopedge.unroll("renamed.onnx", "external.onnx", force=True),
    ):
        with pytest.raises(InputError, match="which it would replace"):
            call()
    assert contents(here) == before


TRAINED = [
    ("series d.csv -o d.csv", WINDOW),
    ("series d.csv -o d.csv --resume", WINDOW),
    ("series d.csv -o d.csv --origins 2", WINDOW),
    ("text t.txt -o t.txt", ("--context", 4)),
    ("text . -o t.txt", ("--context", 4)),
    ("text t.txt --tokenizer tok.best.pt -o tok.pt", ("--context", 4)),
    ("text t.txt --validation v.txt --test t.txt -o v.txt", ("--context", 4)),
    ("sorting --teacher m.pt -o m.pt", ()),
    ("sorting --teacher m.last.pt -o m.pt", ()),
    ("sorting --teacher m.metrics.jsonl -o m.pt", ()),
    ("task own_task:Own -o own_task.py", ()),
]

OWN = """
from loopedge.tasks.generated.sorting import SortingTask
class Own(SortingTask):
    name = "own"
    def __init__(self, seed=0):
        super().__init__(length=4, vocab=8, seed=seed)
"""


@pytest.mark.parametrize(("words", "more"), TRAINED, ids=[words for words, _ in TRAINED])
def test_a_run_replaces_nothing_that_it_reads(
    cli: Cli, here: Path, words: str, more: tuple[object, ...]
) -> None:
    pytest.importorskip("tokenizers")
    from loopedge.data.tokenizer import train_tokenizer

    Path("tok.best.pt").write_text(
        train_tokenizer(["the loop"], 257).companions()["tokenizer.json"]
    )
    shutil.copy("t.txt", "v.txt")
    Path("own_task.py").write_text(OWN)
    for name in ("m.pt", "m.last.pt", "m.metrics.jsonl"):
        Path(name).write_text("a teacher")
    before = contents(here)
    outcome = cli("train", *words.split(), *more, *STEPS, "--force")
    assert outcome.code == 2, outcome.err
    assert "which it would replace" in outcome.err
    assert {
        file: data for file, data in contents(here).items() if "__pycache__" not in file
    } == before


def test_data_within_the_folder_of_a_run_is_not_removed(cli: Cli, here: Path) -> None:
    Path("m.origins").mkdir()
    shutil.copy("d.csv", "m.origins/d.csv")
    words = ("series", "m.origins/d.csv", *WINDOW, *STEPS, "--force")
    before = contents(here)
    outcome = cli("train", *words, "-o", "m.pt", "--origins", 2)
    assert (outcome.code, "m.origins, which --output empties" in outcome.err) == (2, True)
    assert contents(here) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("series pilot/runs/d.csv -o pilot", "lies in pilot/runs, which --output empties"),
        ("series results.json -o .", "results.json is also a file of DATA"),
        ("series d.csv -o pilot --html d.csv", "--html d.csv is also a file of DATA"),
        ("series d.csv -o pilot --html pilot/results.json", "is also a file of --output"),
        ("series d.csv -o pilot --html pilot/runs/x.html", "lies in pilot/runs"),
    ],
)
def test_a_pilot_replaces_nothing_that_it_reads(
    cli: Cli, here: Path, words: str, said: str
) -> None:
    Path("pilot/runs").mkdir(parents=True)
    for name in ("pilot/runs/d.csv", "results.json"):
        shutil.copy("d.csv", name)
    for name in ("design.json", "pilot/design.json"):
        Path(name).write_text("{}")
    before = contents(here)
    outcome = cli("pilot", *words.split(), *WINDOW, "--steps", 1, "--force")
    assert (outcome.code, said in outcome.err) == (2, True), outcome.err
    assert contents(here) == before


@pytest.mark.parametrize(
    "words",
    [
        "m.pt -o m.pt",
        "m.required_operators.config -o m.ort --format ort",
        "m.onnx.data -o m.onnx",
        "factory_of:make --weights w.onnx.data -o w.onnx",
        "factory_of:make --weights w.pt -o w.pt",
        "factory_of:make -o factory_of.py",
        "folder -o folder/config.json",
    ],
)
def test_an_export_replaces_nothing_that_it_reads(cli: Cli, here: Path, words: str) -> None:
    Path("folder").mkdir()
    names = ("m.pt", "m.required_operators.config", "m.onnx.data", "w.onnx.data", "w.pt")
    for name in (*names, "factory_of.py", "folder/config.json"):
        Path(name).write_text("mine")
    before = contents(here)
    outcome = cli("export", *words.split(), "--force")
    assert (outcome.code, "which it would replace" in outcome.err) == (2, True), outcome.err
    assert contents(here) == before


def test_what_a_hostile_model_copies_beside_a_target_replaces_no_input(
    cli: Cli, here: Path
) -> None:
    import hashlib

    import onnx

    Path("from").mkdir()
    Path("from/x.npz").write_text("hostile")
    model = onnx.load("tiny.onnx")
    companions = {"x": {"file": "x.npz", "sha256": hashlib.sha256(b"hostile").hexdigest()}}
    onnx.helper.set_model_props(
        model,
        {
            **{item.key: item.value for item in model.metadata_props},
            "loopedge.companions": json.dumps(companions),
        },
    )
    onnx.save(model, "from/m.onnx")
    before = contents(here)
    error = cli("quantize", "from/m.onnx", "--data", "x.npz", "-o", "q.onnx", "--force").err
    assert "beside --output x.npz is also a file of --data" in error
    assert contents(here) == before


@pytest.mark.parametrize("name", ["onnx", "onnx.data", "prepared.onnx"])
def test_a_hostile_checkpoint_names_no_file_of_the_artifact(
    cli: Cli, here: Path, name: str
) -> None:
    model = loopedge.LoopedTransformer(
        loopedge.LoopedConfig(d_model=8, heads=2, loops=1, vocab_size=5, max_length=4)
    )
    loopedge.save(model, "hostile.pt", companions={name: "not what was verified"})
    outcome = cli("export", "hostile.pt", "-o", "e.onnx", "--force")
    assert (outcome.code, "a name of loopedge's own files" in outcome.err) == (2, True), outcome.err
    assert not list(here.glob("e.*"))
