"""The last iteration computes only what the coda reads of it."""
