"""The files of a model: opened, checked, written whole or not at all, described."""
