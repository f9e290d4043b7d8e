"""The runs of a pilot: one cell, several at once, what each leaves."""
