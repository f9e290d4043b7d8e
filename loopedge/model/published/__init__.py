"""Published looped language models: one file per model type, which holds its ``CONFIG`` and its ``MODULE``."""
