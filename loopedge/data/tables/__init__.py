"""A user's table: read a piece at a time, its columns, its times, and what is wrong with it."""
