"""Keep a user's text from being read as the tokens that steer a model: ``<|im_end|>`` typed by somebody is text.

The tokens are broken up by a mark before a template is rendered, and the ids of what stands between the marks are found piece
by piece: no piece holds such a token. The template's own tokens stay whole.
"""

import re
from collections.abc import Iterable, Mapping

from loopedge.data.tokenizer import Tokenizer
from loopedge.errors import InputError

__all__ = ["break_up", "choose_mark", "encode_marked"]

NONCHARACTERS = range(0xFDD0, 0xFDF0)
"""Code points that no text should hold."""


def choose_mark(texts: Iterable[str]) -> str:
    """Return a character that no text holds.

    Raises:
        InputError: They hold all of them.
    """
    held = set().union(*map(set, texts))
    free = next((chr(point) for point in NONCHARACTERS if chr(point) not in held), None)
    if free is None:
        raise InputError("the text holds every code point that is no character")
    return free


def break_up(text: str, tokenizer: Tokenizer, mark: str) -> str:
    """Return a user's text with a mark inside each control token.

    Raises:
        InputError: The tokenizer finds a control token in plain text.
    """
    controls = tokenizer.control_tokens()
    literals = sorted(
        (token for token in controls.values() if len(token) > 1), key=len, reverse=True
    )
    broken = text
    if literals:
        found = re.compile("|".join(map(re.escape, literals)))
        while found.search(broken):  # one may begin within another
            broken = found.sub(lambda match: f"{match[0][0]}{mark}{match[0][1:]}", broken)
    held = _controls_in(broken, tokenizer, controls, mark)
    if held is None:
        return broken
    broken = mark.join(text)  # its normalizer makes a token of other characters
    held = _controls_in(broken, tokenizer, controls, mark)
    if held is not None:
        raise InputError(f"the text holds {held!r}, which the tokenizer takes for a control token")
    return broken


def encode_marked(text: str, tokenizer: Tokenizer, mark: str) -> list[int]:
    """Return the ids of a text piece by piece, without its marks."""
    ids: list[int] = []
    for piece in text.split(mark):
        if piece:
            ids += tokenizer.encode(piece).tolist()
    return ids


def _controls_in(
    text: str, tokenizer: Tokenizer, controls: Mapping[int, str], mark: str
) -> str | None:
    if not controls:
        return None
    found = controls.keys() & set(encode_marked(text, tokenizer, mark))
    return controls[min(found)] if found else None
