"""Files that are written from a folder: against an independent forward, against the folder, and what is in them."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import loopedge
from loopedge.artifact.artifact import Artifact
from loopedge.errors import InputError, VerificationError
from loopedge.exporter.pipeline import ExportResult
from loopedge.exporter.published.likeness import check_likeness
from loopedge.exporter.published.pieces import Piece, pieces_of
from loopedge.exporter.published.stored_check import StoredCheck
from loopedge.exporter.verification.verify import ExportErrors
from loopedge.graph.decoding.fusing.products import JoinedTensor
from loopedge.graph.lazy_weights import LazyWeight
from loopedge.graph.metadata import read_metadata
from loopedge.graph.passes.table_head import MICROSOFT
from loopedge.model.published.loading import open_folder
from tests.parity.published.looped_llamas import (
    NANBEIGE,
    OURO,
    random_state,
    reference_logits,
    write_folder,
)
from tests.parity.third_party import relative_error

pytestmark = pytest.mark.long

SHALLOW = {"num_hidden_layers": 1}
NANBEIGE_CONFIG = NANBEIGE | SHALLOW | {"loop_loss_weights": [0.5]}
OURO_CONFIG = OURO | SHALLOW | {"layer_types": None, "early_exit_threshold": 0.5}
FILES = {
    "tokenizer.json": "{}",
    "tokenizer_config.json": "{}",
    "generation_config.json": {"eos_token_id": [5, 2]},
}


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A folder, its tensors, and the file that was written from it."""

    folder: Path
    config: Mapping[str, Any]
    state: Mapping[str, Tensor]
    path: Path
    result: ExportResult


def export(
    place: Path, config: dict[str, Any], state: dict[str, Tensor], **options: Any
) -> Exported:
    kept = {key: value for key, value in config.items() if value is not None}
    folder = write_folder(place / "folder", kept, state, shards=2, files=FILES)
    path = place / "model.onnx"
    result = loopedge.export(folder, path, **options)
    return Exported(folder=folder, config=config, state=state, path=path, result=result)


@pytest.fixture(scope="module")
def decoding(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Nanbeige with a cache, float32; its head is tied by value alone."""
    state = random_state(NANBEIGE_CONFIG)
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    place = tmp_path_factory.mktemp("decoding")
    return export(place, NANBEIGE_CONFIG, state, task="generate")


@pytest.fixture(scope="module")
def looped(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Ouro as a Loop with a run-time count, weights in float16, tokens that leave at steps of their own."""
    place, state = tmp_path_factory.mktemp("looped"), random_state(OURO_CONFIG)
    return export(place, OURO_CONFIG, state, storage="float16", dynamic_loops=True)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Nanbeige in four bits with a cache."""
    place, state = tmp_path_factory.mktemp("packed"), random_state(NANBEIGE_CONFIG)
    return export(place, NANBEIGE_CONFIG, state, weight_bits=4, task="generate")


@dataclass(frozen=True)
class Rows:
    """Rows in memory, read at once."""

    values: NDArray[np.float32]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def chunks(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        yield 0, self.values


def tokens(length: int, batch: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(length)
    return torch.randint(83, (batch, length), generator=generator)


def test_a_file_with_a_cache_decodes_what_the_forward_computes(decoding: Exported) -> None:
    ids = tokens(12)
    expected = reference_logits(decoding.config, decoding.state, ids).numpy()
    generator = loopedge.Generator(decoding.path, threads=1)
    logits = [generator.prefill(ids[0, :7].tolist())]
    logits += [generator.step(int(token)) for token in ids[0, 7:]]
    assert relative_error(np.stack(logits, axis=1), expected[:, 6:]) < 1e-5


def test_a_file_says_what_came_with_the_folder(decoding: Exported) -> None:
    artifact = Artifact.open(decoding.path)
    metadata = artifact.metadata
    assert set(metadata.companions) == {"tokenizer.json", "tokenizer_config.json"}
    assert metadata.generate is not None
    assert metadata.generate.end_ids == [5, 2]
    assert (metadata.loops, metadata.generate.context) == (2, 64)
    assert metadata.generate.vocab_size == 83
    names = set(artifact.graph.graph.initializers)
    assert "lm_head.weight" not in names  # stored once, as the embedding
    assert {"model.embed_tokens.weight", "model.layers.0.mlp.down_proj.weight"} <= names
    notes = " ".join(decoding.result.notes)
    assert f"{len(decoding.state) - 1} weights are those of the folder" in notes  # the head is one
    assert "lm_head.weight holds the values of model.embed_tokens.weight" in notes
    assert "BF16" in notes


@pytest.mark.filterwarnings("ignore::loopedge.errors.LoopCountWarning")
def test_a_loop_of_stored_weights_computes_what_the_forward_does(looped: Exported) -> None:
    half = {
        name: value.half().float() if value.dim() > 1 else value
        for name, value in looped.state.items()
    }
    ids = tokens(9, batch=2)
    session = loopedge.Session(looped.path, threads=1)
    for loops in (1, 3):
        expected = reference_logits(looped.config, half, ids, loops).numpy()
        (given,) = session.run({"input_ids": ids.numpy()}, loops=loops).values()
        assert relative_error(given, expected) < 1e-5, loops
    stored = sum(value.numel() for value in half.values() if value.dim() > 1)
    assert looped.result.weight_bytes < 2.1 * stored


def test_four_bits_come_straight_from_the_folder(packed: Exported) -> None:
    graph = Artifact.open(packed.path).graph
    operators = {node.op_type for node in graph.graph.all_nodes()}
    assert {"MatMulNBits", "GroupQueryAttention", "Scan"} <= operators
    assert "MatMul" not in operators
    floats = sum(value.numel() for value in packed.state.values())
    assert packed.result.weight_bytes < 1.1 * floats  # the embedding has a byte for each value
    metadata = read_metadata(graph.metadata_props)
    assert metadata.quantization is not None
    assert metadata.quantization["scheme"] == "weight-int4"
    ids = tokens(6)
    expected = reference_logits(packed.config, packed.state, ids).numpy()[:, -1]
    given = loopedge.Generator(packed.path, threads=1).prefill(ids[0].tolist())
    assert relative_error(given, expected) < 0.6
    assert np.corrcoef(given[0], expected[0])[0, 1] > 0.9


def stored_check(exported: Exported, folder: Path, *, turned: bool = True) -> StoredCheck:
    """Return the check of a file against a folder: two of its weights and a norm."""
    artifact = Artifact.open(exported.path)
    layer = "model.layers.0"
    pieces = [
        Piece(
            name=f"{layer}.{name}.weight",
            weight=f"{layer}.{name}.weight",
            start=0,
            rows=48,
            turned=turned,
        )
        for name in ("self_attn.o_proj", "mlp.down_proj")
    ]
    norm = "model.norm.weight"
    pieces.append(Piece(name=norm, weight=norm, start=0, rows=48))
    return StoredCheck(
        folder=open_folder(folder),
        graph=artifact.fresh_graph(),
        metadata=artifact.metadata,
        domains={MICROSOFT: 1},
        opset=23,
        loops=2,
        pieces=pieces,
        rounds=frozenset(),
        bits=None,
        errors=ExportErrors(max_abs_error=0.0, max_rel_error=0.0, cases=0),
    )


@pytest.mark.parametrize("wrong", ["model.layers.0.mlp.down_proj.weight", "model.norm.weight"])
def test_a_weight_of_other_values_is_found(wrong: str, decoding: Exported, tmp_path: Path) -> None:
    stored_check(decoding, decoding.folder)(decoding.path)
    other = dict(decoding.state)
    other[wrong] = other[wrong].clone()
    other[wrong].view(-1)[7] *= 1.02
    folder = tmp_path / "other"
    shutil.copytree(decoding.folder, folder)
    write_folder(
        folder, {k: v for k, v in decoding.config.items() if v is not None}, other, shards=2
    )
    with pytest.raises(VerificationError, match=wrong):
        stored_check(decoding, folder)(decoding.path)


def test_a_weight_that_lies_the_other_way_is_found(decoding: Exported) -> None:
    with pytest.raises((VerificationError, ValueError)):
        stored_check(decoding, decoding.folder, turned=False)(decoding.path)


def test_joined_weights_are_known_by_their_parts() -> None:
    """Queries, keys and values stand in one initializer, one behind the other."""
    rows = {name: np.ones((size, 3), np.float32) for name, size in (("q", 4), ("k", 2))}
    parts = [LazyWeight(Rows(values), name=name, turned=True) for name, values in rows.items()]
    value = ir.Value(name="q+k", const_value=JoinedTensor(parts, 1))
    graph = ir.Graph([], [], nodes=[], initializers=[value], name="joined")
    assert [(piece.name, piece.start, piece.rows) for piece in pieces_of(graph, rows)] == [
        ("q", 0, 4),
        ("k", 4, 2),
    ]


def test_a_graph_of_another_wiring_is_found(decoding: Exported) -> None:
    graph, other = (Artifact.open(decoding.path).fresh_graph() for _ in range(2))
    check_likeness(graph, other)
    node = next(node for node in other.graph.all_nodes() if node.op_type == "Add")
    node.replace_input_with(1, node.inputs[0])
    with pytest.raises(VerificationError, match="another one"):
        check_likeness(graph, other)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"padding": True}, "padding"),
        ({"exit": "tolerance=0.1"}, "exit"),
        ({"format": "ort"}, "format"),
        ({"activations": "small"}, "activations"),
        ({"dynamic_shapes": {"input_ids": {0: "batch"}}}, "dynamic_shapes"),
    ],
)
def test_options_without_a_meaning_are_refused(
    options: dict[str, Any], said: str, decoding: Exported, tmp_path: Path
) -> None:
    target = tmp_path / f"model.{options.get('format', 'onnx')}"
    with pytest.raises(InputError, match=said):
        loopedge.export(decoding.folder, target, **options)
    assert list(tmp_path.iterdir()) == []
