"""ggml-compiler: prelude, core and coda as stages, the loop in its driver, the loop count a symbol."""

import ggml_compiler
import torch
from ggml_compiler.quant import DTypePolicy
from torch import Tensor

from benchmarks.peers.convert import Job, Made
from benchmarks.peers.whole import calibration
from loopedge.model.checkpoint import load
from loopedge.model.contract import Tensors

__all__ = ["convert"]


def convert(job: Job) -> Made:
    """Compile, ``float32`` or with the weights as ``q8_0``.

    Level O2 does not help here: its flash attention refuses its own mask when it is loaded, and what is left
    of it changes nothing.
    """
    model = load(job.subject / "model.pt")
    ids = calibration(job.subject)[0].to(torch.int32)
    with torch.no_grad():
        state, context = model.prelude(ids)
        rows = model.timestep_table(model.loops)
    assert context == ()
    start = torch.zeros(1, dtype=torch.int32)

    def core(x: Tensor, table: dict[str, Tensor], t: Tensor) -> Tensors:
        row = {name: values.index_select(0, t)[0] for name, values in table.items()}
        return model.core(x, (), row)

    program = ggml_compiler.Program(
        root=model,
        stages={
            "prelude": ggml_compiler.Stage(lambda ids: model.prelude(ids)[0], (ids,)),
            # It reads no input: the compiler computes it, and the generator stays out of the file.
            "table": ggml_compiler.Stage(lambda: model.timestep_table(model.loops), ()),
            "core": ggml_compiler.Stage(core, (state, rows, start)),
            "coda": ggml_compiler.Stage(lambda x: model.coda(x, ()), (state,)),
        },
        driver=ggml_compiler.Driver(
            inputs=["input_ids", "start"],
            body=[
                ggml_compiler.call("prelude", ["input_ids"], ["first"]),
                ggml_compiler.call("table", [], ["table"]),
                ggml_compiler.loop(
                    "loops",
                    [ggml_compiler.call("core", ["x", "table", "t"], ["x"])],
                    carry={"x": "first"},
                    counters={"t": "start"},
                ),
                ggml_compiler.call("coda", ["x"], ["logits"]),
            ],
            outputs=["logits"],
            examples={"start": start},
        ),
        symbols={"loops": (1, model.loops, model.loops)},
    )
    policy = DTypePolicy(rules=[("*.weight", "q8_0")]) if job.variant == "q8_0" else None
    artifact = ggml_compiler.compile(program, out_dir=job.target, dtype_policy=policy)
    tensors = artifact.report.data["weights"]["tensors"]
    large = [
        tensor
        for name, tensor in tensors.items()
        if name.endswith(".weight") and name != "position.weight" and len(tensor["shape"]) == 2
    ]
    eight = sum(tensor["dtype"] == "q8_0" for tensor in large)
    return Made(
        path=artifact.gguf,
        files=(artifact.gguf,),
        quantized=eight if policy else None,
        products=len(large) if policy else None,
    )
