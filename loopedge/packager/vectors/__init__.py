"""Test vectors: inputs and what must come out of them, made, measured and written."""
