"""What a pilot compares: the runs of each arm, the sizes of their models, and the start where the user names none."""

import math
from typing import Any

import pytest

from loopedge.errors import InputError
from loopedge.model.config import LoopedConfig
from loopedge.model.transformer import LoopedTransformer
from loopedge.study.design import Cell, Design, make_design, parameters_of
from loopedge.study.options import RATES, PilotOptions
from loopedge.study.start import PATIENCE, with_start
from loopedge.tasks.generated.sorting import SortingTask
from loopedge.tasks.generated.sudoku import SudokuTask

TASK = SortingTask(length=4, vocab=6)
MODEL, TRAIN = {"d_model": 32, "heads": 4}, {"steps": 4, "batch_size": 4}


def designed(model: dict[str, Any] | None = None, **keywords: Any) -> Design:
    return make_design(TASK, PilotOptions(model=model or MODEL, train=TRAIN, **keywords))


def config_of(design: Design, arm: str, loops: int) -> LoopedConfig:
    return design.model_config(TASK, Cell(arm=arm, loops=loops, seed=0))


def counted(config: LoopedConfig) -> int:
    return sum(parameter.numel() for parameter in LoopedTransformer(config).parameters())


def test_elastic_and_the_untied_arms_are_made_at_the_most_loops_alone() -> None:
    design = designed(arms=["looped", "elastic", "untied", "narrow"], loops=[4, 1, 2], seeds=1)
    assert [cell.name for cell in design.cells] == [
        "looped-r1-s0", "looped-r2-s0", "looped-r4-s0",
        "elastic-r4-s0", "untied-r4-s0", "narrow-r4-s0",
    ]  # fmt: skip
    assert [
        cell.name for cell in designed(arms=["looped", "elastic"], loops=[1], seeds=1).cells
    ] == ["looped-r1-s0"]
    with pytest.raises(InputError, match="arms elastic at one loop are the plain loop"):
        designed(arms=["elastic"], loops=[1])


def test_runs_stand_seed_by_seed_with_the_origins_inside() -> None:
    design = designed(arms=["looped"], loops=[1, 2], seeds=2, origins=2, first_seed=3)
    assert [cell.name for cell in design.cells] == [
        f"looped-r{loops}-s{seed}-o{origin}"
        for seed in (3, 4)
        for origin in (0, 1)
        for loops in (1, 2)
    ]
    assert [cell.block for cell in designed(arms=["looped"], loops=[1], seeds=1).cells] == ["s0"]


def test_elastic_is_the_plain_loop_with_drawn_counts() -> None:
    design = designed(arms=["looped", "elastic"], loops=[1, 4])
    plain, elastic = config_of(design, "looped", 4), config_of(design, "elastic", 4)
    assert elastic == plain.model_copy(update={"min_loops": 1})
    assert (elastic.timestep, elastic.loops) == ("none", 4)


@pytest.mark.parametrize(
    ("sizes", "loops"),
    [((32, 4), 2), ((64, 4), 8), ((64, 4), 3), ((48, 2), 6), ((128, 8), 4), ((64, 4), 48)],
)
def test_a_narrow_stack_has_the_weights_of_one_looped_layer(
    sizes: tuple[int, int], loops: int
) -> None:
    design = designed(
        {"d_model": sizes[0], "heads": sizes[1]}, arms=["looped", "narrow"], loops=[1, loops]
    )
    tied, narrow = config_of(design, "looped", loops), config_of(design, "narrow", loops)
    assert (narrow.layers, narrow.loops) == (loops, 1)
    assert narrow.head_size % 2 == 0
    difference = abs(counted(narrow) / counted(tied) - 1)
    assert difference < 0.17
    # No other width of as many heads is nearer.
    for width in (narrow.d_model - 2 * narrow.heads, narrow.d_model + 2 * narrow.heads):
        other = narrow.model_copy(update={"d_model": width})
        assert width <= 0 or abs(counted(other) / counted(tied) - 1) >= difference


def test_an_untied_stack_has_the_depth_and_a_layer_for_each_iteration() -> None:
    design = designed({**MODEL, "layers": 2}, arms=["looped", "untied"], loops=[1, 3])
    untied = config_of(design, "untied", 3)
    assert (untied.d_model, untied.layers, untied.loops) == (32, 6, 1)
    assert parameters_of(untied) == counted(untied)
    tied = config_of(design, "looped", 3)
    assert parameters_of(tied) == counted(tied)


def test_the_start_scales_with_the_width_and_gives_way_to_what_is_named() -> None:
    config = config_of(designed(), "looped", 4)
    assert config.init_std == pytest.approx(1 / math.sqrt(32))
    assert (config.embedding_std, config.gate_init, config.positions) == (0.5, 1.0, "rotary")
    named = {
        **MODEL,
        "init_std": 0.02,
        "embedding_std": None,
        "gate_init": 0.0,
        "positions": "none",
    }
    kept = config_of(designed(named), "looped", 4)
    assert (kept.init_std, kept.embedding_std, kept.gate_init) == (0.02, None, 0.0)
    assert kept.positions == "none"


def test_a_narrow_stack_starts_as_its_own_width_asks() -> None:
    narrow = config_of(designed(arms=["looped", "narrow"], loops=[1, 4]), "narrow", 4)
    assert narrow.d_model < 32
    assert narrow.init_std == pytest.approx(1 / math.sqrt(narrow.d_model))


def test_positions_are_learned_where_the_task_or_odd_heads_ask_for_it() -> None:
    assert with_start(TASK, MODEL)["positions"] == "rotary"
    assert with_start(SudokuTask(box=2), MODEL)["positions"] == "learned"
    assert with_start(TASK, {"d_model": 20, "heads": 4})["positions"] == "learned"


def test_the_rate_of_a_run_is_that_of_its_trials_or_the_one_that_is_named() -> None:
    design, cell = designed(), Cell(arm="looped", loops=1, seed=2)
    assert design.rates == tuple(sorted(RATES))
    chosen = design.train_config(cell, 4e-3)
    assert (chosen.lr, chosen.weight_decay, chosen.seed) == (4e-3, 0.1, 2)
    assert chosen.patience == PATIENCE
    patient = make_design(TASK, PilotOptions(model=MODEL, train={**TRAIN, "patience": None}))
    assert patient.train_config(cell).patience is None
    named = make_design(TASK, PilotOptions(model=MODEL, train={**TRAIN, "lr": 3e-4}))
    assert named.rates == ()
    assert named.train_config(cell).lr == 3e-4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"arms": ["untied", "narrow"]}, "arms untied,narrow: there is no looped model"),
        ({"rates": []}, "rates none: different numbers above 0"),
        ({"rates": [1e-3, 0.0]}, r"rates 0\.001,0\.0: different numbers above 0"),
        ({"rates": [11.0]}, r"rates 11\.0: different numbers above 0, up to 10"),
    ],
)
def test_what_cannot_be_compared_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        designed(**change)
