"""Passes over a whole graph: each says what it changes."""
