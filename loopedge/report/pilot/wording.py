"""The words of a page in one language: its texts, and how it writes numbers, names and what a pilot says."""

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from loopedge.errors import InputError
from loopedge.options import option
from loopedge.report.svg.chart import ChartWords
from loopedge.study.judging.statements import Candidate, Statement
from loopedge.study.judging.statistics import OverSeeds
from loopedge.units import size_text, time_text

if TYPE_CHECKING:
    from loopedge.study.result import PilotResult

__all__ = ["LANGUAGES", "Language", "Wording", "wording"]

Language = Literal["en", "ja"]
LANGUAGES: dict[Language, str] = {"en": "english", "ja": "japanese"}
GAP = "\u00a0"
"""A space at which no line is broken, before a unit."""
NOTHING = 1e-9
"""A difference below this part of what it is a difference of is rounding."""


class Wording:
    """Texts by key, and numbers as a reader of the language expects them."""

    def __init__(self, language: Language) -> None:
        self.language = language
        room = importlib.import_module(f"loopedge.report.pilot.texts.{LANGUAGES[language]}")
        self.texts: Mapping[str, str] = room.TEXTS
        self.outcomes: Mapping[str, str] = room.OUTCOMES
        self.answers: Sequence[str] = room.ANSWERS
        self.arms: Mapping[str, str] = room.ARMS
        self._baselines: Mapping[str, str] = room.BASELINES
        self._units: Mapping[str, str] = room.UNITS

    def __call__(self, key: str, **values: Any) -> str:
        """Return a text with its values filled in."""
        return self.texts[key].format(**values)

    def count(self, key: str, count: int) -> str:
        """Return a number of things: ``KEY_one`` of one, else ``KEY_many``."""
        return self(f"{key}_{'one' if count == 1 else 'many'}", count=f"{count:,}")

    def headline(self, result: "PilotResult") -> str:
        """Return the first sentence of a verdict; empty where it holds no facts."""
        statements = result.verdict.statements
        return str(self._room().headline(statements, result.verdict.names)) if statements else ""

    def reason(self, result: "PilotResult") -> str:
        """Return the first sentence without its yes, no or undecided, which stands above it."""
        text = self.headline(result)
        for answer in self.answers:
            text = text.removeprefix(answer)
        return text.strip()

    def sentences(self, statements: Sequence[Statement], result: "PilotResult") -> list[str]:
        """Return what statements say, a sentence or two each; any but the decision."""
        names = result.verdict.names
        texts = (self._room().sentence(one, names) for one in statements)
        return [text for text in texts if text]

    def _room(self) -> Any:
        return importlib.import_module(f"loopedge.study.words.{LANGUAGES[self.language]}")

    def joined(self, parts: Sequence[str]) -> str:
        """Return parts of a sentence as one."""
        return self("separator").join(parts)

    @property
    def chart(self) -> ChartWords:
        """What charts say."""
        return ChartWords(empty=self("no_value"), off_chart=self.texts["off_chart_level"])

    def loops(self, count: int) -> str:
        """Return ``4 loops``."""
        return self.count("loops", count)

    def candidate(self, candidate: Candidate | Mapping[str, Any]) -> str:
        """Return the name of an arm at a loop count, as the sentences of the verdict say it."""
        if not isinstance(candidate, Candidate):
            candidate = Candidate(arm=candidate["arm"], loops=candidate["loops"])
        return str(self._room().candidate_text(candidate))

    def baseline(self, name: str) -> str:
        """Return the name of a plain baseline; one without a word of its own keeps its own."""
        plain = name.replace("_", " ")
        return self._baselines.get(plain, plain)

    def score(self, value: float | None) -> str:
        """Return a metric with four digits, or a dash."""
        return "-" if value is None else _minus(f"{value:.4g}")

    def quality(self, quality: OverSeeds | None) -> str:
        """Return mean and deviation of a metric."""
        if quality is None:
            return "-"
        return self.spread(quality.mean, quality.sd)

    def spread(self, mean: float | None, deviation: float | None) -> str:
        """Return a mean, and its deviation where it is one."""
        if mean is None:
            return "-"
        tiny = deviation is None or deviation <= NOTHING * abs(mean)
        return self.score(mean) if tiny else f"{self.score(mean)}{GAP}±{GAP}{deviation:.2g}"

    def rounded(self, value: float) -> str:
        """Return a difference with two digits."""
        return _minus(f"{value:.2g}")

    def percent(self, share: float, *, digits: int = 0) -> str:
        """Return a share as percent."""
        gap = GAP if self.language == "en" else ""
        return _minus(f"{100 * share:.{digits}f}{gap}%")

    def probability(self, share: float) -> str:
        """Return a probability, never as certain."""
        if share > 0.99:
            return f"> {self.percent(0.99)}"
        return f"< {self.percent(0.01)}" if share < 0.01 else self.percent(share)

    def ratio(self, ratio: float) -> str:
        """Return a ratio: ``1.5x``."""
        digits = f"{ratio:.2f}" if ratio < 10 else f"{ratio:.1f}"
        return f"{digits}x" if self.language == "en" else f"{digits}倍"

    def size(self, size: float) -> str:
        """Return bytes with their unit."""
        return size_text(size).replace(" ", GAP)

    def sample_time(self, seconds: float) -> str:
        """Return the time of a sample."""
        return time_text(seconds * 1000).replace(" ", GAP)

    def duration(self, seconds: float) -> str:
        """Return how long something takes, with few digits."""
        if seconds < 90:
            number, unit = f"{max(1.0, seconds):.0f}", "s"
        elif seconds < 90 * 60:
            number, unit = f"{seconds / 60:.0f}", "min"
        else:
            number, unit = f"{seconds / 3600:.1f}", "h"
        gap = GAP if self.language == "en" else ""
        return f"{number}{gap}{self._units[unit]}"


def wording(language: str) -> Wording:
    """Return the words of a language.

    Raises:
        InputError: The page is not written in it.
    """
    if language not in LANGUAGES:
        known = ", ".join(LANGUAGES)
        raise InputError(
            f"language {language!r} is not known, the page is written in {known}",
            hint=option("language", "en"),
        )
    return Wording(language)


def _minus(text: str) -> str:
    """Write a minus as a minus, which is as wide as a plus."""
    return text.replace("-", "\u2212") if text.startswith("-") else text
