"""The float model that is quantized: opened once, and handed on from calibration to verification."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import onnx_ir as ir

from loopedge.artifact.artifact import Artifact
from loopedge.files.staging import again_if_replaced
from loopedge.graph.metadata import Metadata, read_metadata
from loopedge.graph.passes.windows import unfold_convolutions
from loopedge.runtime.decoding.refusals import refuse_cache
from loopedge.runtime.memory_profiles import refuse_prepared

__all__ = ["FloatSource", "with_source"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FloatSource:
    """A float model's file, with its graph to work on.

    `graph` is never changed; a pass takes a clone of it.

    Attributes:
        artifact: The file.
        graph: As `Artifact.float32_graph`: all iterations in the Loop, weights in float32. Convolutions are linears
            over windows.
        metadata: What that graph says of itself.
    """

    artifact: Artifact
    graph: ir.Model
    metadata: Metadata

    @classmethod
    def of(cls, artifact: Artifact) -> "FloatSource":
        """Make the graph of a file ready to work on.

        Raises:
            InputError: The file is in ORT format, or its weights are packed for one device.
        """
        graph = artifact.float32_graph()
        unfold_convolutions(graph)
        metadata = read_metadata(graph.metadata_props)
        refuse_prepared(metadata, artifact.path, "quantize")
        refuse_cache(metadata, artifact.path, "quantize")
        return cls(artifact=artifact, graph=graph, metadata=metadata)

    @classmethod
    def open(cls, path: str | Path) -> "FloatSource":
        """Open a file and make its graph ready to work on.

        Raises:
            InputError: As `Artifact.open` and `of`.
        """
        return cls.of(Artifact.open(path))

    @property
    def path(self) -> Path:
        """The file, as the caller named it."""
        return self.artifact.path


def with_source(path: str | Path, work: Callable[[Artifact], T]) -> T:
    """Open a file and work on it; once more, where it was replaced while that failed."""
    return again_if_replaced(Path(path), lambda: work(Artifact.open(path)))
