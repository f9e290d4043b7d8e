"""The times of a table: how they are written, their zone, their order, their steps and their gaps."""
