"""Dory and HRM-Text shaped models: loopedge.Generator against transformers' own generate with its cache.

Random weights in the layout on disk, read by both. The greedy tokens must be the same first; then rounds take turns in one
process, and what counts is processor time per token, prefill left out. Takes four minutes.

    python -m benchmarks.decode.transformers_peer [--threads 1] [--output benchmarks/results/decode]
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

import loopedge
from loopedge.model.folder import import_package
from loopedge.model.published import dory, hrm_text
from loopedge.profiler.machine import describe_machine

EXIT_BOUND = 4
FOLDER = Path("build/decode")
CONTEXTS = (64, 512)
ROUNDS, TOKENS, SAME_TOKENS = 5, 12, 32

ROPE = {"rope_type": "default"}
MODELS: dict[str, dict[str, Any]] = {
    "dory": {
        "model_type": "dory",
        "architectures": ["DoryForCausalLM"],
        "vocab_size": 8192,
        "hidden_size": 768,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 128,
        "max_position_embeddings": 2048,
        "layer_types": [
            *("sliding_attention", "mlp") * 3,
            *("full_attention", "mlp", "sliding_attention", "mlp", "sliding_attention", "mlp"),
        ],
        "sliding_window": 256,
        "initializer_range": 0.0177,
        "n_input_layers": 2,
        "n_recurrent_layers": 8,
        "n_output_layers": 2,
        "n_recurrent_loops": 4,
        "rope_parameters": {
            "sliding_attention": {**ROPE, "rope_theta": 1e4},
            "full_attention": {**ROPE, "rope_theta": 1e7},
        },
    },
    "hrm_text": {
        "model_type": "hrm_text",
        "architectures": ["HrmTextForCausalLM"],
        "vocab_size": 8192,
        "hidden_size": 768,
        "intermediate_size": 2048,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "head_dim": 128,
        "H_cycles": 2,
        "L_cycles": 3,
        "max_position_embeddings": 2048,
        "rope_parameters": {**ROPE, "rope_theta": 1e4},
        "initializer_range": 0.02,
    },
}
ROOMS: dict[str, Any] = {"dory": dory, "hrm_text": hrm_text}
LAYERS = {
    "dory": "1, 4 and 1 layers, 4 loops, window 256",
    "hrm_text": "stacks of 2 layers, 2 high and 3 low cycles",
}
CLASSES = {"dory": "DoryForCausalLM", "hrm_text": "HrmTextForCausalLM"}
SCHEMES = ("weight-int8", "weight-int4")


@dataclass(frozen=True, slots=True)
class Stamp:
    """A token, and when it was there: processor time and wall time, seconds."""

    token: int
    cpu: float
    wall: float

    @classmethod
    def now(cls, token: int) -> "Stamp":
        """Return one of a token that is there now."""
        return cls(token, time.process_time(), time.perf_counter())


Greedy = Callable[[Sequence[int], int], list[Stamp]]
"""Generates so many tokens behind a prompt, the most likely ones."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """What a token takes behind a text of ``context`` tokens: the median round, milliseconds."""

    model: str
    product: str
    threads: int
    context: int
    cpu_ms: float
    wall_ms: float


def main() -> int:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--output", type=Path, help="folder for transformers_MODEL.md and .json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for model in arguments.models:
        products = make_products(model, arguments.threads)
        check_same(products)
        found = measure(model, products, arguments.threads)
        text = "\n".join([*head(model, arguments.threads), *table(found)]) + "\n"
        print(text)
        if arguments.output:
            arguments.output.mkdir(parents=True, exist_ok=True)
            to = arguments.output / f"transformers_{model}.md"
            to.write_text(text, encoding="utf-8")
            figures = {"machine": describe_machine(), "figures": [asdict(each) for each in found]}
            content = json.dumps(figures, indent=1) + "\n"
            to.with_suffix(".json").write_text(content, encoding="utf-8")
    return 0


def make_products(model: str, threads: int) -> dict[str, Greedy]:
    """Write a checkpoint, and return what generates from it, transformers first."""
    folder = FOLDER / model
    folder.mkdir(parents=True, exist_ok=True)
    config, room = MODELS[model], ROOMS[model]
    module = room.MODULE(room.CONFIG.read(config, folder / "config.json"))
    module.fill_random(torch.Generator().manual_seed(0))
    names = module.state_names()
    tensors = {names[name]: value.detach() for name, value in module.named_parameters()}
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    path = folder / "model.onnx"
    loopedge.export(module, path, force=True)
    products = {"transformers, float32": _of_transformers(folder, CLASSES[model])}
    del module, tensors
    target = folder / "float32.generate.onnx"
    loopedge.to_generate(path, target, force=True)
    products["loopedge, float32"] = _of_loopedge(target, threads)
    for scheme in SCHEMES:
        rounded = folder / f"{scheme}.onnx"
        loopedge.quantize(path, rounded, scheme=scheme, force=True)
        target = folder / f"{scheme}.generate.onnx"
        loopedge.to_generate(rounded, target, force=True)
        products[f"loopedge, {scheme}"] = _of_loopedge(target, threads)
    return products


def _of_transformers(folder: Path, name: str) -> Greedy:
    transformers = import_package("transformers", name)
    transformers.utils.logging.disable_progress_bar()
    model = getattr(transformers, name).from_pretrained(folder, dtype=torch.float32).eval()

    def generate(prompt: Sequence[int], count: int) -> list[Stamp]:
        stamps = _Stamps()
        ids = torch.tensor([list(prompt)])
        mask = torch.ones_like(ids)
        model.generate(
            ids, attention_mask=mask, max_new_tokens=count, do_sample=False, streamer=stamps
        )
        return stamps.found

    return generate


def _of_loopedge(path: Path, threads: int) -> Greedy:
    generator = loopedge.Generator(path, context=CONTEXTS[-1] + SAME_TOKENS, threads=threads)

    def generate(prompt: Sequence[int], count: int) -> list[Stamp]:
        generator.reset()
        stream = generator.stream(list(prompt), new_tokens=count, end_ids=())
        return [Stamp.now(token.id) for token in stream]

    return generate


class _Stamps:
    """A streamer of transformers: it gets the prompt, then each token."""

    def __init__(self) -> None:
        self.found: list[Stamp] = []
        self._prompt = True

    def put(self, ids: Tensor) -> None:
        """Take ids."""
        if not self._prompt:
            self.found.append(Stamp.now(int(ids.item())))
        self._prompt = False

    def end(self) -> None:
        """Take the end."""


def check_same(products: Mapping[str, Greedy]) -> None:
    """Hold that the float32 products generate the same tokens.

    Raises:
        SystemExit: They do not.
    """
    prompt = drawn_prompt(CONTEXTS[0])
    found = {
        name: [stamp.token for stamp in generate(prompt, SAME_TOKENS)]
        for name, generate in products.items()
        if "float32" in name
    }
    if len({tuple(tokens) for tokens in found.values()}) > 1:
        print(f"other tokens: {found}", file=sys.stderr)
        raise SystemExit(EXIT_BOUND)


def measure(model: str, products: Mapping[str, Greedy], threads: int) -> list[Figure]:
    """Let products take turns at every context."""
    found = []
    for context in CONTEXTS:
        prompt = drawn_prompt(context)
        rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in products}
        names = list(products)
        for number in range(ROUNDS):
            for name in names[number % len(names) :] + names[: number % len(names)]:
                stamps = products[name](prompt, TOKENS + 1)
                first, last = stamps[0], stamps[-1]
                taken = (last.cpu - first.cpu, last.wall - first.wall)
                rounds[name].append((taken[0] / TOKENS * 1e3, taken[1] / TOKENS * 1e3))
        for name, taken_rounds in rounds.items():
            cpu, wall = map(statistics.median, zip(*taken_rounds, strict=True))
            figure = Figure(
                model=model,
                product=name,
                threads=threads,
                context=context,
                cpu_ms=cpu,
                wall_ms=wall,
            )
            found.append(figure)
            print(f"  {model}, {context}, {name}: {cpu:.1f} ms", file=sys.stderr, flush=True)
    return found


def drawn_prompt(length: int) -> list[int]:
    """Return ids, always the same ones."""
    generator = torch.Generator().manual_seed(length)
    return torch.randint(8192, (length,), generator=generator).tolist()


def head(model: str, threads: int) -> list[str]:
    """Return what stands above the table."""
    machine, config = describe_machine(), MODELS[model]
    versions = f"ONNX Runtime {machine['onnxruntime']}, transformers {version('transformers')}, torch {torch.__version__}"
    sizes = f"d={config['hidden_size']}, MLP {config['intermediate_size']}, vocabulary {config['vocab_size']}"
    return [
        f"{machine['cpu']}, {versions}, {threads} thread{'s' if threads > 1 else ''}. {sizes}, {LAYERS[model]}; random weights.",
        "Milliseconds of processor time per token, the median of five rounds in turns, and against transformers.",
        "",
    ]


def table(found: Sequence[Figure]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    contexts = "".join(f" at {context} | |" for context in CONTEXTS)
    yield f"| model | product |{contexts}"
    yield "|---" * (2 + 2 * len(CONTEXTS)) + "|"
    by_place = {(each.model, each.product, each.context): each.cpu_ms for each in found}
    for model, product in dict.fromkeys((each.model, each.product) for each in found):
        cells = ""
        for context in CONTEXTS:
            base = by_place[model, next(each.product for each in found), context]
            own = by_place[model, product, context]
            cells += f" {own:.1f} | {own / base:.2f} |"
        yield f"| {model} | {product} |{cells}"


if __name__ == "__main__":
    sys.exit(main())
