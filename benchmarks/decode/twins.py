"""How much faster does a looped model decode than one of the same depth whose layers are all different?

Models of one layer applied 12 times, in four bits: the generate file, and its iterations written out with weights of their
own (bytes of the same ones, shifted). One position of the looped model reads the block from the processor's cache again and
again. Takes two minutes, the first time five.

    python -m benchmarks.decode.twins [--output benchmarks/results/decode]
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import onnx

import loopedge
from benchmarks.decode.files import folder_of
from benchmarks.decode.measurement import Effort, Figures, measure
from benchmarks.decode.model import make_model
from benchmarks.decode.products import Product
from loopedge.graph.metadata import PREFIX
from loopedge.profiler.machine import describe_machine

MIB = 2**20
TWINS = ("block-512", "block-1024")
EFFORT = Effort(rounds=7, tokens=10, prefills=1, contexts=(64,))
OF_THE_FILE = (f"{PREFIX}weights", f"{PREFIX}checksum")
PRODUCTS = (
    Product(label="tied", width="int4", engine="generator", file="int4.scan.onnx"),
    Product(label="untied", width="int4", engine="generator", file="untied.onnx"),
)


def make_twins(shape: str) -> Path:
    """Write what is missing of both and return the folder."""
    folder = folder_of(shape)
    folder.mkdir(parents=True, exist_ok=True)
    source, small = folder / "float32.onnx", folder / "int4.onnx"
    if not source.exists():
        loopedge.export(make_model(shape), source)
    if not small.exists():
        loopedge.quantize(source, small, scheme="weight-int4", min_sqnr_db=0.0)
    for form in ("scan", "unrolled"):
        target = folder / f"int4.{form}.onnx"
        if not target.exists():
            loopedge.to_generate(small, target, form=form)
    untied = folder / "untied.onnx"
    if not untied.exists():
        onnx.save_model(_untied(folder / "int4.unrolled.onnx"), untied)
    return folder


def _untied(path: Path) -> onnx.ModelProto:
    """Return a file whose iterations are written out, each product with weights of its own."""
    model = onnx.load(path)
    stored = {value.name: value for value in model.graph.initializer}
    uses: dict[str, int] = {}
    for node in model.graph.node:
        if node.op_type != "MatMulNBits":
            continue
        for place in (1, 2):
            name = node.input[place]
            number = uses[name] = uses.get(name, -1) + 1
            if number:
                array = np.roll(onnx.numpy_helper.to_array(stored[name]), number, axis=0)
                node.input[place] = f"{name}.{number}"
                own = onnx.numpy_helper.from_array(array, node.input[place])
                model.graph.initializer.append(own)
    for entry in [entry for entry in model.metadata_props if entry.key in OF_THE_FILE]:
        model.metadata_props.remove(entry)  # they are of the source
    return model


def table(found: dict[tuple[str, int], list[Figures]]) -> list[str]:
    """Return the lines of the Markdown table."""
    lines = [
        "| block | threads | tokens/s tied | untied | time | peak MiB tied | untied |",
        "|---|---|---|---|---|---|---|",
    ]
    for (shape, threads), figures in found.items():
        tied, untied = figures
        for one in figures:
            if one.failed:
                lines.append(f"| {shape} | {threads} | {one.label}: {one.failed[:100]} |")
                break
        else:
            own, other = (one.tokens_per_second(EFFORT.contexts[0]) for one in figures)
            peaks = [one.memory["peak_bytes"] / MIB for one in (tied, untied)]
            ratio = other / own
            lines.append(
                f"| {shape} | {threads} | {own:.1f} | {other:.1f} | {ratio:.2f} | {peaks[0]:.0f} | {peaks[1]:.0f} |"
            )
    return lines


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--output", type=Path, help="folder for twins.md and twins.json")
    arguments = parser.parse_args()
    found = {}
    for shape in TWINS:
        folder = make_twins(shape)
        for threads in (1, 2):
            found[shape, threads] = measure(PRODUCTS, shape, folder, threads, EFFORT)
    machine = describe_machine()
    head = f"{machine['cpu']}, ONNX Runtime {machine['onnxruntime']}, four bits, one layer x 12 loops, context 64."
    lines = [head, "", *table(found)]
    print("\n".join(lines))
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "twins.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
        figures = [one.to_json() for each in found.values() for one in each]
        text = json.dumps({"machine": machine, "figures": figures}, indent=1) + "\n"
        (arguments.output / "twins.json").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
