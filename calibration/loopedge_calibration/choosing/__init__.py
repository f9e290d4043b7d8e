"""Quantizations tried on data, and the one that is taken: what ``--scheme auto`` does."""
