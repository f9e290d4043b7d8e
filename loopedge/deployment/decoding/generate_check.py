"""Compare a generate file with its source, in whatever way its cache and its exits need."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from loopedge.artifact.artifact import Artifact, write_scratch
from loopedge.deployment.decoding.cache_rounding import CacheRounding
from loopedge.deployment.decoding.decode_check import (
    DecodeDifference,
    LastLoop,
    compare_decoding,
    tolerated,
)
from loopedge.deployment.decoding.exit_check import compare_exits, never_done
from loopedge.deployment.decoding.exit_rule import ExitRule, give_states
from loopedge.deployment.decoding.generate_graph import (
    GenerateRequest,
    described,
    exit_tolerance,
    rewritten,
)
from loopedge.files.scratch import never_named
from loopedge.graph.decoding.decoding import Decoding
from loopedge.graph.metadata import Generation
from loopedge.graph.timestep_rows import random_rows
from loopedge.graph.weights import TABLE_PREFIX

__all__ = ["compare_with_source"]


def compare_with_source(
    source: Artifact,
    written: Path,
    decoding: Decoding,
    rounded: CacheRounding | None,
    wanted: GenerateRequest,
) -> DecodeDifference:
    """Compare the file, or where its cache holds integers the same graph with floats, with its source."""
    exact = wanted.exact
    if wanted.exit is not None:
        return _compare_exits(source, written, decoding, wanted)
    file = written if rounded is None else rounded.exact
    found = _compare(source, file, described(source, decoding, exact), exact)
    _compare_other_rows(source, written.parent, exact)
    return found


def _compare_exits(
    source: Artifact, written: Path, decoding: Decoding, wanted: GenerateRequest
) -> DecodeDifference:
    """Compare a file that is never done with whole texts, and what the exits skip with that."""
    never = replace(wanted, exit=None)
    with _scratch(written.parent, source.path) as folder:
        running = never_done(source, folder / "never.onnx")
        plain = rewritten(running, running.fresh_graph(), never)
        file, generation = folder / "plain.onnx", described(running, plain, never)
        write_scratch(plain.model, file)
        found = _compare(running, file, generation, never)
        _compare_other_rows(running, folder, never)
        give_states(plain.model)
        write_scratch(plain.model, folder / "states.onnx")
        own = (written, described(source, decoding, wanted))
        iterations = compare_exits(
            (folder / "states.onnx", generation),
            own,
            wanted.exit or "copy",
            rule=ExitRule(source.fresh_graph(), tolerance=exit_tolerance(source, wanted)),
            noise=source.metadata.random_inputs,
            threads=wanted.threads,
        )
    return replace(found, iterations=iterations)


def _compare(
    source: Artifact, written: Path, generation: Generation, wanted: GenerateRequest
) -> DecodeDifference:
    """Compare decoded logits with those of whole texts, or of `LastLoop` where these depend on the chunks."""
    allowed = tolerated(source.graph)
    if wanted.cache == "per-loop":
        return compare_decoding(source, written, generation, allowed, threads=wanted.threads)
    own = replace(wanted, cache="per-loop")
    decoding = rewritten(source, source.fresh_graph(), own)
    with _scratch(written.parent, source.path) as folder:
        path = folder / "per-loop.onnx"
        write_scratch(decoding.model, path)
        own_generation = described(source, decoding, own)
        compare_decoding(source, path, own_generation, allowed, threads=wanted.threads)
        reference = LastLoop(path, own_generation, threads=wanted.threads)
        return compare_decoding(
            source, written, generation, allowed, reference=reference, threads=wanted.threads
        )


@contextmanager
def _scratch(beside: Path, source: Path) -> Iterator[Path]:
    """Yield a folder for copies of a model, on the disk of another file: their names are those of none that is written."""
    with (
        tempfile.TemporaryDirectory(prefix="loopedge.", dir=beside) as name,
        never_named(Path(name), source),
    ):
        yield Path(name)


def _compare_other_rows(artifact: Artifact, beside: Path, wanted: GenerateRequest) -> None:
    """Compare once more with random timestep rows: an untrained stack hides its attention behind gates of zero."""
    tables = {
        name: value.const_value.numpy()
        for name, value in artifact.graph.graph.initializers.items()
        if name.startswith(TABLE_PREFIX) and value.const_value is not None
    }
    if not tables:
        return
    rows = random_rows(tables, np.random.default_rng(0))
    with _scratch(beside, artifact.path) as folder:
        source, decoded = folder / "rows.onnx", folder / "rows.generate.onnx"
        write_scratch(_with_tables(artifact.fresh_graph(), rows), source)
        other = Artifact.open(source)
        decoding = rewritten(other, other.fresh_graph(), wanted)
        write_scratch(decoding.model, decoded)
        _compare(other, decoded, described(other, decoding, wanted), wanted)


def _with_tables(model: ir.Model, tables: Mapping[str, np.ndarray[Any, Any]]) -> ir.Model:
    for name, table in tables.items():
        model.graph.initializers[name].const_value = ir.tensor(table, name=name)
    return model
