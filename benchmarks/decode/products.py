"""What is measured: products by width of their weights, the first of each that of `loopedge to-generate`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["PRODUCTS", "RIVALS", "Product"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """One way to decode a model.

    ``cache``: the type that keys and values are kept in; ``whole``: every token takes the whole text, so it decodes few of them.
    """

    label: str
    width: str
    engine: str
    file: str = ""
    cache: str = "float32"
    whole: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ours(self) -> bool:
        """Whether it is what loopedge writes by default at its width, or with another scheme or cache."""
        return self.label.startswith("loopedge")


def _llama(width: str, cache: str, flash: str) -> Product:
    name = {"float32": "f32", "int8": "q8_0", "int4": "q4_0"}[width]
    kept = {"float32": "f32", "float16": "f16", "int8": "q8_0"}[cache]
    return Product(
        label=f"llama.cpp {name}, cache {kept}",
        width=width,
        engine="llama",
        file=f"{width}.gguf",
        cache=cache,
        options={"cache_type": cache, "flash": flash},
    )


def _ours(
    label: str, width: str, file: str, cache: str = "float32", memory: str | None = None
) -> Product:
    return Product(
        label=label,
        width=width,
        engine="generator",
        file=file,
        cache=cache,
        options={"memory": memory},
    )


CACHES = (("float16", "auto"), ("float32", "off"), ("int8", "on"))
"""llama.cpp's types of a cache, and whether its flash attention is on; with it the cache of floats is one of halves."""

PRODUCTS = (
    _ours("loopedge float32", "float32", "float32.scan.onnx"),
    _ours("loopedge float32, memory low", "float32", "float32.scan.onnx", memory="low"),
    _ours("unrolled float32", "float32", "float32.unrolled.onnx"),
    Product(label="PyTorch eager, cached", width="float32", engine="torch"),
    Product(
        label="run --text, recomputed",
        width="float32",
        engine="recomputation",
        file="float32.onnx",
        whole=True,
    ),
    *(_llama("float32", *cache) for cache in CACHES[:2]),
    _ours("loopedge weight-int8", "int8", "int8.scan.onnx"),
    _ours("loopedge dynamic int8", "int8", "dynamic.scan.onnx"),
    _ours("loopedge weight-int8, cache int8", "int8", "int8.cache-int8.onnx", "int8"),
    _ours("loopedge dynamic int8, cache int8", "int8", "dynamic.cache-int8.onnx", "int8"),
    _ours("unrolled weight-int8", "int8", "int8.unrolled.onnx"),
    *(_llama("int8", *cache) for cache in CACHES),
    _ours("loopedge weight-int4", "int4", "int4.scan.onnx"),
    _ours("loopedge weight-int4, cache int8", "int4", "int4.cache-int8.onnx", "int8"),
    _ours("unrolled weight-int4", "int4", "int4.unrolled.onnx"),
    *(_llama("int4", *cache) for cache in CACHES),
)

RIVALS = {"float32": "llama.cpp f32", "int8": "llama.cpp q8_0", "int4": "llama.cpp q4_0"}
"""How the labels of llama.cpp begin, by width."""
