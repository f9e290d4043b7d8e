"""Own models and one that TorchScript wrote decode with a cache, by a runner that shares nothing with the check."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import loopedge
from loopedge.artifact.artifact import Artifact
from loopedge.errors import InputError
from tests.fuzz.decoding import DecodingRunner, session_of, whole_logits
from tests.parity.models import make_model

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "learned positions": ("tokens", {}),
    "rotary positions": ("tokens", {"positions": "rotary", "layers": 2}),
    "padding": ("padded", {"positions": "rotary"}),
    "no positions": ("plain", {}),
}


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in MODELS if name != "padding"]


@pytest.fixture(scope="module", params=["padding", "TorchScript", *SLOW])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of a causal language model."""
    path: Path = tmp_path_factory.mktemp("lm") / "lm.onnx"
    if request.param == "TorchScript":
        return write_foreign(path)
    kind, changes = MODELS[request.param]
    loopedge.export(make_model(kind, **changes), path, dynamic_loops=kind == "tokens")
    return path


class Written(nn.Module):
    """One layer of attention that is written out, twice, over rows of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.position = nn.Embedding(50, 32), nn.Embedding(16, 32)
        self.mixed, self.out = nn.Linear(32, 96), nn.Linear(32, 32)

    def forward(self, ids: Tensor) -> Tensor:
        """Map int64 (batch, sequence) to logits (batch, sequence, 50)."""
        places = torch.arange(ids.shape[1])
        x = self.table(ids) + self.position(places)
        seen = places[:, None] >= places[None, :]
        for _ in range(2):
            sizes = (*ids.shape, 4, 8)
            parts = [part.view(*sizes).transpose(1, 2) for part in self.mixed(x).chunk(3, -1)]
            scores = parts[0] @ parts[1].transpose(-1, -2) / 8**0.5
            shares = scores.masked_fill(~seen, float("-inf")).softmax(-1)
            x = x + self.out((shares @ parts[2]).transpose(1, 2).flatten(2))
        logits: Tensor = x @ self.table.weight.T
        return logits


def write_foreign(path: Path) -> Path:
    """Let PyTorch's older exporter write a model."""
    torch.manual_seed(0)
    axes = {name: {0: "batch", 1: "sequence"} for name in ("ids", "logits")}
    torch.onnx.export(
        Written().eval(),
        (torch.zeros(2, 5, dtype=torch.int64),),
        path,
        dynamo=False,
        input_names=["ids"],
        output_names=["logits"],
        dynamic_axes=axes,
        opset_version=18,
    )
    return path


def decoded(target: Path, ids: NDArray[Any], sizes: tuple[int, ...]) -> list[NDArray[Any]]:
    """Return the logits behind each chunk of one text."""
    generation = Artifact.open(target).metadata.generate
    assert generation is not None
    slots = [
        (slot.name, () if slot.loops is None else (slot.loops,), slot.kv_heads, slot.head_size)
        for slot in generation.slots
    ]
    runner = DecodingRunner(str(target), slots)
    runner.start(1, ids.shape[1], None)
    found, done = [], 0
    for size in sizes:
        found.append(runner.run(ids[:, done : done + size], [done + size]))
        done += size
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("form", ["scan", "unrolled", "tensorscatter"])
def test_a_text_in_chunks_gives_what_the_whole_text_does(
    source: Path, form: Literal["scan", "unrolled", "tensorscatter"], tmp_path: Path
) -> None:
    target = tmp_path / "generate.onnx"
    result = loopedge.to_generate(source, target, form=form, threads=1)
    assert result.verified
    assert result.max_rel_error < 1e-4
    assert result.context in {16, None}
    ids = np.random.default_rng(0).integers(0, 50, (1, 16))
    expected = whole_logits(session_of(str(source)), ids, result.loops)
    sizes = (5, 1, 1, 6, 3)
    ends = np.cumsum(sizes) - 1
    for end, logits in zip(ends, decoded(target, ids, sizes), strict=True):
        scale = np.abs(expected).max()
        assert np.abs(logits - expected[:, end]).max() < 1e-4 * scale


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bidirectional", "series"])
def test_models_that_are_not_causal_or_have_no_tokens_are_refused(
    kind: str, tmp_path: Path
) -> None:
    source = tmp_path / "model.onnx"
    loopedge.export(make_model(kind), source)
    with pytest.raises(InputError) as caught:
        loopedge.to_generate(source)
    assert len(caught.value.message.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
