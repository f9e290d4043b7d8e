"""Tokens per second of training: loopedge against a straightforward PyTorch loop, same model, same batches.

The reference (`reference.py`) is a script in the published style. Both start from the same weights, which must
give the same logits and, step for step, the same loss (exit code 4 if not); times advise. All variants make
their steps in turns, so that load from outside meets all of them, and a ratio is the median over the turns. On a
busy machine the ratio of processor time says more than that of time. The whole-module compile of the reference
takes minutes; 12 in all on a busy machine. On CUDA where there is a device; that path has not been run yet.

    python benchmarks/train/speed.py [--rounds 4] [--output benchmarks/results/train]
"""

import argparse
import json
import math
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.train.reference import CLIP, LR, WEIGHT_DECAY, Levers, ReferenceLoop, Sizes
from loopedge.model.tmlt import from_tmlt
from loopedge.tasks.task import Batch, Split, Task, generator_of
from loopedge.trainer.config import make_train_config
from loopedge.trainer.steps.objective import Objective
from loopedge.trainer.steps.step import Stepper
from loopedge.trainer.world import World

BOUND = 1.2
MOST_DIFFERENCE = 1e-3
"""Of logits and losses, relative; rounding after a few steps of AdamW stays below."""

ALL_SIZES = (
    Sizes(d_model=128, heads=4, loops=8, length=64, vocab_size=256, batch_size=16),
    Sizes(d_model=256, heads=4, loops=8, length=64, vocab_size=256, batch_size=16),
    Sizes(d_model=768, heads=12, loops=12, length=128, vocab_size=256, batch_size=4),
)
ABLATED = 256
"""The width at which each lever is pulled alone."""

LEVERS = {
    "attention written out": Levers(attention="written_out"),
    "table of all iterations at once": Levers(table=True),
    "fused AdamW": Levers(fused_adamw=True),
    "compile, whole module": Levers(compile=True),
    "bfloat16": Levers(autocast=True),
}
OURS: dict[str, dict[str, Any]] = {
    "loopedge": {},
    "loopedge --compile": {"compile": True},
    "loopedge --precision bfloat16": {"precision": "bfloat16"},
    "loopedge --compile --precision bfloat16": {"compile": True, "precision": "bfloat16"},
}
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class RandomTokens(Task):
    """Next tokens of random text: speed does not depend on what is learned."""

    name = "random-tokens"

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes

    def batch(self, split: Split, size: int, step: int) -> Batch:
        """Draw ``size`` sequences."""
        generator = generator_of(self.seed, split, step)
        tokens = generator.integers(0, self.sizes.vocab_size, (size, self.sizes.length + 1))
        inputs, targets = (np.ascontiguousarray(part) for part in (tokens[:, :-1], tokens[:, 1:]))
        return Batch(inputs=inputs, targets=targets)

    def model_fields(self) -> dict[str, Any]:
        """Return nothing: the model comes from the reference's weights."""
        return {}


@dataclass(slots=True)
class Runner:
    """Makes steps of one variant and keeps their times and losses.

    Args:
        advance: Makes the step of this number; returns the loss.
    """

    advance: Callable[[int], float]
    seconds: list[float] = field(default_factory=list)
    processor_seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def step(self) -> None:
        """Make the next step."""
        wall, processor = time.perf_counter(), time.process_time()
        self.losses.append(self.advance(len(self.losses)))
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - wall)
        self.processor_seconds.append(time.process_time() - processor)


def run_reference(sizes: Sizes, levers: Levers, weights: dict[str, torch.Tensor]) -> Runner:
    """Return the reference with some levers."""
    task, loop = RandomTokens(sizes), ReferenceLoop(sizes, levers, DEVICE)
    loop.model.load_state_dict(weights)

    def advance(step: int) -> float:
        batch = task.batch("train", sizes.batch_size, step)
        inputs, targets = (torch.from_numpy(part) for part in (batch.inputs, batch.targets))
        return loop.step(inputs.to(DEVICE), targets.to(DEVICE))

    return Runner(advance)


def run_loopedge(sizes: Sizes, options: dict[str, Any], weights: dict[str, torch.Tensor]) -> Runner:
    """Return what ``loopedge train`` does in a step, with some options."""
    model = from_tmlt(weights, heads=sizes.heads, loops=sizes.loops).to(DEVICE).train()
    same = {"lr": LR, "min_lr_share": 1.0, "warmup": 0, "weight_decay": WEIGHT_DECAY, "clip": CLIP}
    config = make_train_config(batch_size=sizes.batch_size, **same, **options)
    world = World(device=DEVICE)
    stepper = Stepper(RandomTokens(sizes), model, config, Objective(kind="classes"), world)

    def advance(step: int) -> float:
        made = stepper.compute(step)
        stepper.apply(step, made)
        return made.loss

    return Runner(advance)


def difference_of_logits(sizes: Sizes, weights: dict[str, torch.Tensor]) -> float:
    """Return the largest difference of the two models' logits over the largest logit."""
    module = ReferenceLoop(sizes, Levers(), DEVICE).model
    module.load_state_dict(weights)
    model = from_tmlt(weights, heads=sizes.heads, loops=sizes.loops).to(DEVICE)
    batch = RandomTokens(sizes).batch("validation", 2, 0)
    inputs, targets = (torch.from_numpy(x).to(DEVICE) for x in (batch.inputs, batch.targets))
    with torch.no_grad():
        expected, given = module(inputs, targets)[0], model(inputs)
    assert isinstance(given, torch.Tensor)
    return float((given - expected).abs().max() / expected.abs().max())


def measure(sizes: Sizes, rounds: int) -> dict[str, Any]:
    """Run all variants of one size in turns; return their figures."""
    torch.manual_seed(0)
    weights = ReferenceLoop(sizes, Levers(), DEVICE).model.state_dict()
    runners = {"reference": run_reference(sizes, Levers(), weights)}
    for name, options in OURS.items():
        runners[name] = run_loopedge(sizes, options, weights)
    if sizes.d_model == ABLATED:
        for name, levers in LEVERS.items():
            runners[f"reference, {name}"] = run_reference(sizes, levers, weights)
    for _ in range(rounds + 2):  # the first step compiles, the second fills caches
        for runner in runners.values():
            runner.step()
    base, plain = runners["reference"], runners["loopedge"]
    figures = {name: figures_of(runner, base) for name, runner in runners.items()}
    for name, options in OURS.items():
        if options.get("compile"):
            eager = OURS_WITHOUT_COMPILE[name]
            saved = figures[eager]["step_seconds"] - figures[name]["step_seconds"]
            spent = figures[name]["first_step_seconds"] - figures[name]["step_seconds"]
            figures[name]["break_even_steps"] = math.ceil(spent / saved) if saved > 0 else None
    pairs = zip(base.losses, plain.losses, strict=True)
    return {
        "sizes": asdict(sizes),
        "difference_of_logits": difference_of_logits(sizes, weights),
        "difference_of_losses": max(abs(one - two) / one for one, two in pairs),
        "variants": figures,
    }


OURS_WITHOUT_COMPILE = {
    "loopedge --compile": "loopedge",
    "loopedge --compile --precision bfloat16": "loopedge --precision bfloat16",
}


def figures_of(runner: Runner, base: Runner) -> dict[str, Any]:
    """Return medians over the turns after the first two."""

    def ratio(name: str) -> float:
        pairs = zip(getattr(base, name)[2:], getattr(runner, name)[2:], strict=True)
        return float(statistics.median(one / two for one, two in pairs))

    return {
        "first_step_seconds": runner.seconds[0],
        "step_seconds": statistics.median(runner.seconds[2:]),
        "speed_up": ratio("seconds"),
        "speed_up_processor": ratio("processor_seconds"),
    }


def tell(found: dict[str, Any]) -> list[str]:
    """Return the table of one size."""
    sizes = Sizes(**found["sizes"])
    lines = [
        f"d={sizes.d_model}, {sizes.heads} heads, {sizes.loops} loops, {sizes.length} positions, "
        f"batch {sizes.batch_size}. Largest relative difference: logits "
        f"{found['difference_of_logits']:.1e}, losses {found['difference_of_losses']:.1e}.",
        "",
        "| | tokens/s | speed-up | by processor time | first step s | steps to break even |",
        "|---|---|---|---|---|---|",
    ]
    for name, figures in found["variants"].items():
        tokens = sizes.batch_size * sizes.length / figures["step_seconds"]
        even = figures.get("break_even_steps", "")
        lines.append(
            f"| {name} | {tokens:.0f} | {figures['speed_up']:.2f} | {figures['speed_up_processor']:.2f} "
            f"| {figures['first_step_seconds']:.1f} | {'none' if even is None else even} |"
        )
    best = max(OURS, key=lambda name: found["variants"][name]["speed_up"])
    for name in dict.fromkeys(("loopedge", best)):
        value = found["variants"][name]["speed_up"]
        lines += [
            "",
            f"{name}: {value:.2f}, wanted {BOUND}: {'pass' if value >= BOUND else 'missed'}",
        ]
    return [*lines, ""]


def main() -> int:
    """Measure, print Markdown tables, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4, help="turns measured")
    parser.add_argument("--output", type=Path, help="folder for speed.md and speed.json")
    arguments = parser.parse_args()
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    torch.set_num_threads(threads)
    load = os.getloadavg()[0]
    machine = f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
    lines = [
        f"{DEVICE.type}, {machine}, torch {torch.__version__}, threads: {threads}, load at the start "
        f"{load:.1f} on {os.cpu_count()} processors.",
        "",
    ]
    print("\n".join(lines))
    everything = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder  # nothing compiled before is used
        for sizes in ALL_SIZES:
            found = measure(sizes, arguments.rounds)
            everything.append(found)
            print("\n".join(tell(found)), flush=True)
            lines += tell(found)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "speed.md").write_text("\n".join(lines), encoding="utf-8")
        content: dict[str, Any] = {
            "device": DEVICE.type,
            "machine": machine,
            "torch": torch.__version__,
        }
        content |= {"threads": threads, "load": load, "measured": everything}
        text = json.dumps(content, indent=2) + "\n"
        (arguments.output / "speed.json").write_text(text, encoding="utf-8")
    differences = [f[f"difference_of_{name}"] for f in everything for name in ("logits", "losses")]
    return 4 if max(differences) > MOST_DIFFERENCE else 0


if __name__ == "__main__":
    sys.exit(main())
