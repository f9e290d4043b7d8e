"""The statements of a pilot in English: a headline, and a sentence for each."""

from collections.abc import Callable, Sequence
from typing import Any

from loopedge.study.judging.statements import (
    AgainstBaseline,
    Alternative,
    Candidate,
    Chosen,
    Cost,
    Decision,
    Effect,
    Encoding,
    Equivalence,
    MoreLoops,
    NextStep,
    NotConverged,
    Requirements,
    Rounding,
    Stability,
    Statement,
    Untied,
)
from loopedge.study.judging.statistics import Interval
from loopedge.study.words.figures import (
    Names,
    bounds_text,
    difference_text,
    figure_text,
    is_nothing,
    is_slower,
    minutes_of,
    quality_text,
    sample_time_text,
    share_text,
)
from loopedge.units import ratio_text, size_text

__all__ = ["candidate_text", "headline", "sentence"]

ARMS = {"timestep": "timestep encoding", "constant": "constant gates", "looped": "the plain loop"}
"""What an arm adds to the plain loop, where it is compared with it."""
NEARLY = 0.1
REASONS = {
    "untied-gain-within-noise": "layers of their own gain no more than the noise of the seeds",
    "no-untied-arm": "the arms untied and narrow were not both made",
    "too-few-runs": "too few runs finished",
}


def headline(statements: Sequence[Statement], names: Names) -> str:
    """Return the first sentence of a pilot.

    Args:
        statements: Its `Decision` first.
        names: What things are called.
    """
    decision = statements[0]
    if not isinstance(decision, Decision):
        raise TypeError(f"the first statement is {decision.kind}, the decision is needed")
    by_kind = {one.kind: one for one in reversed(statements)}
    against = by_kind.get(AgainstBaseline.kind)
    untied = [one for one in statements if isinstance(one, Untied) and one.arm == decision.winner]
    text = _decision(decision, against if isinstance(against, AgainstBaseline) else None)
    if not untied:
        return text
    if decision.why == "untied":
        return f"No: {_untied_name(untied[0])} are better, {_parameters(untied[0])}."
    return f"{text} {_capital(_untied_name(untied[0]))} are better still, {_parameters(untied[0])}."


def sentence(statement: Statement, names: Names) -> str:
    """Return a statement as one sentence or two; empty where there is nothing to say.

    Args:
        statement: Any but the decision, of which `headline` makes the first sentence.
        names: What things are called, and how fine differences are.
    """
    return SENTENCES[statement.kind](statement, names)


def candidate_text(candidate: Candidate) -> str:
    """Return ``timestep with 8 loops``."""
    if candidate.arm == "untied":
        return f"{candidate.loops} untied layers"
    if candidate.arm == "narrow":
        return f"{candidate.loops} narrow untied layers"
    return f"{candidate.arm} with {_loops(candidate.loops)}"


def _decision(decision: Decision, against: AgainstBaseline | None) -> str:
    best = "" if decision.best is None else candidate_text(decision.best)
    model = best if against is None else candidate_text(against.candidate)
    baseline = "" if against is None else against.baseline
    why = decision.why
    if why == "loops":
        return _yes(decision, baseline)
    if why == "one-loop":
        if not baseline:
            return "No: one loop is as good as more."
        beaten = "beats" if decision.chosen is not None else "is not shown to beat"
        return f"No: one loop is as good as more, and {beaten} {baseline}."
    texts = {
        "baseline": f"No: {decision.winner} is better than {model}.",
        "baseline-as-good": f"No: {decision.winner} is as good as {model}.",
        "untied": f"No: {decision.winner} is better than {model}.",
        "seeds": _seeds(decision, against),
        "period": _open(against, "the test split is too small"),
        "splits": "Undecided: validation and test split disagree on which model is best.",
        "few-seeds": f"Undecided: a verdict needs 3 runs of each model, {_were(decision.blocks)} made.",
        "one-count": "Undecided: one loop alone was made, which says nothing of more.",
        "nothing-finished": "Undecided: no looped model finished all its runs.",
    }
    return texts[why]


def _yes(decision: Decision, baseline: str) -> str:
    chosen = decision.chosen or Candidate(arm="looped", loops=1)
    text = f"Yes: {candidate_text(chosen)}" + (
        f" beats {baseline}" if baseline else " is the one to take"
    )
    if decision.counts[:1] < (chosen.loops,):
        return f"{text}, and fewer loops are worse."
    return f"{text}, and more loops are no better." if len(decision.counts) > 1 else f"{text}."


def _open(against: AgainstBaseline | None, why: str) -> str:
    """Say that a model cannot be told from the baseline, and which of them is ahead."""
    if against is None:
        return f"Undecided: {why}."
    model = candidate_text(against.candidate)
    first, second = (model, against.baseline) if against.ahead else (against.baseline, model)
    return f"Undecided: {first} is ahead of {second}, but {why} to be sure."


def _seeds(decision: Decision, against: AgainstBaseline | None) -> str:
    if decision.fewest is None:
        return _open(against, f"{decision.blocks} runs of each model are too few")
    runs = f"Undecided: {decision.blocks} runs of each model cannot tell"
    most = decision.most or decision.fewest
    if most == decision.fewest:
        return f"{runs} which loop count is best."
    return f"{runs} whether {_loops(decision.fewest)} {_are(decision.fewest)} as good as {most}."


def _against_baseline(one: AgainstBaseline, names: Names) -> str:
    known = f"{one.baseline} ({names.metric} {figure_text(one.value)})"
    firsts = {
        "better": f"{_capital(known)} is beaten",
        "worse": f"{_capital(known)} is not beaten",
        "equal": f"{_capital(known)} is as good",
        "undecided": f"It is not shown that {known} is beaten",
    }
    text = (
        f"{firsts[one.effect]}: {candidate_text(one.candidate)} reaches {quality_text(one.quality)}"
    )
    over = "" if one.difference is None or one.difference.low is None else f" over {one.over}"
    text += f" ({_difference(one.difference, names)}{over})."
    if one.seasonal is not None and None not in one.seasonal:
        mine, plain = (figure_text(value or 0.0) for value in one.seasonal)
        text += f" MASE: {mine} against {plain}."
    if one.effect == "undecided" and one.visible is not None:
        text += f" This test split shows differences from {_size(one.visible, names)} on."
    return text


def _chosen(one: Chosen, names: Names) -> str:
    text = f"Recommended: {candidate_text(one.candidate)}, with a probability of {share_text(one.sure)} "
    margin = names.margin_text or figure_text(names.margin)
    text += f"within the margin ({margin}) of the best."
    if one.honest is not None:
        text += f" Without the luck of choosing: {names.metric} {figure_text(one.honest)}."
    return text


def _more_loops(one: MoreLoops, names: Names) -> str:
    firsts = {
        "better": "More loops help",
        "worse": "More loops make it worse",
        "equal": "More loops make no difference that matters",
        "undecided": "Whether more loops help on the test split is open",
    }
    small = ""
    if one.effect == "better" and one.difference is not None:
        small = ", by less than the margin" if abs(one.difference.mean) <= names.margin else ""
    return (
        f"{firsts[one.effect]}{small}: {quality_text(one.many_quality)} at {_loops(one.many)}, "
        f"{quality_text(one.few_quality)} at {one.few} ({_difference(one.difference, names)})."
    )


def _encoding(one: Encoding, names: Names) -> str:
    mine, other = ARMS.get(one.arm, one.arm), ARMS.get(one.against, one.against)
    plural = one.arm == "constant"
    verbs = {
        "better": "help" if plural else "helps",
        "worse": "make it worse" if plural else "makes it worse",
        "equal": "make no difference that matters"
        if plural
        else "makes no difference that matters",
    }
    what = f"{_capital(mine)} against {other} at {_loops(one.loops)}"
    if one.effect == "undecided":
        return f"{what}: open ({_difference(one.difference, names)})."
    return f"{what} {verbs[one.effect]} ({_difference(one.difference, names)})."


def _untied(one: Untied, names: Names) -> str:
    firsts: dict[Effect, str] = {
        "better": "are better",
        "worse": "are worse",
        "equal": "are as good",
        "undecided": "cannot be told from it",
    }
    return (
        f"{_capital(_untied_name(one))} {firsts[one.effect]}: {quality_text(one.quality)} {_parameters(one)} "
        f"as {candidate_text(one.against)} ({_difference(one.difference, names)})."
    )


def _alternative(one: Alternative, names: Names) -> str:
    return (
        f"One model for any loop count does as well, as far as can be told: {candidate_text(one.candidate)} "
        f"({_difference(one.difference, names)})."
    )


def _equivalence(one: Equivalence, names: Names) -> str:
    if one.exponent is None or one.low is None or one.high is None:
        reason = f": {REASONS[one.reason]}" if one.reason is not None else ""
        return f"What a loop is worth against a layer of its own cannot be said{reason}."
    return (
        f"A loop is worth {one.exponent:.2f} on a scale from 0 (nothing) to 1 (a layer of its own), "
        f"95 % interval {one.low:.2f} to {one.high:.2f}."
    )


def _rounding(one: Rounding, names: Names) -> str:
    firsts = {
        "better": f"int8 is better by {one.share:.1%}",
        "worse": f"int8 is worse by {one.share:.1%}",
        "equal": "int8 is as good",
        "undecided": "What int8 does cannot be told",
    }
    text = f"{firsts[one.effect]} ({_difference(one.change, names)})"
    if one.time_ratio is not None:
        slow = is_slower(one.time_ratio)
        text += f"; it takes {ratio_text(one.time_ratio)} the time" + (
            ": slower here" if slow else ""
        )
    return f"{text}."


def _cost(one: Cost, names: Names) -> str:
    text = (
        f"{_capital(candidate_text(one.candidate))} takes {size_text(one.file_bytes)} in the file, "
    )
    if one.memory_bytes:
        text += f"{size_text(one.memory_bytes)} of memory "
    text += f"and {sample_time_text(one.seconds)} a sample"
    if one.busy:
        text += " on a machine that was busy"
    if one.fewest is not None and one.time_ratio is not None:
        text += f", {ratio_text(one.time_ratio)} the time of {_loops(one.fewest)}"
    if one.int8_bytes is not None and one.int8_seconds is not None:
        text += f"; int8 {size_text(one.int8_bytes)} and {sample_time_text(one.int8_seconds)}"
    if one.untied_bytes is not None:
        text += f"; without tying the file has {size_text(one.untied_bytes)}"
    return f"{text}."


def _stability(one: Stability, names: Names) -> str:
    parts = [
        f"{sum(of.values())} of {_runs(one.runs)} {what}: {_where(of)}."
        for what, of in (
            ("diverged", one.diverged),
            ("failed", one.failed),
            ("have no int8 model", one.no_int8),
        )
        if of
    ]
    if one.runs and not one.diverged and not one.failed:
        parts.append(f"None of {_runs(one.runs)} diverged.")
    return " ".join(parts)


def _not_converged(one: NotConverged, names: Names) -> str:
    if not one.runs:
        return ""
    were = "was" if one.runs == 1 else "were"
    return f"{one.runs} of {_runs(one.of)} {were} still improving after {one.steps} steps: train longer."


def _requirements(one: Requirements, names: Names) -> str:
    model = "" if one.model is None else f" ({one.model})"
    if one.meets is not None:
        return f"{_capital(candidate_text(one.meets))}{model} is the best that meets what was required."
    if one.nearest is None:
        return "No model was measured yet that can be held against what was required."
    missed = ", ".join(
        f"{what} {_required(what, found)} instead of {_required(what, wanted)}"
        for what, (found, wanted) in one.missed.items()
    )
    return f"No model meets what was required; {candidate_text(one.nearest)}{model} comes nearest: {missed}."


def _next_step(one: NextStep, names: Names) -> str:
    texts = {
        "more-seeds": f"{one.seeds} more seed{'' if one.seeds == 1 else 's'} may decide it",
        "more-origins": f"{one.origins} test periods may decide it",
        "longer-data": "only a longer test split can decide it",
        "longer-training": "train longer, and compare again",
        "wider-margin": f"a margin of {figure_text(one.margin or 0.0)} would decide it, many more seeds may",
        "deploy": "deploy it",
        "take-baseline": "take the baseline, or train longer and compare again",
        "compare-untied": "compare what it costs with the network without a loop",
        "more-loops": "compare more loop counts",
        "mend-runs": "see why the runs ended, and make them again",
        "go-on": "make the runs that are missing",
    }
    text = f"Next: {texts[one.what]}"
    if one.seconds is not None:
        number, unit = minutes_of(one.seconds)
        text += f", about {number:g} {unit}"
    return f"{text}: {one.command}" if one.command else f"{text}."


def _difference(difference: Interval | None, names: Names) -> str:
    if difference is None:
        return "no run in common"
    bounds = bounds_text(difference, names)
    if is_nothing(difference.mean, names) and bounds in (None, ("0", "0")):
        return "no difference"
    text = f"difference {difference_text(difference.mean, names)}"
    return text if bounds is None else f"{text}, 95 % interval {bounds[0]} to {bounds[1]}"


def _size(value: float, names: Names) -> str:
    return difference_text(abs(value), names).removeprefix("+")


def _required(what: str, value: float) -> str:
    if what == "memory":
        return size_text(value)
    return sample_time_text(value) if what == "latency" else figure_text(value)


def _untied_name(one: Untied) -> str:
    return candidate_text(Candidate(arm=one.arm, loops=one.loops))


def _parameters(one: Untied) -> str:
    if abs(one.parameters_ratio - 1) < NEARLY:
        return "with as many parameters"
    return f"with {one.parameters_ratio:.1f} times as many parameters"


def _where(counts: dict[str, int]) -> str:
    parts = []
    for name, count in counts.items():
        arm, _, loops = name.rpartition("-r")
        parts.append(f"{candidate_text(Candidate(arm=arm, loops=int(loops)))} {count}")
    return ", ".join(parts)


def _loops(count: int) -> str:
    return f"{count} loop{'' if count == 1 else 's'}"


def _runs(count: int) -> str:
    return f"{count} run{'' if count == 1 else 's'}"


def _were(count: int) -> str:
    return f"{count} {'was' if count == 1 else 'were'}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


SENTENCES: dict[str, Callable[[Any, Names], str]] = {
    AgainstBaseline.kind: _against_baseline,
    Chosen.kind: _chosen,
    MoreLoops.kind: _more_loops,
    Encoding.kind: _encoding,
    Untied.kind: _untied,
    Alternative.kind: _alternative,
    Equivalence.kind: _equivalence,
    Rounding.kind: _rounding,
    Cost.kind: _cost,
    Stability.kind: _stability,
    NotConverged.kind: _not_converged,
    Requirements.kind: _requirements,
    NextStep.kind: _next_step,
}
