"""Files of others, checked before anything relies on them."""
