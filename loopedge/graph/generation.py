"""What a generate file says of its cache: ``loopedge.generate`` of its properties."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["CacheSlot", "Generation"]

Count = Annotated[int, Field(ge=1, le=65_536)]
Length = Annotated[int, Field(ge=1, le=2**31 - 1)]
TokenId = Annotated[int, Field(ge=0, le=2**31 - 1)]


class CacheSlot(BaseModel):
    """The keys and values of one attention layer; ``loops`` is how often a layer of the core runs."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str = Field(pattern=r"^[a-z][a-z0-9]*(\.\d{1,6}){1,2}$", description="Its place: core.0.")
    loops: Count | None = None
    kv_heads: Count
    head_size: Count
    window: Length | None = Field(
        default=None, description="Positions before it that a query sees."
    )


class Generation(BaseModel):
    """How a file generates: where its cache is, how long a text may be, and which ids end it."""

    model_config = ConfigDict(frozen=True, extra="allow")

    cache: Literal["per-loop", "last-loop"] = "per-loop"
    cache_type: Literal["float32", "float16", "int8", "int4"] = "float32"
    context: Length | None = Field(default=None, description="Positions at most; null: any number.")
    vocab_size: Length | None = None
    slots: list[CacheSlot] = Field(default_factory=list, max_length=65_536)
    end_ids: list[TokenId] = Field(default_factory=list, max_length=1024)
