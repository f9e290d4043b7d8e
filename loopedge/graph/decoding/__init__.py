"""A graph that computes a whole text becomes one that goes on from what it computed before: `give_cache`."""
