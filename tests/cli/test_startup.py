from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import typer

from loopedge import __version__
from loopedge.errors import (
    BudgetError,
    InputError,
    LoopedgeError,
    MissingExtraError,
    ProviderError,
    VerificationError,
)
from loopedge_cli import interrupts
from loopedge_cli.app import app
from loopedge_cli.exits import ExitCode, exit_code

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli


HEAVY = {
    *("numpy", "onnx", "onnx_ir", "onnxruntime", "onnxscript", "psutil", "pyarrow"),
    *("safetensors", "tensorboard", "tokenizers", "torch", "transformers"),
}
"""Packages that take longer to import than the command line may take to answer."""
COMMANDS = {"export", "quantize", "prepare", "profile", "inspect", "run"}


def test_the_commands_send_no_telemetry() -> None:
    """The C library's environment is asked: there ONNX Runtime looks, once, when it is imported."""
    code = (
        "import ctypes, sys; from loopedge_cli.main import main; sys.argv = ['loopedge', '--version']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "getenv = ctypes.CDLL(None).getenv; getenv.restype = ctypes.c_char_p\n"
        "print(getenv(b'ORT_DISABLE_TELEMETRY'), 'onnxruntime' in sys.modules)"
    )
    plain = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=plain, capture_output=True, text=True, check=True
    )
    assert ended.stdout.splitlines()[-1] == "b'1' False"


def test_an_interrupt_while_python_imports_has_the_exit_code_of_any_other() -> None:
    assert interrupts.INTERRUPTED == ExitCode.INTERRUPTED


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["inspect", "--help"], ["fly"]])
def test_what_needs_no_model_imports_nothing_heavy(words: list[str]) -> None:
    """The answer comes fast because of what is not imported; benchmarks/cli/startup.py has the time."""
    program = (
        "import sys\n"
        "from loopedge_cli.main import main\n"
        f"sys.argv = ['loopedge', *{words!r}]\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(*sorted(name.partition('.')[0] for name in sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.splitlines()[-1].split())
    assert loaded & HEAVY == set()
    assert "typer" in loaded, "the command line itself was loaded"


def test_every_command_is_listed_and_has_help(cli: Cli) -> None:
    outcome = cli("--help")
    assert outcome.code == 0
    for command in COMMANDS:
        assert f" {command} " in outcome.out
        assert cli(command, "--help").code == 0


def test_no_command_is_help(cli: Cli) -> None:
    outcome = cli()
    assert outcome.code == 0
    assert "Usage: loopedge" in outcome.out


def test_version(cli: Cli) -> None:
    assert cli("--version").out == f"loopedge {__version__}\n"


def test_python_m_loopedge() -> None:
    words = [sys.executable, "-m", "loopedge", "--version"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout == f"loopedge {__version__}\n"


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["fly"], "No such command 'fly'.", "loopedge --help"),
        (["inspect"], "Missing argument 'MODEL.onnx'.", "loopedge inspect --help"),
        (["run", "m.onnx"], "neither --input nor --text is given", "loopedge run --help"),
        (
            ["train", "series", "x.csv"],
            "Missing option '--context'.",
            "loopedge train series --help",
        ),
        (["inspect", "m.onnx", "--fast"], "No such option: --fast", "loopedge inspect --help"),
        (["quantize", "m.onnx", "--scheme", "magic"], "magic", "loopedge quantize --help"),
        (["run", "m.onnx", "--device", "cuda"], "--device is now --provider", "--provider cuda"),
        (["profile", "--device=cuda"], "--device is now --provider", "--provider cuda"),
        (["profile", "m.onnx", "--device"], "--device is now --provider", "--provider NAME"),
        (["profile", "m.onnx", "--threads", "0"], "'--threads'", "loopedge profile --help"),
    ],
)
def test_usage_errors_are_one_line_and_a_hint(
    cli: Cli, words: str, message: str, hint: str
) -> None:
    outcome = cli(*words)
    assert outcome.code == ExitCode.BAD_INPUT
    assert outcome.out == ""
    first, second = outcome.err.splitlines()
    assert first.startswith("error: ")
    assert message in first
    assert second == f"hint: {hint}"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("x"), 2),
        (MissingExtraError("x", extra="train"), 2),
        (VerificationError("x"), 3),
        (BudgetError("x"), 4),
        (ProviderError("x"), 5),
        (LoopedgeError("x"), 1),
        (ZeroDivisionError("x"), 1),
    ],
)
def test_exit_codes(cli: Cli, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int) -> None:
    assert exit_code(error) == code

    def fail(path: Path, *, verify: bool) -> None:
        raise error

    monkeypatch.setattr("loopedge.inspect", fail, raising=False)
    outcome = cli("inspect", "m.onnx")
    assert outcome.code == code
    assert outcome.err.startswith("error: ")
    assert outcome.out == ""
    assert "Traceback" not in outcome.err


def test_debug_shows_the_traceback(cli: Cli) -> None:
    outcome = cli("inspect", "nowhere.onnx", "--debug")
    assert outcome.code == 2
    assert "Traceback" in outcome.err
    assert outcome.err.splitlines()[-2] == "error: nowhere.onnx does not exist"


def test_an_error_of_many_lines_is_printed_in_one(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, *, verify: bool) -> None:
        raise RuntimeError("first\n  second")

    monkeypatch.setattr("loopedge.inspect", fail, raising=False)
    assert cli("inspect", "m.onnx").err.splitlines() == [
        "error: unexpected RuntimeError: first second",
        "hint: run it again with --debug",
    ]


@pytest.mark.parametrize("name", ["torch", "onnxscript"])
def test_a_missing_extra_is_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def fail(path: Path, *, verify: bool) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("loopedge.inspect", fail, raising=False)
    outcome = cli("inspect", "m.onnx")
    assert outcome.code == 2
    assert outcome.err.splitlines() == [
        "error: this command needs the extra 'train'",
        "hint: in a clone of loopedge: pip install -c constraints.txt -e '.[train]'",
    ]


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_an_interrupt_leaves_cleanly() -> None:
    program = (
        "import signal, sys, time, loopedge\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell may have it ignored
        "from loopedge_cli.main import main\n"
        "def wait(path, verify):\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
        "loopedge.inspect = wait\n"
        "sys.argv = ['loopedge', 'inspect', 'm.onnx']\n"
        "main()\n"
    )
    words = [sys.executable, "-c", program]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == ExitCode.INTERRUPTED
    assert said == "error: interrupted\n"


def test_the_library_never_sees_the_command_line() -> None:
    """Programs that call the app without leaving get the code back."""
    assert app(["inspect", "nowhere.onnx"], standalone_mode=False) == ExitCode.BAD_INPUT
    assert isinstance(app, typer.Typer)
