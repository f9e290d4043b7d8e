"""OpenVINO from PyTorch, and NNCF's post-training quantization."""

import nncf
import numpy as np
import openvino as ov

from benchmarks.peers.convert import Job, Made
from benchmarks.peers.products import LAST
from benchmarks.peers.whole import calibration, load_whole, loop_count

__all__ = ["convert"]


def convert(job: Job) -> Made:
    """Convert, and quantize where the variant says so: ``pytorch|onnx|while-loop[-int8][-last]``.

    From ONNX it takes what `torch.onnx.export` made, unrolled or with the Loop of torch.while_loop.
    """
    variant = job.variant.removesuffix(LAST)
    source = variant.removesuffix("-int8")
    samples = calibration(job.subject)
    if source == "pytorch":
        module, ids = load_whole(job.subject, "whole" if variant == job.variant else "last")
        model = ov.convert_model(module, example_input=ids, input=list(ids.shape))
    else:
        exported = {"onnx": "unrolled", "while-loop": "while-loop"}[source]
        folder = job.target.with_name(f"onnxruntime.{exported}.{job.subject.name}")
        model = ov.convert_model(folder / "model.onnx")
    if variant.endswith("-int8"):
        others = {}
        if source == "while-loop":
            others = {"loops": np.array(loop_count(job.subject))}
        name = model.input(0).get_any_name()
        data = nncf.Dataset([{name: sample.numpy(), **others} for sample in samples])
        model = nncf.quantize(
            model, data, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(samples)
        )
    path = job.target / "model.xml"
    ov.save_model(model, path, compress_to_fp16=False)
    quantized, products = _count(model)
    files = (path, path.with_suffix(".bin"))
    return Made(path=path, files=files, quantized=quantized, products=products)


def _count(model: ov.Model) -> tuple[int, int]:
    """Count the products with a stored weight, and those whose activation is quantized."""
    quantized = products = 0
    for op in model.get_ordered_ops():
        if op.get_type_name() in ("Loop", "TensorIterator"):
            inner = _count(op.get_function())
            quantized, products = quantized + inner[0], products + inner[1]
        if op.get_type_name() != "MatMul":
            continue
        sources = [op.input_value(i).get_node() for i in range(2)]
        if any(map(_is_stored, sources)):
            products += 1
            quantized += any(source.get_type_name() == "FakeQuantize" for source in sources)
    return quantized, products


def _is_stored(node: ov.Node) -> bool:
    """Say whether a value comes from the file, through decompression."""
    if node.get_type_name() == "Constant":
        return True
    passes = ("Convert", "Multiply", "Subtract", "FakeQuantize", "Transpose", "Reshape")
    if node.get_type_name() not in passes:
        return False
    return _is_stored(node.input_value(0).get_node())
