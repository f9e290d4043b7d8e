"""The page of a pilot: what stands on its first screen, in two languages, and what never stands on it."""

import html
import importlib
import io
import re
import string
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from rich.console import Console

import loopedge.baselines
import loopedge.report.pilot
from loopedge.errors import InputError
from loopedge.report.pilot.depths import depth_curve
from loopedge.report.pilot.facts import first_facts
from loopedge.report.pilot.page import pilot_page, write_pilot_html
from loopedge.report.pilot.quality_cost import Point, pareto_front
from loopedge.report.pilot.terminal import pilot_table
from loopedge.report.pilot.texts import english, japanese
from loopedge.report.pilot.wording import Wording
from loopedge.report.svg.dots import Dot, dots
from loopedge.study.judging.statements import Cost, Decision, NextStep, Rounding, Stability, Why
from loopedge.study.result import PilotResult
from loopedge.study.words.english import sentence
from tests.unit import pilot_results

MADE: dict[str, Callable[[], PilotResult]] = {
    name: getattr(pilot_results, f"make_{name}")
    for name in ("yes", "no", "undecided", "failed", "labels")
}
BOTH = pytest.mark.parametrize("language", ["en", "ja"])
EACH = pytest.mark.parametrize("name", list(MADE))
MOST_WORDS = 120
DRAWN = re.compile(r"<(style|svg|title)\b.*?</\1>", re.S)


def visible(page: str) -> str:
    """Return the text of a page that stands beside its pictures."""
    text = html.unescape(re.sub(r"<[^>]+>", " ", DRAWN.sub(" ", page)))
    return text.replace("\u00a0", " ")


@EACH
def test_the_first_screen_has_few_words_and_one_chart(name: str) -> None:
    page = pilot_page(MADE[name]())
    first, heading, _ = page.partition("<h2>")
    assert heading
    words = re.findall(r"[\w.,%±-]*\w[\w.,%±-]*", visible(first))
    assert len(words) <= MOST_WORDS, " ".join(words)
    assert first.count("<figure") == first.count("<svg") == 1


def test_the_most_that_can_be_said_fits() -> None:
    made = MADE["yes"]()
    facts = {one.kind: one for one in made.verdict.statements}
    first, rounding, cost = facts["decision"], facts["rounding"], facts["cost"]
    assert isinstance(first, Decision)
    assert isinstance(rounding, Rounding)
    assert isinstance(cost, Cost)
    facts["decision"] = replace(first, winner="untied")
    facts["rounding"] = replace(rounding, effect="worse")
    facts["cost"] = replace(cost, busy=True)
    lost = {"looped-r8": 3}
    facts["stability"] = Stability(runs=165, diverged=lost, failed=lost, no_int8=lost)
    facts["next-step"] = NextStep(what="compare-untied", seconds=5000.0, command="loopedge pilot")
    verdict = replace(made.verdict, statements=list(facts.values()))
    design = {**made.design, "origins": 3}
    first_screen = pilot_page(replace(made, verdict=verdict, design=design)).partition("<h2>")[0]
    text = visible(first_screen)
    assert MOST_WORDS - 12 <= len(re.findall(r"[\w.,%±-]*\w[\w.,%±-]*", text)) <= MOST_WORDS, text
    for said in ("8 untied layers are better still", "slower here", "still improving", "compare"):
        assert said in text


@EACH
@BOTH
def test_a_page_stands_alone(name: str, language: str) -> None:
    page = pilot_page(MADE[name](), language=language)
    assert f'<html lang="{language}">' in page
    assert "<script" not in page
    assert not re.search(r"https?://", page)
    assert not re.search(r"\bNone\b(?! of)", visible(page))
    assert not re.search(
        r"\{\w*\}|\bnan\b|\binf\b(?! at step)", visible(page).replace("loss inf", "")
    )


def test_both_languages_have_the_same_texts() -> None:
    assert list(english.TEXTS) == list(japanese.TEXTS)
    assert set(english.ARMS) == set(japanese.ARMS)
    assert set(english.OUTCOMES) == set(japanese.OUTCOMES)
    assert set(english.UNITS) == set(japanese.UNITS)

    def holes(text: str) -> set[str | None]:
        return {field for _, field, _, _ in string.Formatter().parse(text)} - {None}

    different = [
        key for key in english.TEXTS if holes(english.TEXTS[key]) != holes(japanese.TEXTS[key])
    ]
    assert different == []


@BOTH
@pytest.mark.parametrize("why", get_args(Why))
def test_every_reason_of_a_decision_has_words(why: Why, language: str) -> None:
    made = MADE["undecided"]()
    first, *others = made.verdict.statements
    assert isinstance(first, Decision)
    decision = replace(first, why=why, winner="ridge on lags", chosen=first.best)
    verdict = replace(made.verdict, statements=[decision, *others])
    words = Wording("ja" if language == "ja" else "en")
    text = words.headline(replace(made, verdict=verdict))
    assert text.startswith(tuple(words.answers))
    assert "None" not in text


@BOTH
@pytest.mark.parametrize("what", get_args(get_type_hints(NextStep)["what"]))
def test_every_next_step_has_words(what: Any, language: str) -> None:
    made = MADE["undecided"]()
    step = NextStep(what=what, seeds=2, origins=3, margin=0.1, seconds=60.0)
    verdict = replace(made.verdict, statements=[*made.verdict.statements[:-1], step])
    words = Wording("ja" if language == "ja" else "en")
    result = replace(made, verdict=verdict)
    assert first_facts(result, words, most_words=99)["next"]
    assert words.sentences([step], result)[0]


def test_every_baseline_has_a_japanese_name() -> None:
    folder = Path(next(iter(loopedge.baselines.__path__)))
    source = "\n".join(path.read_text(encoding="utf-8") for path in folder.rglob("*.py"))
    named = re.findall(
        r'attempt\(task, "([^"]+)"|^ +"([^"]+[ -][^"]+)": _?[a-z]+(?:_[a-z]+)*,$', source, re.M
    )
    names = {one or other for one, other in named}
    assert {"ridge on lags", "most frequent class", "n-grams", "copy of the source"} <= names
    assert names <= set(japanese.BASELINES)


def test_every_text_is_used() -> None:
    folder = Path(next(iter(loopedge.report.pilot.__path__)))
    source = "\n".join(path.read_text(encoding="utf-8") for path in folder.glob("*.py"))
    built = (
        "head_",
        "kind_",
        "status_",
        "next_",
        "fact_",
        "windows_caption_",
        "against_",
        "split_",
        "weak_",
    )
    unused = [
        key
        for key in english.TEXTS
        if not re.search(rf"""["']{key}["']""", source)
        and not key.startswith(built)
        and not key.endswith(("_one", "_many"))
    ]
    assert unused == []


@EACH
def test_a_japanese_page_holds_no_english_sentence(name: str) -> None:
    page = pilot_page(MADE[name](), language="ja")
    for pattern in (r"<code>.*?</code>", r"<(\w+)[^>]* lang=\"en\"[^>]*>.*?</\1>"):
        page = re.sub(pattern, " ", page, flags=re.S)
    page = re.sub(r"<style>.*?</style>", " ", page, flags=re.S)
    spoken = html.unescape(re.sub(r"<[^>]+>", "|", page))
    heard = html.unescape(" | ".join(re.findall(r'aria-label="([^"]*)"', page)))
    assert re.findall(r"\b[A-Za-z][a-z]+(?:,? [a-z]{2,}){2,}", f"{spoken}|{heard}") == []
    assert len(re.findall(r"[\u3040-\u30ff\u4e00-\u9fff]", spoken)) > 500


def test_no_value_of_the_data_stands_on_a_page_without_data(tmp_path: Path) -> None:
    made = MADE["yes"]()
    window = replace(made.windows[0], history=[98_765.0], series="north <b>")
    result = replace(made, windows=[window])
    page = pilot_page(result)
    assert "100000</text>" in page  # the axis of the window
    assert "north &lt;b&gt;" in page
    write_pilot_html(result, tmp_path / "page.html", data=False)
    plain = (tmp_path / "page.html").read_text(encoding="utf-8")
    for told in ("98765", "100000", "north", "Forecasts"):
        assert told not in plain


def test_rows_that_failed_stay_and_a_stopped_pilot_says_so() -> None:
    page = pilot_page(MADE["failed"]())
    assert "2 of 12 runs are made" in page
    board = page.partition("<h2>Leaderboard</h2>")[2].partition("<h2>")[0]
    assert "out of memory &lt;at step 3&gt;" in board
    assert board.count("no score") == 3
    assert "scikit-learn ran out of memory" in board


def test_what_is_recommended_stands_out() -> None:
    page = pilot_page(MADE["yes"]())
    assert page.count('<tr class="marked">') == 1
    row = page.partition('<tr class="marked">')[2].partition("</tr>")[0]
    assert "timestep with 8 loops<small>recommended</small>" in row
    assert '<g class="chosen"><title>timestep with 8 loops: 3.484' in page
    assert 'class="marked"' not in pilot_page(MADE["no"]())


def test_int8_that_is_slower_is_a_caution() -> None:
    assert "slower here" in visible(pilot_page(MADE["yes"]()))
    assert "slower here" not in visible(pilot_page(MADE["no"]()))


def test_a_hundredth_of_the_time_more_is_not_called_slower() -> None:
    found = MADE["yes"]()
    kinds = {"cost": {"seconds": 0.0010, "int8_seconds": 0.00101}, "rounding": {"time_ratio": 1.01}}
    close = [replace(one, **kinds.get(one.kind, {})) for one in found.verdict.statements]
    verdict = replace(found.verdict, statements=close)
    rounding = next(one for one in close if isinstance(one, Rounding))
    page = visible(pilot_page(replace(found, verdict=verdict)))
    assert "slower here" not in page
    assert sentence(rounding, verdict.names).endswith("it takes 1.01x the time.")


def test_what_the_budget_left_out_and_the_looks_are_shown() -> None:
    page = visible(pilot_page(MADE["undecided"]()))
    assert (
        "looped with 8 loops: among the worse on the validation split (4.2) with 25 % of the steps"
        in page
    )
    assert "5 more seeds, about 12 min" in page
    assert "--resume --seeds 8" in page


def test_a_language_that_is_not_there_is_refused() -> None:
    with pytest.raises(
        InputError, match="language 'de' is not known, the page is written in en, ja"
    ):
        pilot_page(MADE["yes"](), language="de")


def test_the_front_holds_what_none_beats() -> None:
    def point(cost: float, quality: float) -> Point:
        return Point(arm="looped", loops=1, kind="float", cost=cost, quality=quality)

    points = [point(1, 5), point(2, 4), point(3, 4.5), point(3, 3), point(2, 6), point(4, 3)]
    found = pareto_front(points, higher_is_better=False)
    assert [(one.cost, one.quality) for one in found] == [(1, 5), (2, 4), (3, 3)]
    found = pareto_front(points, higher_is_better=True)
    assert [(one.cost, one.quality) for one in found] == [(1, 5), (2, 6)]


def test_a_depth_curve_is_the_mean_of_the_runs_that_have_a_count() -> None:
    cells: list[dict[str, Any]] = [
        {"depths": {"1": {"test": {"rmse": 2.0}}, "2": {"test": {"rmse": 1.0}}}},
        {"depths": {"1": {"test": {"rmse": 4.0}}, "2": {"test": {"rmse": None}}}},
        {"depths": None},
    ]
    assert depth_curve(cells, "test", "rmse") == [(1, 3.0)]
    assert depth_curve(cells, "validation", "rmse") == []


def test_models_that_may_stop_early_have_a_row() -> None:
    page = pilot_page(MADE["yes"]())
    board = page.partition("<h3>Early exit</h3>")[2].partition("</table>")[0]
    row = board.partition("timestep with 8 loops")[2].partition("</tr>")[0]
    assert re.findall(r"<td>([^<]*)</td>", row) == ["5 of 5", "5.5", "3.496", "3.484", "0.05"]
    assert board.count("<tr>") == 4  # the head, and three arms with 8 loops
    assert "Early exit" not in pilot_page(MADE["labels"]())


def test_dots_stand_where_their_values_are() -> None:
    rows = [
        Dot(name="a <b>", value=1.0, spread=0.5, text="1", kind="chosen"),
        Dot(name="c", value=3.0, spread=None, text="3", kind="plain"),
    ]
    drawn = "\n".join(dots(rows, level=2.0, name="error", score=lambda value: f"{value:g}"))
    first, last = (float(x) for x in re.findall(r'<circle cx="([\d.]+)%"', drawn))
    level, other = re.findall(r'class="level" x1="([\d.]+)%"', drawn)
    assert level == other
    assert float(level) == pytest.approx((first + last) / 2, abs=0.01)
    (left, right) = re.findall(r'"whisker" x1="([\d.]+)%" x2="([\d.]+)%"', drawn)[0]
    assert (float(left) + float(right)) / 2 == pytest.approx(first, abs=0.01)
    assert float(right) - float(left) == pytest.approx((last - first) / 2, abs=0.02)
    assert "a &lt;b&gt;" in drawn


@pytest.mark.parametrize(
    ("language", "texts"),
    [
        (
            "en",
            ["1.50x", "96 %", "> 99 %", "12 min", "2.0 h", "3.484 ± 0.021", "3.484", "\u22120.5"],
        ),
        (
            "ja",
            ["1.50倍", "96%", "> 99%", "12分", "2.0時間", "3.484 ± 0.021", "3.484", "\u22120.5"],
        ),
    ],
)
def test_numbers_are_written_as_readers_expect(language: str, texts: list[str]) -> None:
    words = Wording("ja" if language == "ja" else "en")
    found = [
        words.ratio(1.5),
        words.percent(0.96),
        words.probability(0.9999),
        words.duration(732),
        words.duration(7200),
        words.spread(3.484, 0.021),
        words.spread(3.484, 3.7e-17),
        words.score(-0.5),
    ]
    assert [text.replace("\u00a0", " ") for text in found] == texts


@EACH
@BOTH
def test_a_terminal_shows_the_same_at_any_width(name: str, language: str) -> None:
    def shown(width: int) -> list[str]:
        console = Console(width=width, file=io.StringIO(), record=True)
        console.print(pilot_table(MADE[name](), language=language))
        return sorted("".join(console.export_text().split()))

    assert shown(80) == shown(400)


@pytest.mark.slow
def test_a_report_needs_no_torch() -> None:
    modules = ("page", "terminal", "wording", "texts.japanese")
    program = "\n".join(f"import loopedge.report.pilot.{name}" for name in modules)
    program += "\nimport loopedge.study.result_file, sys; print('torch' in sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == "False"
    assert importlib.util.find_spec("loopedge.report.pilot.page") is not None
