"""Damage files for as long as there is time: ``make fuzz``; what fails is kept, so that it can be replayed."""

import argparse
import faulthandler
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.outcomes import CASES, draw, judge
from tests.fuzz.seeds import make_seeds

HANGS_S = 60


def main() -> int:
    """Run cases until the time is over; return how many ended as none may."""
    options = _options()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(2**32)
    say(f"seed {seed}, {options.seconds} seconds; failing files go to {options.output}")
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
    return int(failed > 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, help="Default: another one each time; it is printed.")
    parser.add_argument("--output", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--replay", metavar="SEED.NUMBER", help="Run one file again.")
    return parser.parse_args()


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
