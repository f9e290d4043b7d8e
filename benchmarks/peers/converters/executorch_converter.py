"""ExecuTorch's XNNPACK backend, float32 and eight bits by PT2E."""

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
    XNNPACKQuantizer,
    get_symmetric_quantization_config,
)
from executorch.exir import to_edge_transform_and_lower
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

from benchmarks.peers.convert import Job, Made
from benchmarks.peers.whole import calibration, load_whole, loop_count

__all__ = ["convert"]


def convert(job: Job) -> Made:
    """Export, quantize where the variant says so, and lower."""
    looped = job.variant == "while-loop"
    module, ids = load_whole(job.subject, "while" if looped else "whole")
    inputs = (ids, torch.tensor(loop_count(job.subject))) if looped else (ids,)
    program = torch.export.export(module, inputs)
    quantized = None
    if job.variant == "int8":
        config = get_symmetric_quantization_config(is_per_channel=True)
        prepared = prepare_pt2e(program.module(), XNNPACKQuantizer().set_global(config))
        for sample in calibration(job.subject):
            prepared(sample)
        program = torch.export.export(convert_pt2e(prepared), inputs)
        quantized = _count(program)
    products = sum(node.target is torch.ops.aten.linear.default for node in program.graph.nodes)
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    path = job.target / "model.pte"
    path.write_bytes(lowered.to_executorch().buffer)
    return Made(path=path, files=(path,), quantized=quantized, products=products)


def _count(program: torch.export.ExportedProgram) -> int:
    """Count the linears whose activation and weight are dequantized values."""

    def is_dequantized(node: object) -> bool:
        return isinstance(node, torch.fx.Node) and "dequantize" in str(node.target)

    return sum(
        node.target is torch.ops.aten.linear.default and all(map(is_dequantized, node.args[:2]))
        for node in program.graph.nodes
    )
