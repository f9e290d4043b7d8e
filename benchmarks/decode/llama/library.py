"""libllama by ctypes: ids in, logits out; no tokenizer. Standard library and numpy alone.

The structures are those of the pinned source (`source.py`): another release needs others.
"""

import ctypes
from ctypes import POINTER, Structure, c_bool, c_float, c_int8, c_int32, c_uint32, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CACHE_TYPES", "LlamaDecoder"]

CACHE_TYPES = {"float32": 0, "float16": 1, "int8": 8}
"""Numbers of ggml: f32, f16, q8_0."""

MMAP = 1
FLASH = {"auto": -1, "off": 0, "on": 1}
LOG = ctypes.CFUNCTYPE(None, c_int32, ctypes.c_char_p, c_void_p)


class _ModelParameters(Structure):
    _fields_ = (
        ("devices", c_void_p),
        ("tensor_buft_overrides", c_void_p),
        ("n_gpu_layers", c_int32),
        ("split_mode", c_int32),
        ("load_mode", c_int32),
        ("lazy_mode", c_int32),
        ("main_gpu", c_int32),
        ("tensor_split", c_void_p),
        ("progress_callback", c_void_p),
        ("progress_callback_user_data", c_void_p),
        ("kv_overrides", c_void_p),
        ("vocab_only", c_bool),
        ("check_tensors", c_bool),
        ("use_extra_bufts", c_bool),
        ("no_host", c_bool),
        ("no_alloc", c_bool),
        ("load_mtp", c_bool),
    )


class _ContextParameters(Structure):
    _fields_ = (
        ("n_ctx", c_uint32),
        ("n_batch", c_uint32),
        ("n_ubatch", c_uint32),
        ("n_seq_max", c_uint32),
        ("n_rs_seq", c_uint32),
        ("n_outputs_max", c_uint32),
        ("n_outputs_max_per_seq", c_uint32),
        ("n_threads", c_int32),
        ("n_threads_batch", c_int32),
        ("ctx_type", c_int32),
        ("rope_scaling_type", c_int32),
        ("pooling_type", c_int32),
        ("attention_type", c_int32),
        ("flash_attn_type", c_int32),
        ("rope_freq_base", c_float),
        ("rope_freq_scale", c_float),
        ("yarn_ext_factor", c_float),
        ("yarn_attn_factor", c_float),
        ("yarn_beta_fast", c_float),
        ("yarn_beta_slow", c_float),
        ("yarn_orig_ctx", c_uint32),
        ("defrag_thold", c_float),
        ("cb_eval", c_void_p),
        ("cb_eval_user_data", c_void_p),
        ("type_k", c_int32),
        ("type_v", c_int32),
        ("abort_callback", c_void_p),
        ("abort_callback_data", c_void_p),
        ("embeddings", c_bool),
        ("offload_kqv", c_bool),
        ("no_perf", c_bool),
        ("op_offload", c_bool),
        ("swa_full", c_bool),
        ("kv_unified", c_bool),
        ("samplers", c_void_p),
        ("n_samplers", ctypes.c_size_t),
        ("ctx_other", c_void_p),
    )


class _Batch(Structure):
    _fields_ = (
        ("n_tokens", c_int32),
        ("token", POINTER(c_int32)),
        ("embd", c_void_p),
        ("pos", c_void_p),
        ("n_seq_id", c_void_p),
        ("seq_id", c_void_p),
        ("logits", POINTER(c_int8)),
    )


class LlamaError(RuntimeError):
    """A call that failed."""


class Library:
    """libllama, loaded; nothing is computed yet."""

    def __init__(self, path: Path) -> None:
        self.lines: list[str] = []
        library: Any = ctypes.CDLL(str(path))
        library.llama_model_default_params.restype = _ModelParameters
        library.llama_context_default_params.restype = _ContextParameters
        library.llama_model_load_from_file.restype = c_void_p
        library.llama_model_load_from_file.argtypes = [ctypes.c_char_p, _ModelParameters]
        library.llama_init_from_model.restype = c_void_p
        library.llama_init_from_model.argtypes = [c_void_p, _ContextParameters]
        library.llama_model_get_vocab.restype = c_void_p
        library.llama_model_get_vocab.argtypes = [c_void_p]
        library.llama_vocab_n_tokens.argtypes = [c_void_p]
        library.llama_get_memory.restype = c_void_p
        library.llama_get_memory.argtypes = [c_void_p]
        library.llama_memory_seq_rm.restype = c_bool
        library.llama_memory_seq_rm.argtypes = [c_void_p, c_int32, c_int32, c_int32]
        library.llama_decode.argtypes = [c_void_p, _Batch]
        library.llama_get_logits_ith.restype = POINTER(c_float)
        library.llama_get_logits_ith.argtypes = [c_void_p, c_int32]
        self._keep = LOG(lambda level, text, data: self.lines.append(text.decode(errors="replace")))
        library.llama_log_set(self._keep, None)
        library.llama_backend_init()
        self.calls = library

    def last_line(self) -> str:
        """Return what the library said last."""
        return next((line.strip() for line in reversed(self.lines) if line.strip()), "no message")


class LlamaDecoder:
    """One sequence.

    Args:
        library: The library.
        model: A GGUF file.
        context: Positions of its cache.
        threads: How many.
        cache_type: A key of `CACHE_TYPES`.
        flash: A key of `FLASH`; a cache of eight bits needs ``on``.
        chunk: Positions that are computed at once.
    """

    def __init__(
        self,
        library: Library,
        model: Path,
        *,
        context: int,
        threads: int,
        cache_type: str = "float16",
        flash: str = "auto",
        chunk: int = 512,
    ) -> None:
        self.library, calls = library, library.calls
        parameters = calls.llama_model_default_params()
        parameters.n_gpu_layers, parameters.load_mode = 0, MMAP
        self.model = calls.llama_model_load_from_file(str(model).encode(), parameters)
        if not self.model:
            raise LlamaError(library.last_line())
        options = calls.llama_context_default_params()
        options.n_ctx, options.n_batch, options.n_ubatch = context, context, chunk
        options.n_threads = options.n_threads_batch = threads
        options.n_outputs_max = 1
        options.type_k = options.type_v = CACHE_TYPES[cache_type]
        options.flash_attn_type = FLASH[flash]
        options.no_perf = True
        self.context = calls.llama_init_from_model(self.model, options)
        if not self.context:
            raise LlamaError(library.last_line())
        self.vocabulary = calls.llama_vocab_n_tokens(calls.llama_model_get_vocab(self.model))

    def run(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Append ids int64 (1, sequence) and return a copy of the last position's logits (1, vocabulary)."""
        tokens = np.ascontiguousarray(ids[0], np.int32)
        asked = np.zeros(len(tokens), np.int8)
        asked[-1] = 1
        batch = _Batch(
            n_tokens=len(tokens),
            token=tokens.ctypes.data_as(POINTER(c_int32)),
            logits=asked.ctypes.data_as(POINTER(c_int8)),
        )
        failed = self.library.calls.llama_decode(self.context, batch)
        if failed:
            raise LlamaError(f"llama_decode: {failed}, {self.library.last_line()}")
        logits = self.library.calls.llama_get_logits_ith(self.context, len(tokens) - 1)
        return np.ctypeslib.as_array(logits, (1, self.vocabulary)).copy()

    def rewind(self, length: int) -> None:
        """Forget what follows the first ``length`` positions."""
        memory = self.library.calls.llama_get_memory(self.context)
        if not self.library.calls.llama_memory_seq_rm(memory, 0, length, -1):
            raise LlamaError(self.library.last_line())
