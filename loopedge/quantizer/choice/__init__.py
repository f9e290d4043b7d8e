"""Which of several quantizations is taken, why, and how it is repeated."""
