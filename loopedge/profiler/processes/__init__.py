"""Measured processes, as the process that measures sees them."""
