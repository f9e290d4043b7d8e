"""Export a published model from its folder: its weights are read one at a time, while the file is written."""
