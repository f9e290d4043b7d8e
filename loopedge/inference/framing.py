"""How a text becomes the ids that a model was trained on, and its answer text again."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopedge.artifact.companions import read_companions
from loopedge.data.chat.template import CONFIG_FILE, ChatTemplate, read_special_tokens
from loopedge.data.tokenizer import (
    TOKENIZER_FILE,
    JsonTokenizer,
    Tokenizer,
    described_tokenizer,
)
from loopedge.errors import InputError
from loopedge.graph.metadata import Metadata

__all__ = ["Framing", "read_framing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Framing:
    """How a task turns a text into the ids that its model was trained on.

    Args:
        tokenizer: Of the text.
        separator: Follows a source; None where the text stands alone.
        end: Ends a target; None where nothing does.
        published: The model comes from a published folder: its tokenizer adds tokens around a text.
        end_of_sequence: What the tokenizer's configuration says that ends a text.
        companions: Texts of the files beside the model.
        model: What errors call the model.
    """

    tokenizer: Tokenizer
    separator: int | None = None
    end: int | None = None
    published: bool = False
    end_of_sequence: int | None = None
    companions: Mapping[str, str]
    model: str

    def frame(self, text: str) -> list[int]:
        """Return the ids of a text.

        Raises:
            InputError: The text is not Unicode.
        """
        with _is_unicode():
            if self.published and isinstance(self.tokenizer, JsonTokenizer):
                ids: list[int] = self.tokenizer.encode(text, around=True).tolist()
            else:
                ids = self.tokenizer.encode(text).tolist()
        return ids if self.separator is None else [*ids, self.separator]

    def frame_chat(self, text: str, system: str | None) -> list[int]:
        """Return the ids of a conversation of one message, after that of the system where there is one.

        Raises:
            InputError: The model has no chat template, or it fails; the text is not Unicode.
            MissingExtraError: jinja2 is not installed.
        """
        template = ChatTemplate.of(self.companions, self.model)
        messages = [] if system is None else [{"role": "system", "content": system}]
        with _is_unicode():
            return template.encode([*messages, {"role": "user", "content": text}], self.tokenizer)

    @property
    def end_ids(self) -> frozenset[int]:
        """Ids that end a text, of the task and of the tokenizer."""
        known = (self.end, self.end_of_sequence)
        return frozenset(token for token in known if token is not None)

    def show(self, token: int) -> str:
        """Return what a token looks like."""
        named = {self.separator: "<sep>", self.end: "<end>"}
        return named[token] if token in named else self.tokenizer.show(token)


@contextmanager
def _is_unicode() -> Iterator[None]:
    try:
        yield
    except UnicodeEncodeError as error:  # a terminal's bytes that were not UTF-8
        raise InputError(f"the text is not UTF-8: character {error.start}") from error


def read_framing(path: Path, metadata: Metadata) -> Framing:
    """Return how a model's texts are framed: by its task, or by the tokenizer that was published with it.

    Raises:
        InputError: It was not trained on text, or its tokenizer is missing or another one.
        MissingExtraError: It has a tokenizer and the library is not installed.
    """
    task = metadata.task
    if task.get("name") in {"text", "pairs"} and "tokenizer" in task:
        companions = read_companions(path, metadata)
        return Framing(
            tokenizer=described_tokenizer(task | {"companions": companions}),
            separator=task.get("separator"),
            end=task.get("end"),
            companions=companions,
            model=str(path),
        )
    if task or TOKENIZER_FILE not in metadata.companions:
        raise _no_text(path, task)
    companions = read_companions(path, metadata)
    tokenizer = JsonTokenizer(
        companions[TOKENIZER_FILE], source=metadata.companions[TOKENIZER_FILE].file
    )
    return Framing(
        tokenizer=tokenizer,
        published=CONFIG_FILE in companions,
        end_of_sequence=_end_of_sequence(companions, tokenizer, path),
        companions=companions,
        model=str(path),
    )


def _end_of_sequence(
    companions: Mapping[str, str], tokenizer: JsonTokenizer, path: Path
) -> int | None:
    token = read_special_tokens(companions, path).get("eos_token")
    return None if token is None else tokenizer.token_id(token)


def _no_text(path: Path, task: Mapping[str, Any]) -> InputError:
    trained = f"on the task {task['name']!r}" if "name" in task else "on something it does not say"
    return InputError(
        f"{path} was trained {trained}: it takes no text",
        hint=f"loopedge run {path} --input X.npz",
    )


def empty_text(example: str) -> InputError:
    """Return the error of a text without a token."""
    return InputError("the text is empty: there is nothing to run on", hint=example)


def check_length(ids: Sequence[int], longest: int | None, path: object) -> None:
    """Refuse a text that is longer than a model takes.

    Raises:
        InputError: As said.
    """
    if longest is not None and len(ids) > longest:
        raise InputError(
            f"the text has {len(ids)} tokens, {path} takes at most {longest}",
            hint="shorten the text",
        )
