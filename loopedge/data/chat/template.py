"""The chat template of a published model, from the files beside it; it is untrusted."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from loopedge.data.chat import sandbox
from loopedge.data.chat.control_tokens import break_up, choose_mark, encode_marked
from loopedge.data.tokenizer import Tokenizer
from loopedge.errors import InputError, LoopedgeError, MissingExtraError
from loopedge.files.json_text import parse_json

__all__ = ["CONFIG_FILE", "TEMPLATE_FILE", "ChatTemplate", "read_special_tokens"]

TEMPLATE_FILE, CONFIG_FILE = "chat_template.jinja", "tokenizer_config.json"
"""What the companions are called."""

MOST_TEMPLATE_CHARACTERS = 256 << 10
MOST_SECONDS = 5
"""Of processor time."""

MOST_MEMORY_BYTES = 512 << 20
MOST_WAIT_SECONDS = 15
"""For the process: its own limit is of processor time, and it may be started on a busy machine."""

DEFAULT = "default"
"""Of several templates by name, the one that is taken."""

Message = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatTemplate:
    """How a conversation is written for a model.

    Args:
        text: The template, Jinja.
        source: What errors call it.
        special_tokens: ``bos_token`` and the like, which templates name.
    """

    text: str
    source: str
    special_tokens: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, companions: Mapping[str, str], model: object) -> "ChatTemplate":
        """Return the template of a model: ``chat_template.jinja``, else that of ``tokenizer_config.json``.

        Args:
            companions: Texts of the files beside it, by what they are.
            model: What errors call the model.

        Raises:
            InputError: There is none, or it is damaged or too long.
        """
        config = _config(companions, model)
        text: Any = companions.get(TEMPLATE_FILE)
        source = f"the chat template of {model}"
        if text is None:
            text = _chosen(config.get("chat_template"))
        if text is None:
            raise InputError(
                f"{model} has no chat template: neither {TEMPLATE_FILE} nor one in {CONFIG_FILE}",
                hint="leave out --chat: the prompt is what the model continues",
            )
        if not isinstance(text, str):
            raise InputError(f"{source} is a {type(text).__name__}, text is needed")
        if len(text) > MOST_TEMPLATE_CHARACTERS:
            raise InputError(
                f"{source} has {len(text):,} characters, {MOST_TEMPLATE_CHARACTERS:,} are allowed"
            )
        return cls(text=text, source=source, special_tokens=read_special_tokens(companions, model))

    def render(self, messages: Sequence[Message]) -> str:
        """Return a conversation as text, up to where the model answers.

        Args:
            messages: Each with ``role`` and ``content``.

        Raises:
            InputError: The template fails, refuses the conversation, or takes too long or too much memory.
            MissingExtraError: jinja2 is not installed.
        """
        if importlib.util.find_spec("jinja2") is None:
            raise MissingExtraError("a chat template", extra="text")
        variables = {
            "messages": list(map(dict, messages)),
            "add_generation_prompt": True,
            "tools": None,
            "documents": None,
            **self.special_tokens,
        }
        limits = {"seconds": MOST_SECONDS, "bytes": MOST_MEMORY_BYTES}
        answer = self._answer({"template": self.text, "variables": variables, **limits})
        if "error" in answer:
            raise InputError(f"{self.source} {answer['error']}")
        text: str = answer["text"]
        return text

    def encode(self, messages: Sequence[Message], tokenizer: Tokenizer) -> list[int]:
        """Return the ids of a conversation; control tokens in what was said stay text.

        Raises:
            InputError: As `render`; or what was said cannot be kept apart from control tokens.
            MissingExtraError: As `render`.
        """
        said = [message["content"] for message in messages]
        mark = choose_mark([self.text, *said, *tokenizer.control_tokens().values()])
        broken = [
            {**message, "content": break_up(message["content"], tokenizer, mark)}
            for message in messages
        ]
        return encode_marked(self.render(broken), tokenizer, mark)

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        words = [sys.executable, "-P", sandbox.__file__]  # by its path: it needs no package of ours
        try:
            done = subprocess.run(
                words,
                input=json.dumps(request),
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                check=False,
                timeout=MOST_WAIT_SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            raise InputError(f"{self.source} does not end within {MOST_WAIT_SECONDS} s") from error
        except OSError as error:
            raise LoopedgeError(
                f"no process could be started to render {self.source}: {error.strerror}"
            ) from error
        try:
            answer = json.loads(done.stdout)
        except ValueError:
            answer = {}
        if done.returncode or not isinstance(answer, dict) or not answer:
            limits = f"{MOST_SECONDS} s and {MOST_MEMORY_BYTES >> 20} MiB"
            return {"error": f"was ended: it takes more than {limits}, or is nested too deeply"}
        return answer


def read_special_tokens(companions: Mapping[str, str], model: object) -> dict[str, str]:
    """Return ``bos_token``, ``eos_token`` and the like of ``tokenizer_config.json``, by name.

    Raises:
        InputError: It is damaged.
    """
    found = {}
    for name, value in _config(companions, model).items():
        content = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(content, str):
            found[name] = content
    return found


def _config(companions: Mapping[str, str], model: object) -> dict[str, Any]:
    text = companions.get(CONFIG_FILE)
    if text is None:
        return {}
    try:
        values = parse_json(text)
    except ValueError as error:
        raise InputError(f"{CONFIG_FILE} of {model} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{CONFIG_FILE} of {model} is a {type(values).__name__}, not an object")
    return values


def _chosen(found: Any) -> Any:
    """Return the template of a list of several by name."""
    if not isinstance(found, list):
        return found
    named = {item.get("name"): item.get("template") for item in found if isinstance(item, dict)}
    return named.get(DEFAULT)
