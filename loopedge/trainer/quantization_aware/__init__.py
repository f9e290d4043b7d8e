"""Rounding in a forward pass of PyTorch, with gradients that pass it as if it were not there."""
