"""The pilot: arms and loop counts compared on one task."""
