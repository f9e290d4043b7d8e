"""Compute in float16: for devices whose float16 products are faster than their float32 ones."""

import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.graph.integer_linears import count_integer_linears
from loopedge.graph.metadata import PREFIX
from loopedge.graph.passes.loaded_data import read_initializer_data

__all__ = ["compute_in_float16"]


def compute_in_float16(model: ir.Model) -> ir.Model:
    """Return the graph computed in float16, by ONNX Runtime's own converter.

    Inputs and outputs keep their types. Norms still compute in float32 inside (``stash_type``). What
    float16 cannot hold is clipped to its largest number, so the result has to be compared with the
    float32 one before it is relied upon.

    Requires: a float model; the opset is one that the converter knows.

    Ensures: inputs and outputs have their types; nothing is noted of storage or of optimizers any more.

    Args:
        model: Loop or unrolled form, float32. Not modified.

    Raises:
        InputError: The model is quantized: its scales and products have types of their own.
    """
    if count_integer_linears(model).quantized:
        raise InputError("a quantized model has no float16 twin", hint="name the float model")
    from onnxruntime.transformers.float16 import convert_float_to_float16

    # The converter takes weights outside the file for converted ones and leaves their bytes alone.
    whole = model.clone()
    read_initializer_data(whole)
    converted = convert_float_to_float16(ir.to_proto(whole), keep_io_types=True)
    found: ir.Model = ir.from_proto(converted)
    found.graph.sort()  # the converter puts its Casts behind what reads them
    for outdated in ("storage", "optimized"):
        found.metadata_props.pop(f"{PREFIX}{outdated}", None)
    return found
