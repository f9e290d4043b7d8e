"""A model of `benchmarks.decode.model` as a GGUF file, written by the gguf package that llama.cpp's source holds."""

import importlib
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.decode.model import EPSILON, ROTARY_BASE, NanbeigeShaped

__all__ = ["TYPES", "write_gguf"]

ARCHITECTURE = "nanbeige"
TYPES = {"float32": "F32", "int8": "Q8_0", "int4": "Q4_0"}
"""Types of ggml by width of the weights."""

LAYER_NAMES = {
    "attention_norm": "attn_norm",
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "o": "attn_output",
    "mlp_norm": "ffn_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}
OTHER_NAMES = {"embedding": "token_embd", "norm": "output_norm", "head": "output"}


def write_gguf(model: NanbeigeShaped, width: str, path: Path, source: Path) -> None:
    """Write a model; norms stay in float32.

    Args:
        model: The model.
        width: A key of `TYPES`: how matrices are stored.
        path: The file.
        source: Folder of llama.cpp's source.
    """
    writer_module, quants, constants = _gguf(source)
    kind = constants.GGMLQuantizationType[TYPES[width]]
    writer = writer_module.GGUFWriter(path, ARCHITECTURE)
    shape = model.shape
    writer.add_context_length(shape.max_length)
    writer.add_embedding_length(shape.d_model)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.d_ff)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_size)
    writer.add_value_length(shape.head_size)
    writer.add_rope_dimension_count(shape.head_size)
    writer.add_rope_freq_base(ROTARY_BASE)
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_num_loops(shape.loops)
    writer.add_skip_loop_final_norm(False)
    writer.add_vocab_size(shape.vocab_size)
    writer.add_tokenizer_model("none")
    for name, array in _tensors(model):
        if array.ndim == 1 or width == "float32":
            writer.add_tensor(name, array)
        else:
            writer.add_tensor(name, quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _tensors(model: NanbeigeShaped) -> Iterator[tuple[str, NDArray[np.float32]]]:
    shape = model.shape
    heads = {"q": shape.heads, "k": shape.kv_heads}
    for name, parameter in model.named_parameters():
        array = parameter.detach().numpy()
        words = name.split(".")
        if words[0] == "layers":
            if words[2] in heads:
                array = _interleaved(array, heads[words[2]])
            yield f"blk.{words[1]}.{LAYER_NAMES[words[2]]}.weight", array
        else:
            yield f"{OTHER_NAMES[words[0]]}.weight", array


def _interleaved(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Return a projection whose rotary halves are pairs: this architecture turns neighbours."""
    split = weight.reshape(heads, 2, -1, weight.shape[1])
    return np.ascontiguousarray(split.swapaxes(1, 2).reshape(weight.shape))


def _gguf(source: Path) -> tuple[Any, Any, Any]:
    """Import what writes, without the rest of the package and what that needs."""
    folder = source / "gguf-py" / "gguf"
    if "gguf" not in sys.modules:
        package = types.ModuleType("gguf")
        package.__path__ = [str(folder)]
        sys.modules["gguf"] = package
    names = ("gguf_writer", "quants", "constants")
    writer, quants, constants = (importlib.import_module(f"gguf.{name}") for name in names)
    return writer, quants, constants
