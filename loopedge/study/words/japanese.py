"""The statements of a pilot as sentences in Japanese."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from loopedge.study.judging.statements import (
    AgainstBaseline,
    Alternative,
    Candidate,
    Chosen,
    Cost,
    Decision,
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
from loopedge.study.options import UNLOOPED
from loopedge.study.words.figures import (
    Names,
    bounds_text,
    difference_text,
    figure_text,
    is_slower,
    minutes_of,
    quality_text,
    sample_time_text,
    share_text,
)
from loopedge.units import size_text

__all__ = ["BASELINES", "UNITS", "baseline_text", "candidate_text", "headline", "sentence"]

BASELINES = {
    "last value": "直前の値",
    "seasonal naive": "季節ナイーブ法",
    "window mean": "直近の平均",
    "ridge on lags": "ラグのリッジ回帰",
    "climatology + autoregression": "平年値＋自己回帰",
    "boosting on lags": "ラグの勾配ブースティング",
    "most frequent": "最頻クラス",
    "most frequent class": "最頻クラス",
    "discriminant analysis on summaries": "要約統計量の判別分析",
    "logistic regression on summaries": "要約統計量のロジスティック回帰",
    "boosting on summaries": "要約統計量の勾配ブースティング",
    "token frequency": "トークンの出現頻度",
    "n-grams": "nグラム",
    "n-grams of targets": "出力のnグラム",
    "copy of the source": "入力のコピー",
    "usual token of each position": "位置ごとの最頻トークン",
    "hidden Markov alignment": "隠れマルコフモデルによる対応付け",
    "random steps": "無作為な手順",
    "expected order": "順序の期待値",
    "first allowed": "最初の候補",
    "singles": "候補が1つのマスを埋める",
    "zero": "常に0",
    "least squares": "最小二乗法",
    "nearest point": "最近傍点",
    "the task's own": "タスク固有のベースライン",
}
"""Of the plain baselines; one that is not here keeps its own name."""

UNITS = {"s": "秒", "min": "分", "h": "時間"}

EFFECTS = {
    "better": "より優れています",
    "worse": "より劣っています",
    "equal": "と同等です",
    "undecided": "との優劣がつきません",
}
OVER = {
    "seeds": "シードによるばらつき",
    "seeds and windows": "シードとテスト期間によるばらつき",
    "seeds, windows and origins": "シード、テスト期間、予測起点によるばらつき",
    "seeds and samples": "シードとテストサンプルによるばらつき",
}
REASONS = {
    "untied-gain-within-noise": "独立した層を増やした効果が、シードのばらつきを超えない",
    "no-untied-arm": "untiedとnarrowの両方を比較に含めていない",
    "too-few-runs": "最後まで終わった実行が足りない",
}
NEARLY = 0.1
"""A ratio that is so near to 1 is no difference."""
LIMITS = {"memory": "メモリ", "latency": "推論時間"}


def headline(statements: Sequence[Statement], names: Names) -> str:
    """Return the first sentence of a pilot.

    Args:
        statements: Its `Decision` first.
        names: What things are called.
    """
    decision = statements[0]
    if not isinstance(decision, Decision):
        raise TypeError(f"the first statement is {decision.kind}, the decision is needed")
    against = next((one for one in statements if isinstance(one, AgainstBaseline)), None)
    untied = next(
        (one for one in statements if isinstance(one, Untied) and one.arm == decision.winner), None
    )
    text = _decision(decision, against, names)
    if untied is None:
        return text
    if decision.why == "untied":
        return f"いいえ。{_layers(untied)}のほうが優れています（{_parameters(untied)}）。"
    return f"{text}ただし、{_layers(untied)}はさらに優れています（{_parameters(untied)}）。"


def sentence(statement: Statement, names: Names) -> str:
    """Return a statement as one sentence or more; empty where there is nothing to say.

    Args:
        statement: Any but the decision, of which `headline` makes the first sentence.
        names: What things are called, and how fine differences are written.
    """
    return SENTENCES[statement.kind](statement, names)


def candidate_text(candidate: Candidate) -> str:
    """Return the name of an arm at a loop count."""
    unit = "層" if candidate.arm in UNLOOPED else "ループ"
    return f"{candidate.arm}（{candidate.loops}{unit}）"


def baseline_text(name: str) -> str:
    """Return the name of a plain baseline."""
    plain = name.replace("_", " ")
    return BASELINES.get(plain, plain)


def _decision(decision: Decision, against: AgainstBaseline | None, names: Names) -> str:
    best = candidate_text(decision.best) if decision.best else "最良のモデル"
    model = candidate_text(against.candidate) if against else best
    baseline = baseline_text(against.baseline) if against else ""
    winner = _network(decision.winner)
    if decision.why == "loops":
        return _yes(decision, baseline)
    if decision.why == "one-loop":
        if not baseline:
            return "いいえ。1ループで十分で、ループを増やしても良くなりません。"
        if decision.chosen:
            return f"いいえ。1ループで十分であり、ベースラインの{baseline}より優れています。"
        return (
            f"いいえ。1ループで十分ですが、ベースラインの{baseline}より優れているとは言えません。"
        )
    texts = {
        "baseline": f"いいえ。ベースラインの{winner}のほうが、{model}より優れています。",
        "baseline-as-good": f"いいえ。ベースラインの{winner}で、{model}と同等の性能が得られます。",
        "untied": f"いいえ。{winner}のほうが、{model}より優れています。",
        "seeds": _seeds(decision, against),
        "period": _open(against, "テストデータが少なすぎます"),
        "splits": "判断保留です。検証データとテストデータで、最良のモデルが食い違っています。",
        "few-seeds": f"判断保留です。モデルごとに3回以上の実行が必要ですが、今回は{decision.blocks}回です。",
        "one-count": "判断保留です。1ループのモデルしか作っていないため、ループを増やす効果はわかりません。",
        "nothing-finished": "判断保留です。すべての実行を終えたループモデルがありません。",
    }
    return texts[decision.why]


def _yes(decision: Decision, baseline: str) -> str:
    chosen = decision.chosen or Candidate(arm="looped", loops=1)
    subject = candidate_text(chosen)
    if decision.counts[:1] < (chosen.loops,):
        more = "ループを減らすと性能が落ちます"
    else:
        more = "ループを増やしても良くなりません" if len(decision.counts) > 1 else ""
    if not baseline:
        return (
            f"はい。{subject}を推奨します。{more}。" if more else f"はい。{subject}を推奨します。"
        )
    if more:
        return f"はい。{subject}はベースラインの{baseline}より優れており、{more}。"
    return f"はい。{subject}はベースラインの{baseline}より優れています。"


def _open(against: AgainstBaseline | None, why: str) -> str:
    """Say that a model cannot be told from the baseline, and which of them is ahead."""
    if against is None:
        return f"判断保留です。{why}。"
    model = candidate_text(against.candidate)
    baseline = f"ベースラインの{baseline_text(against.baseline)}"
    first, second = (model, baseline) if against.ahead else (baseline, model)
    return f"判断保留です。平均では{first}が{second}より優れていますが、断定するには{why}。"


def _seeds(decision: Decision, against: AgainstBaseline | None) -> str:
    if decision.fewest is None:
        return _open(against, f"モデルごとに{decision.blocks}回の実行では足りません")
    runs = f"判断保留です。モデルごとに{decision.blocks}回の実行では、"
    most = decision.most or decision.fewest
    if most == decision.fewest:
        return f"{runs}どのループ回数が最良かわかりません。"
    return f"{runs}{decision.fewest}ループで足りるのか、{most}ループまで必要なのかわかりません。"


def _against(one: AgainstBaseline, names: Names) -> str:
    text = (
        f"{candidate_text(one.candidate)}の{names.metric}は{quality_text(one.quality)}で、最も強いベースラインの"
        f"{baseline_text(one.baseline)}（{figure_text(one.value)}）{EFFECTS[one.effect]}"
        f"{_difference(one.difference, names)}。"
    )
    if one.difference is not None and bounds_text(one.difference, names):
        text += f"信頼区間は{OVER[one.over]}を含みます。"
    if one.visible is not None:
        text += f"このテストデータで検出できる差は、およそ{figure_text(one.visible)}以上です。"
    if one.seasonal is not None and None not in one.seasonal:
        mine, other = one.seasonal
        text += f"MASEはモデルが{figure_text(mine or 0.0)}、ベースラインが{figure_text(other or 0.0)}です。"
    return text


def _chosen(one: Chosen, names: Names) -> str:
    text = (
        f"{candidate_text(one.candidate)}は検証データだけで選びました。最良のモデルとの差が許容差"
        f"（{_margin(names)}）に収まる確率は{_share(one.sure)}です。"
    )
    if one.honest is not None:
        text += (
            f"テストデータの{names.metric}は{quality_text(one.quality)}、"
            f"選択による偏りを除くと{figure_text(one.honest)}です。"
        )
    return text


def _more_loops(one: MoreLoops, names: Names) -> str:
    raised = f"{one.arm}のループ回数を{one.few}から{one.many}に"
    what = {
        "better": f"{raised}増やすと、改善します",
        "worse": f"{raised}増やすと、悪化します",
        "equal": f"{raised}増やしても、差は許容差に収まります",
        "undecided": f"{raised}増やしても、差があるとは言えません",
    }[one.effect]
    return (
        f"{what}。{names.metric}は{one.few}ループで{quality_text(one.few_quality)}、"
        f"{one.many}ループで{quality_text(one.many_quality)}です{_difference(one.difference, names)}。"
    )


def _encoding(one: Encoding, names: Names) -> str:
    return (
        f"{one.loops}ループの{one.arm}は、{one.against}{EFFECTS[one.effect]}"
        f"{_difference(one.difference, names)}。"
    )


def _untied(one: Untied, names: Names) -> str:
    return (
        f"重みを共有しない{_layers(one)}の{names.metric}は{quality_text(one.quality)}で、"
        f"{candidate_text(one.against)}{EFFECTS[one.effect]}{_difference(one.difference, names)}。"
        f"{_parameters(one)}です。"
    )


def _alternative(one: Alternative, names: Names) -> str:
    return (
        f"{candidate_text(one.candidate)}はループ回数を後から選べるモデルで、{candidate_text(one.against)}"
        f"{EFFECTS[one.effect]}{_difference(one.difference, names)}。"
    )


def _equivalence(one: Equivalence, names: Names) -> str:
    if one.exponent is None or one.low is None or one.high is None:
        why = f"{REASONS[one.reason]}ためです。" if one.reason else ""
        return f"独立した層と比べたループの価値は求められません。{why}"
    return (
        f"ループを1回増やす価値は{one.exponent:.2f}（95%信頼区間 {one.low:.2f}～{one.high:.2f}）です。"
        "0は価値がないこと、1は独立した層を1つ増やすのと同じ価値があることを表します。"
    )


def _rounding(one: Rounding, names: Names) -> str:
    effect = {
        "better": "改善します",
        "worse": "悪化します",
        "equal": "許容差の範囲でしか変わりません",
        "undecided": "変わるとは言えません",
    }[one.effect]
    text = (
        f"int8に量子化すると、{candidate_text(one.candidate)}の{names.metric}は{effect}"
        f"{_difference(one.change, names, share=one.share)}。"
    )
    if one.time_ratio is not None and is_slower(one.time_ratio):
        text += f"このマシンでは、推論時間はfloatの{one.time_ratio:.2f}倍で、速くなりません。"
    elif one.time_ratio is not None:
        text += f"推論時間はfloatの{one.time_ratio:.2f}倍です。"
    return text


def _cost(one: Cost, names: Names) -> str:
    text = (
        f"{candidate_text(one.candidate)}は、ファイルが{size_text(one.file_bytes)}、ピーク時のメモリが"
        f"{size_text(one.memory_bytes)}、推論時間が1サンプルあたり{sample_time_text(one.seconds)}です"
    )
    if one.time_ratio is not None and one.fewest is not None:
        text += f"（{one.fewest}ループの{one.time_ratio:.2f}倍）"
    text += "。"
    if one.int8_bytes is not None and one.int8_seconds is not None:
        text += (
            f"int8では{size_text(one.int8_bytes)}、{sample_time_text(one.int8_seconds)}になります。"
        )
    if one.untied_bytes is not None:
        text += f"重みを共有しなければ、ファイルは{size_text(one.untied_bytes)}になります。"
    if one.busy:
        text += "計測中に他の処理が動いていたため、時間は測り直してください。"
    return text


def _stability(one: Stability, names: Names) -> str:
    parts = [
        f"{sum(lost.values())}回{what}（{_places(lost)}）。"
        for lost, what in (
            (one.diverged, "が発散しました"),
            (one.failed, "が失敗しました"),
            (one.no_int8, "ではint8のモデルを作れませんでした"),
        )
        if lost
    ]
    if parts:
        return f"{one.runs}回の実行のうち、" + "".join(parts)
    return f"{one.runs}回の実行は、すべて発散せずに終わりました。" if one.runs else ""


def _not_converged(one: NotConverged, names: Names) -> str:
    if not one.runs:
        return ""
    return (
        f"{one.of}回の実行のうち{one.runs}回は、{one.steps}ステップを終えた時点でまだ改善の途中でした。"
        "学習を長くすると、結果が変わる可能性があります。"
    )


def _requirements(one: Requirements, names: Names) -> str:
    if one.meets is not None:
        return (
            f"条件を満たすモデルのうち、最良は{candidate_text(one.meets)}の{one.model}モデルです。"
        )
    if one.nearest is None:
        return "条件と比べられる計測済みのモデルがありません。"
    misses = "、".join(
        f"{LIMITS.get(name, names.metric)}が{_amount(name, measured)}（条件は{_amount(name, allowed)}）"
        for name, (measured, allowed) in one.missed.items()
    )
    return (
        "条件をすべて満たすモデルはありません。最も近いのは"
        f"{candidate_text(one.nearest)}の{one.model}モデルで、{misses}です。"
    )


def _next_step(one: NextStep, names: Names) -> str:
    about = ""
    if one.seconds:
        number, unit = minutes_of(one.seconds)
        about = f"（所要時間は約{number:g}{UNITS[unit]}）"
    texts = {
        "more-seeds": f"次の一手：シードを{one.seeds}個追加してください{about}。",
        "more-origins": f"次の一手：予測起点を{one.origins}個にして評価してください{about}。",
        "longer-data": "次の一手：シードを増やしても決まりません。テストデータの期間を長くしてください。",
        "longer-training": f"次の一手：学習を長くして、比べ直してください{about}。",
        "wider-margin": f"次の一手：許容差を{figure_text(one.margin or 0.0)}にすれば、今ある実行だけで決まります。",
        "more-loops": "次の一手：ほかのループ回数とも比べてください。",
        "deploy": "次の一手：推奨モデルを実機で試してください。",
        "take-baseline": "次の一手：ベースラインを採用してください。",
        "compare-untied": "次の一手：重みを共有しないネットワークとコストを比べてください。",
        "mend-runs": "次の一手：失敗した実行の原因を取り除いてください。",
        "go-on": "次の一手：残りの実行を済ませてください。",
    }
    return texts[one.what]


def _difference(change: Interval | None, names: Names, *, share: float | None = None) -> str:
    """Return a difference and its interval in brackets."""
    if change is None:
        return ""
    text = f"差は{_minus(difference_text(change.mean, names))}"
    if share is not None:
        text += f"、{abs(share):.1%}"
    bounds = bounds_text(change, names)
    if bounds is not None:
        text += f"、95%信頼区間は{_range(*bounds)}"
    return f"（{text}）"


def _range(low: str, high: str) -> str:
    return f"{_minus(low)}～{_minus(high)}"


def _minus(text: str) -> str:
    return text.replace("-", "−", 1) if text.startswith("-") else text


def _share(share: float) -> str:
    text = share_text(share)
    return {"over 99 %": "99%超", "under 1 %": "1%未満"}.get(text, text.replace(" ", ""))


def _margin(names: Names) -> str:
    return names.margin_text or figure_text(names.margin)


def _network(name: str | None) -> str:
    """Return the name of what wins: a plain baseline, or a network without a loop."""
    return name if name in UNLOOPED else baseline_text(name or "")


def _layers(untied: Untied) -> str:
    return candidate_text(Candidate(arm=untied.arm, loops=untied.loops))


def _parameters(untied: Untied) -> str:
    if abs(untied.parameters_ratio - 1) < NEARLY:
        return "パラメータ数は同程度"
    return f"パラメータ数は{untied.parameters_ratio:.1f}倍"


def _places(counts: Mapping[str, int]) -> str:
    """Return where runs were lost: counts by ``ARM-rN``."""
    parts = []
    for name, count in counts.items():
        arm, _, loops = name.rpartition("-r")
        parts.append(f"{candidate_text(Candidate(arm=arm, loops=int(loops)))}で{count}回")
    return "、".join(parts)


def _amount(name: str, value: float) -> str:
    if name == "memory":
        return size_text(value)
    return sample_time_text(value) if name == "latency" else figure_text(value)


SENTENCES: dict[str, Callable[[Any, Names], str]] = {
    AgainstBaseline.kind: _against,
    Alternative.kind: _alternative,
    Chosen.kind: _chosen,
    Cost.kind: _cost,
    Encoding.kind: _encoding,
    Equivalence.kind: _equivalence,
    MoreLoops.kind: _more_loops,
    NextStep.kind: _next_step,
    NotConverged.kind: _not_converged,
    Requirements.kind: _requirements,
    Rounding.kind: _rounding,
    Stability.kind: _stability,
    Untied.kind: _untied,
}
