"""Which weights of a graph stand behind a module's operand: whole, in parts, fused, by name where values are equal."""

import pytest
import torch

from loopedge_calibration.refining.operands import Operands, Tile

WEIGHT = torch.arange(24.0).reshape(6, 4)


def test_a_part_of_a_fused_weight() -> None:
    operands = Operands({"qkv": WEIGHT}, {})
    assert operands.find(WEIGHT[2:4]) == (Tile("qkv", (0, 2), (0, 4), (2, 4), (0, 4)),)
    assert operands.find(WEIGHT[2:4] + 0.1) is None
    assert operands.found == {"qkv"}


def test_a_layer_that_the_graph_computes_in_parts() -> None:
    rows = Operands({"b": WEIGHT[2:], "a": WEIGHT[:2]}, {})
    assert rows.find(WEIGHT) == (
        Tile("a", (0, 2), (0, 4), (0, 2), (0, 4)),
        Tile("b", (2, 6), (0, 4), (0, 4), (0, 4)),
    )
    columns = Operands({"a": WEIGHT[:, :1], "b": WEIGHT[:, 1:]}, {})
    assert columns.find(WEIGHT) == (
        Tile("a", (0, 6), (0, 1), (0, 6), (0, 1)),
        Tile("b", (0, 6), (1, 4), (0, 6), (0, 3)),
    )
    assert Operands({"a": WEIGHT[:2]}, {}).find(WEIGHT) is None, "a part is missing"


def test_equal_weights_are_taken_by_their_names() -> None:
    one, two = WEIGHT.clone(), WEIGHT.clone()
    names = {one.untyped_storage().data_ptr(): "one", two.untyped_storage().data_ptr(): "two"}
    operands = Operands({"one": WEIGHT, "two": WEIGHT.clone()}, names)
    assert operands.find(two) == (Tile("two", (0, 6), (0, 4), (0, 6), (0, 4)),)
    assert operands.find(one) == (Tile("one", (0, 6), (0, 4), (0, 6), (0, 4)),)


@pytest.mark.parametrize("half", [False, True])
def test_weights_that_are_stored_in_float16(half: bool) -> None:
    exact = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    operands = Operands({"w": exact.half().float()}, {}, half=half)
    assert (operands.find(exact) is not None) is half
