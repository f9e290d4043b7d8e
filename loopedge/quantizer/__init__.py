"""Rewrite the linears of an artifact to int8 (or int4), inside the loop."""
