"""The statements of a pilot as sentences, a file per language."""
