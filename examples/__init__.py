"""Examples: a demo, a module of one's own, the looped structures of the field."""
