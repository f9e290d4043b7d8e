"""Attention that is written out as products and a softmax: its parts, and what they say of it."""
