"""The parts that data is split into."""

from typing import Literal

__all__ = ["SPLITS", "Split"]

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
