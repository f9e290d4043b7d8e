"""Published looped language models, one file per model type, read from ``config.json`` and safetensors."""
