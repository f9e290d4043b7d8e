"""Options of commands with many of them, each typed and explained once."""
