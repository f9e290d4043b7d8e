"""ALBERT of the size of albert-base-v2, random weights: what three exporters make of one tied layer group.

The encoder (12 applications of one layer group, d=768, vocabulary 30000) is exported by

- ``torch.onnx.export`` (dynamo, optimized), as most people do,
- Optimum (``optimum-cli export onnx``, plain and with ``-O2``), in an environment of its own, since it needs
  an older transformers,
- loopedge, as a Loop and unrolled,

and each file is profiled in ONNX Runtime, one thread, 128 positions: bytes, memory, time, and the error against
PyTorch. Bytes block (exit code 4). ``--no-optimum`` leaves the second out. Takes five minutes, 3 GB of disk
and, for Optimum, the download of its packages.

    python benchmarks/export/albert.py [--output benchmarks/results/export] [--no-optimum]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import venv
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers import AlbertConfig, AlbertModel

import loopedge
from loopedge.artifact.artifact import Artifact

if TYPE_CHECKING:
    from loopedge.profiler.pipeline import Run

MIB = 2**20
LENGTH = 128
OPTIMUM = ("torch==2.13.0", "transformers==4.57.6", "optimum-onnx[onnxruntime]==0.1.0")


def make_albert() -> AlbertModel:
    """Build albert-base-v2's sizes with seeded weights."""
    torch.manual_seed(0)
    config = AlbertConfig(
        vocab_size=30000,
        embedding_size=128,
        hidden_size=768,
        num_attention_heads=12,
        intermediate_size=3072,
        num_hidden_layers=12,
        hidden_act="gelu_new",
    )
    model: AlbertModel = AlbertModel(config)
    model.train(mode=False)
    return model


def export_by_torch(model: AlbertModel, path: Path) -> None:
    """Export as most people do."""
    ids = torch.randint(30000, (2, 16))
    names = ("input_ids", "attention_mask", "token_type_ids")
    dims = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model,
            (),
            kwargs=dict(
                zip(names, (ids, torch.ones_like(ids), torch.zeros_like(ids)), strict=True)
            ),
            dynamo=True,
            opset_version=23,
            dynamic_shapes=dict.fromkeys(names, dims),
            verbose=False,
        )
    assert program is not None
    program.save(path, external_data=True)


def export_by_optimum(folder: Path, target: Path, environment: Path) -> list[Path]:
    """Install Optimum apart and run its command line, plain and optimized."""
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", *OPTIMUM], check=True)
    made = []
    for level in ((), ("--optimize", "O2")):
        out = target / f"optimum{''.join(level[1:])}"
        words = ["export", "onnx", "--model", folder, "--task", "feature-extraction", *level, out]
        subprocess.run(
            [environment / "bin" / "optimum-cli", *words], check=True, capture_output=True
        )
        made.append(out / "model.onnx")
    return made


def error_against(model: AlbertModel, path: Path) -> float:
    """Return max |y - ref| / max |ref| at kept positions of a padded batch."""
    generator = np.random.default_rng(1)
    ids = generator.integers(0, 30000, (2, 32))
    mask = np.ones_like(ids)
    mask[1, 20:] = 0
    feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    session = loopedge.Session(path, threads=1)
    given = session.run({name: feeds[name] for name in session.inputs})
    with torch.no_grad():
        expected = model(
            **{name: torch.from_numpy(value) for name, value in feeds.items()}
        ).last_hidden_state.numpy()
    kept = mask.astype(bool)
    found = next(value for value in given.values() if value.shape == expected.shape)
    return float(np.abs(found - expected)[kept].max() / np.abs(expected[kept]).max())


def main() -> int:
    """Export, profile, print a Markdown table and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder for albert.md and albert.json")
    parser.add_argument("--no-optimum", action="store_true", help="leave Optimum out")
    arguments = parser.parse_args()
    model = make_albert()
    parameters = sum(parameter.numel() * 4 for parameter in model.parameters())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model.save_pretrained(folder / "albert")
        paths = {"torch.onnx.export": folder / "torch.onnx"}
        export_by_torch(model, paths["torch.onnx.export"])
        if not arguments.no_optimum:
            made = export_by_optimum(folder / "albert", folder, folder / "environment")
            paths |= dict(zip(("Optimum", "Optimum -O2"), made, strict=True))
        for form in ("unrolled", "loop"):
            paths[f"loopedge, {form}"] = folder / f"{form}.onnx"
            loopedge.export(folder / "albert", paths[f"loopedge, {form}"], form=form)
        result = loopedge.profile(list(paths.values()), sequence=LENGTH, details=False)
        runs: dict[str, Run] = dict(zip(paths, result.runs, strict=True))
        errors = {who: error_against(model, path) for who, path in paths.items()}
        files = {
            who: sum(file.stat().st_size for file in Artifact.open(path).files)
            for who, path in paths.items()
        }
    loop = runs["loopedge, loop"]
    bounds = [
        (
            "bytes of the Loop file, against the parameters + 2 %",
            loop.file_bytes,
            1.02 * parameters,
        ),
        *(
            (f"anonymous bytes of the Loop form, against {who}", loop.anon_bytes, run.anon_bytes)
            for who, run in runs.items()
            if who != "loopedge, loop"
        ),
        *((f"error of {who}", errors[who], 1e-4) for who in paths if who.startswith("loopedge")),
    ]
    machine = result.machine
    lines = [
        f"{machine['cpu']}, one thread, {LENGTH} positions, ONNX Runtime {machine['onnxruntime']}, torch "
        f"{torch.__version__}; {parameters / MIB:.1f} MiB of parameters; memory is growth over the "
        "imported runtime, time against torch.onnx.export.",
        "",
        "| exporter | file MiB | load s | anonymous MiB | peak MiB | time | error |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {who} | {files[who] / MIB:.1f} | {run.load_seconds:.2f} | {run.anon_bytes / MIB:.1f} "
            f"| {run.rss_peak_bytes / MIB:.1f} | {run.time_ratio:.2f} | {errors[who]:.1e} |"
            for who, run in runs.items()
        ),
        "",
        "| figure | measured | bound | |",
        "|---|---|---|---|",
        *(
            f"| {what} | {measured:.4g} | <= {allowed:.4g} | {'pass' if measured <= allowed else 'FAIL'} |"
            for what, measured, allowed in bounds
        ),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "albert.md").write_text(text, encoding="utf-8")
        report = {
            "machine": machine,
            "torch": torch.__version__,
            "runs": {who: run.to_json() | {"path": run.name} for who, run in runs.items()},
            "errors": errors,
        }
        (arguments.output / "albert.json").write_text(
            json.dumps(report, indent=2) + "\n", encoding="utf-8"
        )
    return 4 if any(measured > allowed for _, measured, allowed in bounds) else 0


if __name__ == "__main__":
    sys.exit(main())
