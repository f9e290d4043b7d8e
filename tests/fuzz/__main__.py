"""Roll random tied graphs, give random language models a cache, then damage files for as long as there is time: ``make fuzz``.

What fails is kept, so that it can be replayed.
"""

import argparse
import faulthandler
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import onnx

from tests.fuzz.decoding import draw_numbered_model, judge_decoding
from tests.fuzz.language_models import write_language_model
from tests.fuzz.outcomes import CASES, draw, judge
from tests.fuzz.rolled import judge_tied
from tests.fuzz.seeds import make_seeds
from tests.fuzz.tied_graphs import draw_numbered

HANGS_S = 60
GRAPH = "graph."
"""Begins the name of a tied graph."""
MODEL = "model."
"""Begins the name of a language model."""
AS_BUILT = "as built"
LEAST_WHOLE = 0.9
"""Of the graphs that were not changed: some recurrences of second order are cut short."""


def main() -> int:
    """Run the graphs, and files until the time is over; return whether one ended as none may."""
    options = _options()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(2**32)
    say(
        f"seed {seed}, {options.graphs} graphs, {options.decoding} language models, {options.seconds} seconds of files; "
        f"failing ones go to {options.output}"
    )
    if options.replay is not None and options.replay.startswith(GRAPH):
        return _roll(options.replay.removeprefix(GRAPH), options.output, Counter())
    if options.replay is not None and options.replay.startswith(MODEL):
        return _decode(options.replay.removeprefix(MODEL), options.output, Counter())
    kinds: Counter[str] = Counter()
    rolled_wrongly = sum(
        _roll(f"{seed}.{number}", options.output, kinds) for number in range(options.graphs)
    )
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    say(f"{options.graphs} tied graphs, {rolled_wrongly} failed: {counts}")
    built = sum(count for kind, count in kinds.items() if kind.startswith(AS_BUILT))
    whole = kinds[f"{AS_BUILT} whole"]
    if whole < LEAST_WHOLE * built:
        say(f"{whole} of {built} loops were found whole, {LEAST_WHOLE:.0%} should be")
        rolled_wrongly += 1
    ended: Counter[str] = Counter()
    decoded_wrongly = sum(
        _decode(f"{seed}.{number}", options.output, ended) for number in range(options.decoding)
    )
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(ended.items()))
    say(f"{options.decoding} language models, {decoded_wrongly} failed: {counts}")
    with tempfile.TemporaryDirectory(prefix="loopedge.fuzz.") as name:
        seeds, work = Path(name) / "seeds", Path(name) / "work"
        seeds.mkdir()
        make_seeds(seeds)
        if options.replay is not None:
            return _run(options.replay, seeds, work, options.output)
        ends, failed = time.monotonic() + options.seconds, 0
        number = 0
        while time.monotonic() < ends:
            failed += _run(f"{seed}.{number}", seeds, work, options.output)
            number += 1
    say(f"{number} files damaged, {failed} failed")
    return int(failed + rolled_wrongly + decoded_wrongly > 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--graphs", type=int, default=1000)
    parser.add_argument("--decoding", type=int, default=200, help="Language models.")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, help="Default: another one each time; it is printed.")
    parser.add_argument("--output", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--replay", metavar="SEED.NUMBER", help="Run one file or graph again.")
    return parser.parse_args()


def _roll(name: str, output: Path, kinds: "Counter[str]") -> int:
    """Draw a graph by its name, roll it, and return 1 where that failed."""
    graph, how = draw_numbered(name)
    kept = output / (GRAPH + name)
    kept.mkdir(parents=True, exist_ok=True)
    onnx.save(graph.model, kept / "tied.onnx")
    faulthandler.dump_traceback_later(HANGS_S, exit=True)
    with tempfile.TemporaryDirectory(prefix="loopedge.fuzz.") as folder:
        outcome = judge_tied(graph, Path(folder), **how)
    faulthandler.cancel_dump_traceback_later()
    kinds[f"{'changed' if graph.change else AS_BUILT} {outcome.kind}"] += 1
    if outcome.missed is not None:
        say(f"note: {GRAPH}{name}: {outcome.missed}")
    if outcome.problem is None:
        shutil.rmtree(kept)
        return 0
    text = f"{graph.change or AS_BUILT}, {outcome.problem}"
    (kept / "problem.txt").write_text(f"{text}\n", encoding="utf-8")
    say(f"{GRAPH}{name}: {text}")
    return 1


def _decode(name: str, output: Path, ended: "Counter[str]") -> int:
    """Draw a language model by its name, give it a cache, and return 1 where that failed."""
    spec, command = draw_numbered_model(name)
    kept = output / (MODEL + name)
    kept.mkdir(parents=True, exist_ok=True)
    onnx.save(write_language_model(spec), kept / "lm.onnx")
    faulthandler.dump_traceback_later(HANGS_S, exit=True)
    with tempfile.TemporaryDirectory(prefix="loopedge.fuzz.") as folder:
        outcome = judge_decoding(spec, Path(folder), command=command)
    faulthandler.cancel_dump_traceback_later()
    ended[f"{'faulty' if spec.fault else AS_BUILT} {outcome.kind}"] += 1
    if outcome.problem is None:
        shutil.rmtree(kept)
        return 0
    text = f"{outcome.kind}, {outcome.problem}\n{spec}"
    (kept / "problem.txt").write_text(f"{text}\n", encoding="utf-8")
    say(f"{MODEL}{name}: {text}")
    return 1


def _run(name: str, seeds: Path, work: Path, output: Path) -> int:
    """Damage a file by what it is called, run it, and return 1 where that failed."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    case = draw(CASES, seeds, work, random.Random(name))
    kept = output / name
    kept.mkdir(parents=True, exist_ok=True)
    shutil.copy(work / case.file, kept)  # before it is run: what crashes the process is kept too
    faulthandler.dump_traceback_later(HANGS_S, exit=True)
    problem = judge(case, work)
    faulthandler.cancel_dump_traceback_later()
    if problem is None:
        shutil.rmtree(kept)
        return 0
    (kept / "problem.txt").write_text(f"{case}\n{problem}\n", encoding="utf-8")
    say(f"{name}: {case}: {problem}")
    return 1


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
