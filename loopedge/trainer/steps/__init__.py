"""One optimizer step and what it is made of."""
