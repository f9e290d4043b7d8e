"""What small language models are built of, drawn at random, and the faults that no cache can stand for."""

import random
from dataclasses import dataclass, replace
from typing import Any

__all__ = ["FAULTS", "LanguageSpec", "draw_spec", "spec_features"]

POSITIONS = (
    "slice", "gather", "expanded", "offset", "cumsum", "cumsum offset", "sinusoidal", "clipped", "modulo",
)  # fmt: skip
"""How rows of positions are added to the state."""

PLACES = ("start", "body", "queries")
ROTARY_SHAPES = ("sd", "1sd", "11sd", "s1d", "b1sd")
MASKS = (
    "attribute", "where", "triu", "bool triu", "ranges", "least", "table", "padding", "additive padding",
)  # fmt: skip
REPEATS = ("native", "expand", "tile", "gather", "concat")

BLOCK_FAULTS = (
    "token shift", "mean", "cumsum", "last read", "reversed", "batch mean", "convolution", "memory keys", "memory only",
    "maximum", "sequence softmax", "sequence norm", "one over length", "log length", "from the end", "recurrent",
    "sorted", "shifted keys", "shifted values", "mixed reshape", "query of the last", "first read",
)  # fmt: skip
"""Of the core, the prelude or the coda."""

MASK_FAULTS = (
    "bidirectional", "prefix", "alibi", "strict", "dilated", "local chunks", "per head", "by token", "later window",
    "documents", "sinks",
)  # fmt: skip
POSITION_FAULTS = ("reversed positions", "scaled positions", "long base")
FAULTS = (*BLOCK_FAULTS, *MASK_FAULTS, *POSITION_FAULTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageSpec:
    """How a language model is built; the values stand for what they are called.

    ``nested``: how often a Loop inside of the core repeats its layers; 0: there is none.
    ``known``: the file says of itself what one of loopedge does. ``nodes`` is the share of constants that are nodes, ``noted``
    that of values whose shapes are noted. ``inside``: masks and rotary tables are made in the body.
    ``windows`` of the layers of one core, one after the other; ``fault`` and where it stands: ``fault_at``.
    """

    seed: int = 0
    heads: int = 2
    kv_heads: int = 2
    head_size: int = 8
    layers: int = 1
    loops: int = 3
    cores: int = 1
    prelude: int = 0
    coda: int = 0
    nested: int = 0
    counted: bool = False
    known: bool = False
    nodes: float = 0.0
    noted: float = 1.0
    inside: bool = False
    positions: str | None = "slice"
    position_place: str = "start"
    rows: int = 400
    rotary: str | None = None
    interleaved: bool = False
    rotary_part: int = 0
    rotary_table: bool = False
    rotary_operator: str | None = None
    rotary_scale: float = 1.0
    bases: tuple[float, ...] = (10_000.0,)
    mask: str = "attribute"
    mask_rank: int = 2
    windows: tuple[int | None, ...] = (None,)
    split: bool = True
    repeat: str = "native"
    norm: str = "rms"
    query_norm: bool = False
    gate: bool = False
    scale: float | None = None
    softcap: float = 0.0
    tied: bool = False
    logit_scale: float | None = None
    value_residual: bool = False
    stacked: bool = False
    second_state: str | None = None
    timestep: bool = False
    attention_mask: bool = False
    position_ids: bool = False
    fault: str | None = None
    fault_at: str = "core"

    @property
    def width(self) -> int:
        """Features of the state."""
        return self.heads * self.head_size


def draw_spec(name: str, *, fault: str | None = None) -> LanguageSpec:
    """Draw a spec by its name, the same each time.

    Args:
        name: The seed.
        fault: What it shall have.
    """
    rng = random.Random(name)
    spec = LanguageSpec(
        seed=rng.randrange(2**31),
        layers=rng.choice((1, 1, 2)),
        loops=rng.choice((1, 2, 3, 3, 4)),
        cores=rng.choice((1, 1, 1, 2)),
        prelude=rng.choice((0, 0, 1)),
        coda=rng.choice((0, 0, 1, 2)),
        nested=rng.choice((0, 0, 0, 0, 2, 3)),
        counted=rng.random() < 0.2,
        known=rng.random() < 0.3,
        nodes=rng.choice((0.0, 0.0, 0.3, 1.0)),
        noted=rng.choice((1.0, 1.0, 1.0, 0.7, 0.0)),
        inside=rng.random() < 0.25,
        split=rng.random() < 0.7,
        norm=rng.choice(("rms", "rms", "layer", "operator", "none")),
        query_norm=rng.random() < 0.2,
        gate=rng.random() < 0.2,
        scale=rng.choice((None, None, 0.2, 1.0)),
        softcap=rng.choice((0.0, 0.0, 0.0, 3.0)),
        tied=rng.random() < 0.4,
        logit_scale=rng.choice((None, None, 0.5)),
        value_residual=rng.random() < 0.15,
        stacked=rng.random() < 0.15,
        second_state=rng.choice((None, None, None, "zeros", "positions", "state")),
        timestep=rng.random() < 0.3,
        attention_mask=rng.random() < 0.2,
        position_ids=rng.random() < 0.1,
        fault=fault,
        fault_at=rng.choice(("core", "core", "prelude", "coda")),
        **_heads(rng),
        **_positions(rng),
        **_masks(rng),
    )
    spec = replace(spec, windows=tuple(rng.choice(WINDOWS) for _ in range(spec.layers)))
    return _consistent(spec)


WINDOWS = (None, None, None, 1, 2, 4, 7, 30, 70)


def spec_features(spec: LanguageSpec) -> set[str]:
    """Return what a spec has besides the plainest."""
    plain = LanguageSpec()
    return {
        f"{name}={getattr(spec, name)}"
        for name in LanguageSpec.__slots__
        if name != "seed" and getattr(spec, name) != getattr(plain, name)
    }


def _heads(rng: random.Random) -> dict[str, Any]:
    heads, kv_heads = rng.choice(((1, 1), (2, 2), (2, 1), (4, 2), (4, 1), (3, 3)))
    repeat = rng.choice(REPEATS) if heads != kv_heads else "native"
    return {
        "heads": heads,
        "kv_heads": kv_heads,
        "repeat": repeat,
        "head_size": rng.choice((8, 16)),
    }


def _positions(rng: random.Random) -> dict[str, Any]:
    rotary = rng.choice(ROTARY_SHAPES) if rng.random() < 0.6 else None
    return {
        "positions": None if rotary and rng.random() < 0.7 else rng.choice((None, *POSITIONS)),
        "position_place": rng.choice(PLACES),
        "rows": rng.choice((48, 128, 400, 400)),
        "rotary": rotary,
        "interleaved": rng.random() < 0.3,
        "rotary_part": rng.choice((0, 0, 4)),
        "rotary_table": rng.random() < 0.3,
        "rotary_operator": rng.choice((None, None, None, "angles", "positions")),
        "rotary_scale": rng.choice((1.0, 1.0, 1.2)),
        "bases": rng.choice(((10_000.0,), (10_000.0,), (10_000.0, 500.0))),
    }


def _masks(rng: random.Random) -> dict[str, Any]:
    return {"mask": rng.choice(MASKS), "mask_rank": rng.choice((2, 4))}


def _consistent(spec: LanguageSpec) -> LanguageSpec:
    """Take back what does not go together."""
    changes: dict[str, Any] = {}
    if spec.rotary_operator is not None:
        changes |= {"rotary": "sd", "rotary_table": False}
    if spec.mask == "attribute" and any(spec.windows):
        changes["mask"] = "ranges"
    if spec.repeat != "native":
        changes["split"] = True
    if "padding" in spec.mask:
        changes["attention_mask"] = True
    if spec.fault in MASK_FAULTS:
        changes |= {"mask": "ranges", "windows": (None,) * spec.layers}
    if spec.fault in POSITION_FAULTS:
        changes |= {"positions": "gather", "position_place": "start", "position_ids": False}
    if spec.fault == "long base":
        changes |= {"rotary": "sd", "positions": None, "rotary_table": False}
    if spec.fault_at == "prelude" and not spec.prelude and spec.fault in BLOCK_FAULTS:
        changes["prelude"] = 1
    if spec.fault_at == "coda" and not spec.coda and spec.fault in BLOCK_FAULTS:
        changes["coda"] = 1
    return replace(spec, **changes)
