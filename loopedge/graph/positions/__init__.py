"""Positions of the sequence: which of them operators need, and a last iteration that computes those alone."""
