"""Attention and MLP in parts, so that activations are small."""
