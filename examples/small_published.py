"""Write a folder as a published Nanbeige has it, with random weights: to try what takes gigabytes otherwise.

python -m examples.small_published FOLDER
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from loopedge.model.published.nanbeige import Nanbeige, NanbeigeConfig

CONFIG: dict[str, Any] = {
    "model_type": "nanbeige",
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "num_loops": 2,
    "max_position_embeddings": 512,
    "eos_token_id": 0,
    "torch_dtype": "bfloat16",
}


def main(folder: Path) -> None:
    """Write ``config.json`` and ``model.safetensors``."""
    module = Nanbeige(NanbeigeConfig.read(CONFIG, "config.json"))
    module.fill_random(torch.Generator().manual_seed(0))
    names = module.state_names()
    tensors = {names[name]: value.bfloat16() for name, value in module.named_parameters()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    save_file(tensors, folder / "model.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
