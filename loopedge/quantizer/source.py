"""The float model that is quantized: opened once, and handed on from calibration to verification."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import onnx_ir as ir

from loopedge.artifact.artifact import Artifact, write_scratch
from loopedge.errors import InputError
from loopedge.files.scratch import never_named
from loopedge.files.staging import again_if_replaced
from loopedge.graph.core.cores import Cores
from loopedge.graph.core.unrolling import unroll_loops
from loopedge.graph.metadata import Metadata, read_metadata
from loopedge.graph.passes.windows import unfold_convolutions
from loopedge.options import option
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
        reference: What is run as the float model: the file, or where an input of that chooses the loop count and `graph`
            has it fixed, a copy that has, too.
    """

    artifact: Artifact
    graph: ir.Model
    metadata: Metadata
    reference: Artifact

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
        return cls(artifact=artifact, graph=graph, metadata=metadata, reference=artifact)

    @classmethod
    def open(cls, path: str | Path) -> "FloatSource":
        """Open a file and make its graph ready to work on.

        Raises:
            InputError: As `Artifact.open` and `of`.
        """
        return cls.of(Artifact.open(path))

    @contextmanager
    def unrolled(self, loops: int | None, folder: Path) -> Iterator["FloatSource"]:
        """Give this model with its Loops written out; one without a Loop as it is.

        Args:
            loops: Iterations, where an input chooses them.
            folder: Where a copy may stand meanwhile.

        Raises:
            InputError: An input chooses the loop count and none is named, or a Loop ends itself.
        """
        if not Cores(self.graph).loops:
            yield self
            return
        if self.metadata.exit is not None:
            raise InputError(
                f"{self.path} ends its loop early, by what it computes: a file of {option('ops', 'qdq')} runs all "
                "iterations",
                hint="export without an early exit: loopedge export model.pt",
            )
        if self.metadata.dynamic_loops and loops is None:
            raise InputError(
                f"an input of {self.path} chooses the loop count, a file of {option('ops', 'qdq')} has one count",
                hint=option("loops", self.metadata.loops),
            )
        try:
            written = unroll_loops(self.graph, loops)
        except InputError as error:
            raise InputError(
                f"{self.path} cannot be unrolled: {error.message}", hint=error.hint
            ) from error
        graph = written.model
        source = replace(self, graph=graph, metadata=read_metadata(graph.metadata_props))
        if not written.fixed:
            yield source
            return
        with (
            tempfile.TemporaryDirectory(dir=folder, prefix=".unrolled.") as scratch,
            never_named(Path(scratch), self.path),
        ):
            copy = Path(scratch) / self.path.name
            write_scratch(graph, copy)
            yield replace(source, reference=Artifact.open(copy))

    @property
    def path(self) -> Path:
        """The file, as the caller named it."""
        return self.artifact.path


def with_source(path: str | Path, work: Callable[[Artifact], T]) -> T:
    """Open a file and work on it; once more, where it was replaced while that failed."""
    return again_if_replaced(Path(path), lambda: work(Artifact.open(path)))
