"""``loopedge generate``, and ``run --text`` with a cache, on files written by hand."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from loopedge.data.tokenizer import ByteTokenizer, train_tokenizer
from loopedge_cli import interrupts
from loopedge_cli.main import main
from loopedge_cli.streamed_text import StreamedText
from tests.graph.generate_files import GenerateModel, write_generate_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cli.conftest import Cli, Said

PROMPT = "The loop"
TEMPLATE = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[answer]"


@pytest.fixture
def model() -> GenerateModel:
    """Whose likely bytes are letters: the others are made unlikely."""
    model = GenerateModel(context=64)
    model.weights["head"][:, :97] = model.weights["head"][:, 123:] = 0
    return model


@pytest.fixture
def lm(model: GenerateModel, tmp_path: Path) -> Path:
    return write_generate_file(model, tmp_path / "lm.generate.onnx")


def expected(model: GenerateModel, count: int, prompt: str = PROMPT, **options: Any) -> str:
    ids = model.greedy(list(prompt.encode()), count, **options)
    return bytes(ids).decode("utf-8", errors="replace")


def refused(outcome: Said, words: str) -> None:
    assert outcome.code == 2, outcome.err
    assert outcome.out == ""
    assert words in outcome.err
    assert len(outcome.err.splitlines()) <= 2


def test_the_text_alone_is_on_stdout(cli: Cli, model: GenerateModel, lm: Path) -> None:
    outcome = cli("generate", lm, "--prompt", PROMPT, "--new-tokens", 20)
    assert outcome.code == 0, outcome.err
    assert outcome.out == f"{expected(model, 20)}\n"
    [speed] = outcome.err.splitlines()
    assert speed.startswith("prompt: 8 tokens in ")
    assert "generated: 19 tokens in " in speed
    assert speed.count("tokens/s") == 2
    quiet = cli("generate", lm, "-p", PROMPT, "--new-tokens", 20, "--quiet")
    assert (quiet.out, quiet.err) == (outcome.out, "")


def lines_of(outcome: Said) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    assert outcome.code == 0, outcome.err
    *pieces, result = map(json.loads, outcome.out.splitlines())
    return pieces, result


def test_json_is_a_line_for_each_token_and_one_at_the_end(
    cli: Cli, model: GenerateModel, lm: Path
) -> None:
    pieces, result = lines_of(cli("generate", lm, "-p", PROMPT, "--new-tokens", 9, "--json"))
    assert [piece["id"] for piece in pieces] == model.greedy(list(PROMPT.encode()), 9)
    assert all(set(piece) == {"id", "text", "probability"} for piece in pieces)
    assert all(0 < piece["probability"] <= 1 for piece in pieces)
    assert "".join(piece["text"] for piece in pieces) + result["rest"] == result["text"]
    assert result["text"] == expected(model, 9)
    assert (result["ended"], result["stop"], result["context"]) == ("new_tokens", None, 64)
    assert (result["prompt_tokens"], result["new_tokens"], result["loops"]) == (8, 9, 3)
    assert result["prefill"]["tokens"] == 8
    assert result["decode"]["tokens"] == 8


def test_a_prompt_from_standard_input(
    cli: Cli, model: GenerateModel, lm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_input(content: bytes) -> Said:
        monkeypatch.setattr(
            "loopedge_cli.commands.generate._standard_input", lambda: io.BytesIO(content)
        )
        return cli("generate", lm, "--prompt", "-", "--new-tokens", 5)

    assert with_input(b"The loop\n").out == f"{expected(model, 5)}\n"
    refused(with_input(b"\xff"), "standard input is not UTF-8: byte 0")
    refused(with_input(b""), "the text is empty")
    monkeypatch.setattr("loopedge_cli.commands.generate.MOST_PROMPT_BYTES", 4)
    refused(with_input(b"12345"), "more than 0 MiB")


def test_a_stop_string_ends_it_and_is_not_shown(cli: Cli, model: GenerateModel, lm: Path) -> None:
    whole = expected(model, 30)
    stop = whole[4:7]
    shown = whole[: whole.find(stop)]
    words = (
        "generate",
        lm,
        "-p",
        PROMPT,
        "--new-tokens",
        30,
        "--stop",
        stop,
        "--stop",
        "\N{SNOWMAN}",
    )
    assert cli(*words).out == (f"{shown}\n" if shown else "")
    pieces, result = lines_of(cli(*words, "--json"))
    assert (result["text"], result["ended"], result["stop"]) == (shown, "stop", stop)
    assert "".join(piece["text"] for piece in pieces) == shown
    refused(cli("generate", lm, "-p", PROMPT, "--stop", ""), "--stop is empty")


def test_the_limit_of_the_context_is_a_note(cli: Cli, model: GenerateModel, lm: Path) -> None:
    outcome = cli("generate", lm, "-p", PROMPT, "--context", 12)
    assert outcome.out == f"{expected(model, 5)}\n"
    assert "note: ended after 5 of 256 new tokens: the context is 12 positions" in outcome.err


@pytest.mark.slow
def test_decoding_is_measured_afterwards(cli: Cli, model: GenerateModel, lm: Path) -> None:
    words = ("generate", lm, "--prompt", PROMPT, "--new-tokens", 4, "--profile")
    outcome = cli(*words)
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith(expected(model, 4))
    assert "tokens/s" in outcome.out.partition("decoding")[2]
    [*_, last] = cli(*words, "--json").out.splitlines()
    runs = json.loads(last)["profile"]["runs"]
    assert all(run["decoding"]["tokens_per_second"] > 0 for run in runs)


def test_loops_are_chosen(cli: Cli, model: GenerateModel, lm: Path) -> None:
    for loops in (1, 4):
        outcome = cli("generate", lm, "-p", PROMPT, "--new-tokens", 9, "--loops", loops)
        assert outcome.out == f"{expected(model, 9, loops=loops)}\n"


def test_draws_repeat_with_a_seed(cli: Cli, lm: Path) -> None:
    words = ("generate", lm, "-p", PROMPT, "--new-tokens", 20, "--temperature", 2)
    more = ("--top-k", 40, "--top-p", 0.95, "--min-p", 0.01, "--repetition-penalty", 1.2)
    texts = [cli(*words, *more, "--seed", seed).out for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_an_end_id_ends_the_text(cli: Cli, tmp_path: Path, model: GenerateModel) -> None:
    tokens = model.greedy(list(PROMPT.encode()), 30)
    end = next(token for token in tokens if token != tokens[0])
    model.end_ids = (end,)
    lm = write_generate_file(model, tmp_path / "ends.onnx")
    pieces, result = lines_of(cli("generate", lm, "-p", PROMPT, "--json"))
    assert [piece["id"] for piece in pieces] == tokens[: tokens.index(end)]
    assert result["ended"] == "end"
    found = cli("run", lm, "--text", PROMPT, "--new-tokens", 30, "--json").json()
    assert found["new_tokens"] == tokens.index(end)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--prompt", ""), "the text is empty"),
        (("-p", "x" * 65), "the text has 65 tokens and the context is 64 positions"),
        (("-p", "x" * 13, "--context", 12), "13 tokens and the context is 12 positions"),
        (("-p", "x", "--context", 65), "takes at most 64 positions, a context of 65"),
        (("-p", "x", "--loops", 5), "at most 4 loops, 5 were asked for"),
        (("-p", "x", "--temperature", 0), "--temperature is 0.0, 0.000001 to 100"),
        (("-p", "x", "--temperature", -1), "--temperature is -1.0, 0.000001"),
        (("-p", "x", "--top-p", 0.5), "--top-p has no effect without a temperature"),
        (("-p", "x", "--temperature", 1, "--top-p", 2), "--top-p is 2.0"),
        (("-p", "x", "--seed", 2), "--seed has no effect without a temperature"),
        (("-p", "x", "--system", "s"), "--system goes with a conversation"),
        (("-p", "x", "--chat"), "has no chat template"),
        ((), "Missing option '--prompt'"),
    ],
)
def test_what_is_refused(cli: Cli, lm: Path, words: tuple[Any, ...], said: str) -> None:
    refused(cli("generate", lm, *words), said)


def test_files_that_are_refused(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    outcome = cli("generate", tiny, "-p", "x")
    refused(outcome, "has no cache")
    assert f"hint: loopedge to-generate {tiny}" in outcome.err
    refused(cli("generate", tmp_path / "absent.onnx", "-p", "x"), "does not exist")
    no_text = GenerateModel(properties={"task": {}})
    refused(
        cli("generate", write_generate_file(no_text, tmp_path / "n.onnx"), "-p", "x"),
        "it takes no text",
    )


def test_nan_is_one_line(cli: Cli, tmp_path: Path) -> None:
    lm = write_generate_file(GenerateModel(spoiled=ord("x")), tmp_path / "m.onnx")
    outcome = cli("generate", lm, "-p", "x")
    refused(outcome, "gives NaN or infinite logits")


@pytest.fixture
def published(tmp_path: Path) -> Callable[..., tuple[Path, Any]]:
    """Write a file as from a published folder: a tokenizer, its configuration and a chat template beside it."""
    tokenizers = pytest.importorskip("tokenizers", reason="the extra 'text'")

    def write(**config: Any) -> tuple[Path, Any]:
        learned = train_tokenizer(["[user] the loop keeps [answer] " * 20], 280)
        made = tokenizers.Tokenizer.from_str(learned.companions()["tokenizer.json"])
        made.add_special_tokens(["<s>", "</s>"])
        begin = made.token_to_id("<s>")
        made.post_processor = tokenizers.processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", begin)]
        )
        model = GenerateModel(vocab=made.get_vocab_size(), context=200)
        companions = {
            "tokenizer.json": made.to_str(),
            "tokenizer_config.json": json.dumps({"bos_token": "<s>"} | config),
        }
        lm = write_generate_file(model, tmp_path / "published.onnx", companions)
        return lm, made

    return write


def prompt_of(cli: Cli, lm: Path, *words: Any) -> dict[str, Any]:
    return lines_of(cli("generate", lm, "--new-tokens", 1, "--json", *words))[1]


def test_a_published_model_gets_the_tokens_around_a_text(
    cli: Cli, published: Callable[..., tuple[Path, Any]]
) -> None:
    pytest.importorskip("jinja2", reason="the extra 'text'")
    lm, made = published(chat_template=TEMPLATE)
    found = prompt_of(cli, lm, "-p", "the loop")
    assert found["prompt_tokens"] == len(made.encode("the loop").ids)
    chat = "[user]the loop[answer]"
    found = prompt_of(cli, lm, "-p", "the loop", "--chat")
    assert found["prompt_tokens"] == len(made.encode(chat, add_special_tokens=False).ids)
    found = prompt_of(cli, lm, "-p", "the</s>", "--chat", "--system", "<s>")
    whole = made.encode("[system]<s>[user]the</s>[answer]", add_special_tokens=False).ids
    assert found["prompt_tokens"] > len(whole)  # typed tokens are text


def test_the_end_of_sequence_of_the_tokenizer_ends_it(
    cli: Cli, published: Callable[..., tuple[Path, Any]], tmp_path: Path
) -> None:
    lm, made = published()
    pieces, _ = lines_of(cli("generate", lm, "-p", "the loop", "--new-tokens", 5, "--json"))
    end = made.id_to_token(pieces[-1]["id"])
    place = [piece["id"] for piece in pieces].index(pieces[-1]["id"])
    lm, _ = published(eos_token={"content": end})
    pieces, result = lines_of(cli("generate", lm, "-p", "the loop", "--new-tokens", 5, "--json"))
    assert (len(pieces), result["ended"]) == (place, "end")


def test_a_tokenizer_that_is_missing_or_another_one(
    cli: Cli, published: Callable[..., tuple[Path, Any]]
) -> None:
    lm, _ = published()
    [file] = lm.parent.glob("*.tokenizer.json")
    content = file.read_bytes()
    file.write_bytes(content + b" ")
    refused(cli("generate", lm, "-p", "x"), "its sha256 differs")
    file.unlink()
    refused(cli("generate", lm, "-p", "x"), "which is missing")


def test_run_uses_the_cache(cli: Cli, model: GenerateModel, lm: Path) -> None:
    found = cli("run", lm, "--text", PROMPT, "--new-tokens", 12, "--json").json()
    assert found["completion"] == expected(model, 12)
    assert (found["loops"], found["tokens"]) == (3, 8)
    assert found["outputs"][0]["shape"] == [1, 1, 256]
    clamped = cli("run", lm, "--text", PROMPT, "--new-tokens", 12, "--loops", 99, "--json").json()
    assert clamped["completion"] == expected(model, 12, loops=4)
    assert clamped["loops"] == 4
    shown = cli("run", lm, "--text", PROMPT, "--new-tokens", 3)
    assert repr(expected(model, 3)) in shown.out
    long = cli("run", lm, "--text", PROMPT, "--new-tokens", 99)
    assert "note: ended after 57 of 99 new tokens: the model takes at most 64 positions" in long.err
    refused(cli("run", lm, "--text", "x" * 65), "the text has 65 tokens")
    refused(cli("run", lm, "--text", "x", "--tolerance", 0.1), "takes no tolerance")


def test_a_terminal_gets_no_control_characters(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for terminal, shown in ((True, "a\\x1b[2Jb\\x9b\n\tc\\x0d"), (False, "a\x1b[2Jb\x9b\n\tc\r")):
        monkeypatch.setattr(sys.stdout, "isatty", lambda terminal=terminal: terminal, raising=False)
        text = StreamedText()
        for piece in ("a\x1b[2J", "", "b\x9b\n\tc\r"):
            text.add(piece)
        text.end()
        text.end()
        assert capsys.readouterr().out == f"{shown}\n"


@pytest.fixture
def handlers() -> Iterator[None]:
    """Begin as a process of a terminal does, whatever runs the tests, and put all back."""
    before = {number: signal.getsignal(number) for number in interrupts.ENDING}
    for number in interrupts.ENDING:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("mode", [(), ("--json",)])
def test_ctrl_c_in_mid_stream(
    lm: Path,
    model: GenerateModel,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    mode: tuple[str, ...],
) -> None:
    """The line that has begun is ended before the error."""
    from loopedge.runtime.generator import Generator

    step = Generator.step
    steps: list[int] = []

    def interrupted(self: Generator, tokens: Any) -> Any:
        steps.append(1)
        if len(steps) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, tokens)

    monkeypatch.setattr(Generator, "step", interrupted)
    monkeypatch.setattr(sys, "argv", ["loopedge", "generate", str(lm), "-p", PROMPT, *mode])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 130
    said = capsys.readouterr()
    assert said.err == "error: interrupted\n"
    if mode:
        assert [json.loads(line)["id"] for line in said.out.splitlines()] == model.greedy(
            list(PROMPT.encode()), 4
        )
    else:
        assert said.out == f"{expected(model, 4)}\n"


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("mode", [(), ("--json",)])
def test_a_reader_that_stops_early(
    lm: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    mode: tuple[str, ...],
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(sys, "argv", ["loopedge", "generate", str(lm), "-p", PROMPT, *mode])
    with os.fdopen(writer, "w", encoding="utf-8") as out:
        monkeypatch.setattr(sys, "stdout", out)
        with pytest.raises(SystemExit) as caught:
            main()
    assert caught.value.code == 1
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
@pytest.mark.usefixtures("handlers")
def test_a_full_disk_behind_standard_output(
    lm: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["loopedge", "generate", str(lm), "-p", PROMPT])
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit) as caught:
            main()
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("error: the result cannot be printed")


def test_the_bytes_of_a_character_come_together(cli: Cli, tmp_path: Path) -> None:
    """A model that knows one character by heart."""
    model = GenerateModel(context=40)
    lm = write_generate_file(model, tmp_path / "m.onnx")
    pieces, result = lines_of(cli("generate", lm, "-p", PROMPT, "--new-tokens", 30, "--json"))
    ids = [piece["id"] for piece in pieces]
    assert result["text"] == ByteTokenizer().decode(ids)
