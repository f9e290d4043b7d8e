"""Refine rounded weights: the rounding is trained through the whole loop, towards the float model's outputs."""
