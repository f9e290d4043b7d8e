"""The sound files that are mutated: small, one of each kind that a command reads."""

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq

from loopedge.artifact.artifact import Artifact, open_artifact
from loopedge.data.tokenizer import train_tokenizer
from loopedge.deployment.conversion import convert
from loopedge.graph.core.names import loop_name
from loopedge.graph.weights import linears
from loopedge.model.checkpoint import save
from loopedge.model.config import LoopedConfig
from loopedge.model.transformer import LoopedTransformer
from loopedge.quantizer.activations.ranges import weights_sha256
from tests.graph.generate_files import GenerateModel, write_generate_file

__all__ = ["make_seeds"]

FIXTURES = Path(__file__).parents[1] / "fixtures"

FOREIGN = """<ir_version: 9, opset_import: ["": 20, "local": 1]>
foreign (float[N, 4] x) => (float[N, 4] y)
<float[4, 4] w = {1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16}, int64 trips = {3}, bool go = {1}> {
  start = local.scaled (x, w)
  y = Loop (trips, go, start) <body = step (int64 i, bool keep, float[N, 4] s) => (bool on, float[N, 4] t) {
    on = Identity (keep)
    t = local.scaled (s, w)
  }>
}
<domain: "local", opset_import: ["": 20]>
scaled (a, b) => (c) {
  m = MatMul (a, b)
  c = Tanh (m)
}"""
"""A model of others: a Loop with a constant trip count, and a local function."""


CHAT_TEMPLATE = "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}{% endfor %}[answer]"


def make_seeds(folder: Path) -> None:
    """Write the files."""
    for name in ("tiny.onnx", "tiny_dynamic.onnx"):
        shutil.copy(FIXTURES / name, folder / name)
    model = ir.load(FIXTURES / "tiny.onnx")
    ir.save(
        model,
        folder / "external.onnx",
        external_data="external.onnx.data",
        size_threshold_bytes=256,
    )
    onnx.save(onnx.parser.parse_model(FOREIGN), folder / "foreign.onnx")
    convert(folder / "tiny.onnx", folder / "tiny.ort", threads=1)
    ids = np.arange(12).reshape(2, 6)
    np.savez(folder / "x.npz", input_ids=ids)
    np.savez_compressed(folder / "small.npz", input_ids=ids)
    np.save(folder / "x.npy", ids)
    (folder / "x.csv").write_text("a,b,c\n1,2,3\n4,5,6\n")
    rows = [
        f"2024-0{month}-{day:02},{day}.5,{'up' if day % 3 else 'down'}"
        for month in (1, 2)
        for day in range(1, 29)
    ]
    table = "\n".join(["time,y,label", *rows, ""])
    (folder / "table.csv").write_text(table)
    (folder / "table.csv.gz").write_bytes(gzip.compress(table.encode(), mtime=0))
    (folder / "utf16.csv").write_text(table.replace(",", "\t"), encoding="utf-16")
    local = "".join(
        f"{line};{number % 5}\n" for number, line in enumerate(table.replace(",", ";").split())
    )
    (folder / "local.csv").write_text("sep=;\n" + local.replace("label;0", "label;more"))
    (folder / "pairs.jsonl").write_text('{"input": "ab", "output": "ba"}\n' * 3)
    (folder / "tokenizer.json").write_text(
        train_tokenizer(["abab ba"], 257).companions()["tokenizer.json"]
    )
    companions = {
        "tokenizer.json": (folder / "tokenizer.json").read_text(),
        "tokenizer_config.json": json.dumps({"eos_token": "a", "chat_template": CHAT_TEMPLATE}),
    }
    write_generate_file(GenerateModel(vocab=257), folder / "lm.onnx", companions)
    (folder / "tokenizer_config.json").write_text(companions["tokenizer_config.json"])
    times = pa.array(range(0, 60 * 3600, 3600), pa.timestamp("s"))
    columns = {"time": times, "y": np.arange(60) % 7 / 2, "label": ["up", "down"] * 30}
    pq.write_table(pa.table(columns), folder / "table.parquet")
    feather.write_feather(pa.table(columns), folder / "table.feather")
    config = LoopedConfig(d_model=8, heads=2, loops=2, vocab_size=7, max_length=4)
    save(LoopedTransformer(config), folder / "model.pt", task={"name": "sorting"})
    (folder / "ranges.json").write_text(_ranges(folder / "tiny.onnx"))


def _ranges(model: Path) -> str:
    """Return ranges of the right names; what they hold is not calibrated."""
    graph = Artifact.open(model).float32_graph()
    rows = {
        loop_name(item.node): {"low": [-3.0] * 3, "high": [3.0] * 3}
        if "core" in loop_name(item.node)
        else {"low": [-3.0], "high": [3.0]}
        for item in linears(graph)
    }
    fields = {
        "weights_sha256": weights_sha256(open_artifact(model)),
        "loops": 3,
        "granularity": "per-iteration",
        "method": "minmax",
        "samples": 4,
        "data_sha256": "0" * 64,
        "lengths": [6],
        "tensors": rows,
    }
    return json.dumps(fields)
