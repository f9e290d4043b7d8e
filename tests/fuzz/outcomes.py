"""Run a command or a reader on a damaged file, and say what is wrong with how it ended; None where nothing is."""

import random
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loopedge.errors import InputError
from tests.cli.in_process import run_words
from tests.fuzz.mutations import mutate

__all__ = ["CASES", "Case", "draw", "judge"]

DOCUMENTED = {0, 2, 3, 4, 5}


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is run on a damaged file.

    Args:
        file: The seed that is damaged.
        words: The command line; ``{file}`` is the damaged one, ``{out}`` the name of a target without a suffix.
        reader: Called with the damaged file instead.
        share: How often the case is drawn against the others.
    """

    file: str
    words: tuple[str, ...] = ()
    reader: Callable[[Path], Any] | None = None
    share: int = 1

    def __str__(self) -> str:
        read_by = " ".join(self.words) if self.reader is None else self.reader.__name__
        return f"{read_by} on {self.file}"


def read_table(path: Path) -> None:
    """Read a table of numbers, times and labels."""
    from loopedge.data.tables.reading import Selection
    from loopedge.data.tables.reading import read_table as read

    read(path, Selection(numbers=("y",), time="time", label="label"))


WINDOWS: dict[str, Any] = {
    "name": "series",
    "targets": ["y"],
    "covariates": [],
    "context": 4,
    "min_context": 2,
    "horizon": 2,
    "mean": [10.0],
    "scale": [5.0],
    "missing": "interpolate",
    "time_column": "time",
    "gaps": "split",
}


def read_series(path: Path) -> None:
    """Read a table as training does, with windows around gaps."""
    from loopedge.tasks.series import SeriesTask

    task = SeriesTask.from_file(
        path, targets=["y"], horizon=2, context=4, time_column="time", missing="interpolate"
    )
    task.describe()
    task.baselines("test", 64)


def read_grid(path: Path) -> None:
    """Read a table onto a grid of times, as training does."""
    from loopedge.tasks.series import SeriesTask

    SeriesTask.from_file(
        path,
        targets=["y"],
        horizon=2,
        context=4,
        time_column="time",
        missing="indicator",
        frequency="auto",
        scaling="window",
    ).describe()


def read_labels(path: Path) -> None:
    """Read a table of labels, as training does."""
    from loopedge.tasks.labelled_series import LabelledSeriesTask

    LabelledSeriesTask.from_file(path, label="label", covariates=["y"], context=4).describe()


def read_windows(path: Path) -> None:
    """Read the last window of a table, as running a model does."""
    from loopedge.runtime.tables.described_table import DescribedTable
    from loopedge.runtime.tables.last_windows import read_last_windows

    described = DescribedTable.of(WINDOWS)
    assert described is not None
    read_last_windows(path, described, takes_mask=True)


def read_pairs(path: Path) -> None:
    """Read JSON lines."""
    from loopedge.data.json_lines import PairFormat, scan

    list(scan(path, PairFormat(source="input", target="output")))


def read_samples(path: Path) -> None:
    """Read samples for calibration."""
    from loopedge_calibration.readers import read_samples as read

    list(read(path))


def read_tokenizer(path: Path) -> None:
    """Read a tokenizer, and all that a task asks of it."""
    from loopedge.data.tokenizer import read_tokenizer as read

    tokenizer = read(path)
    tokenizer.describe()
    tokenizer.token_bytes()
    tokenizer.decode(tokenizer.encode("abba").tolist())


def read_chat_template(path: Path) -> None:
    """Read a chat template, and render it."""
    from loopedge.data.chat.template import CONFIG_FILE, ChatTemplate

    text = path.read_bytes().decode("utf-8", errors="replace")
    ChatTemplate.of({CONFIG_FILE: text}, path.name).render([{"role": "user", "content": "a"}])


def load_checkpoint(path: Path) -> None:
    """Read a checkpoint, and build its model."""
    from loopedge.model.checkpoint import load

    load(path)


RUN = ("run", "{file}", "--input", "x.npz", "-o", "{out}.npz", "--threads", "1")
QUANTIZE = ("quantize", "{file}", "-o", "{out}.onnx", "--threads", "1", "--min-sqnr-db", "-100")
GENERATE = ("generate", "{file}", "--prompt", "abba", "--new-tokens", "3", "--threads", "1", "-q")
REFUSED = ("profile", "{file}", "--memory", "mapped", "--runs", "1", "--processes", "1", "--untied")
MODELS = ("tiny.onnx", "tiny_dynamic.onnx", "external.onnx", "external.onnx.data", "foreign.onnx")

CASES = (
    *(
        Case(file=file, words=words, share=share)
        for file in (*MODELS, "tiny.ort")
        for words, share in (
            (("inspect", "{file}", "--json"), 5),
            (RUN, 4),
            (("convert", "{file}", "-o", "{out}.ort", "--threads", "1"), 2),
            (("prepare", "{file}", "-o", "{out}.onnx", "--threads", "1"), 2),
            (QUANTIZE, 1),
            (REFUSED, 2),
        )
    ),
    *(
        Case(file=file, words=("run", "tiny.onnx", "-i", "{file}", "-o", "{out}.npy"), share=6)
        for file in ("x.npz", "small.npz", "x.npy", "x.csv")
    ),
    Case(
        file="ranges.json",
        words=(*QUANTIZE[:1], "tiny.onnx", *QUANTIZE[2:], "--ranges-file", "{file}"),
        share=8,
    ),
    Case(
        file="x.npz",
        words=("quantize", "tiny.onnx", *QUANTIZE[2:], "--scheme", "static", "--data", "{file}"),
        share=2,
    ),
    *(
        Case(file=file, reader=reader, share=2)
        for file in (
            *("table.csv", "table.csv.gz", "local.csv", "utf16.csv"),
            *("table.parquet", "table.feather"),
        )
        for reader in (read_table, read_series, read_grid, read_labels, read_windows)
    ),
    Case(file="tokenizer.json", reader=read_tokenizer, share=6),
    Case(file="model.pt", reader=load_checkpoint, share=10),
    Case(file="pairs.jsonl", reader=read_pairs, share=6),
    Case(file="small.npz", reader=read_samples, share=6),
    Case(file="lm.onnx", words=GENERATE, share=10),
    Case(file="tokenizer_config.json", reader=read_chat_template, share=2),
)


def draw(cases: tuple[Case, ...], seeds: Path, folder: Path, rng: random.Random) -> Case:
    """Fill a folder with the seeds, one of them damaged, and return what to run on it."""
    case = rng.choices(cases, [case.share for case in cases])[0]
    for file in seeds.iterdir():
        shutil.copy(file, folder)
    damaged = folder / case.file
    damaged.write_bytes(mutate(case.file, damaged.read_bytes(), rng))
    return case


def judge(case: Case, folder: Path) -> str | None:
    """Run a case in its folder, and say what is wrong with how it ended."""
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    problem = _judge_reader(case, folder) if case.reader else _judge_command(case, folder)
    after = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    changed = sorted(name for name, content in before.items() if after.get(name) != content)
    if problem is None and changed:
        return f"it changed {', '.join(changed)}"
    return problem


def _judge_reader(case: Case, folder: Path) -> str | None:
    assert case.reader is not None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            case.reader(folder / case.file)
    except InputError as error:
        return None if len(error.message.splitlines()) == 1 else "the error has several lines"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def _judge_command(case: Case, folder: Path) -> str | None:
    names = {path.name for path in folder.iterdir()}
    file = case.file.removesuffix(".data")
    words = []
    for word in case.words:
        filled = word.replace("{file}", str(folder / file)).replace("{out}", str(folder / "out"))
        words.append(str(folder / filled) if filled in names else filled)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            done = run_words(words)
        except Exception as error:
            return f"{type(error).__name__} was raised: {error}"
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    known = ("error: ", "hint: ", "note: ")
    noise = [line for line in done.err.splitlines() if not line.startswith(known)]
    left = sorted(path.name for path in folder.iterdir() if path.name not in names)
    if done.code not in DOCUMENTED:
        return f"exit {done.code}: {done.err}"
    if noise:
        return f"noise: {noise[0]}"
    if done.code:
        if len(errors) != 1:
            return f"{len(errors)} error lines"
        return f"it left {', '.join(left)}" if left else None
    if errors:
        return f"exit 0 with an error: {errors[0]}"
    return _judge_outputs([folder / name for name in left])


def _judge_outputs(written: list[Path]) -> str | None:
    """Say which output does not load."""
    for path in written:
        if path.suffix in {".onnx", ".ort"}:
            read = run_words(["inspect", path])
            if read.code:
                return f"{path.name} does not load: {read.err}"
        elif path.suffix in {".npz", ".npy"}:
            np.load(path, allow_pickle=False)
    return None
