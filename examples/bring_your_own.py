"""Your own looped model: from a PyTorch module to an ONNX file, step by step.

Run it with ``python -m examples.bring_your_own``, or export the same module from the command line:

    loopedge export examples.bring_your_own:make --weights weights.safetensors
"""

import tempfile
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import loopedge


class Mine(loopedge.LoopedModule):
    """Scores what stands at each position of a token sequence with one layer, applied 6 times."""

    # What the graph calls its inputs and outputs, in the order of `prelude` and `coda`.
    input_names = ("input_ids",)
    output_names = ("logits",)
    # The loop count that it was trained with.
    loops = 6

    def __init__(self, vocab_size: int = 50, d_model: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.vocab_size, self.heads = vocab_size, heads
        self.embedding = nn.Embedding(vocab_size, d_model)
        self.step = nn.Embedding(self.loops, d_model)
        self.norm = nn.LayerNorm(d_model)
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)
        self.mlp = nn.Sequential(
            nn.LayerNorm(d_model),
            nn.Linear(d_model, 4 * d_model),
            nn.GELU(),
            nn.Linear(4 * d_model, d_model),
        )

    # 1. Before the loop: inputs -> (state, context). The state is what the loop carries, the context
    #    what every iteration reads and none changes. Either may be a tensor or a tuple of tensors.
    def prelude(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        embedded = self.embedding(input_ids)
        return torch.zeros_like(embedded), embedded

    # 2. One iteration. It is captured once, so nothing here may ask which iteration it is: what
    #    differs comes in `row`. The state keeps its shape and type.
    def core(self, state: Tensor, context: Tensor, row: dict[str, Tensor]) -> Tensor:
        x = state + context + row["step"]
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, nh, S, hs)
            for part in self.qkv(self.norm(x)).chunk(3, dim=-1)
        )
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.mlp(x)

    # 3. Optional: what differs between iterations, (loops, ...) each. It runs once, at export: the
    #    timestep rows become constants, and what computes them stays out of the graph.
    def timestep_table(self, loops: int) -> dict[str, Tensor]:
        index = torch.arange(loops).clamp(
            max=self.loops - 1
        )  # past the trained count: the last row
        return {"step": self.step(index)}

    # 4. After the loop: the last state -> outputs.
    def coda(self, state: Tensor, context: Tensor) -> Tensor:
        return F.linear(state, self.embedding.weight)  # the head shares the embedding's table

    # 5. What export traces: axis 0 is the batch, axis 1 the sequence. Both stay free in the graph.
    def example_inputs(self) -> tuple[Tensor, ...]:
        return (
            torch.randint(0, self.vocab_size, (2, 7), generator=torch.Generator().manual_seed(0)),
        )


def make() -> Mine:
    """Return the module; no arguments, so that the command line can call it too."""
    torch.manual_seed(0)
    return Mine().eval()  # here you would load your weights: model.load_state_dict(...)


def main() -> None:
    """Export both forms into a temporary folder and print what was written."""
    model = make()
    forms: tuple[Literal["loop", "unrolled"], ...] = ("loop", "unrolled")
    with tempfile.TemporaryDirectory() as folder:
        for form in forms:
            path = Path(folder) / f"{form}.onnx"
            # The file is run in ONNX Runtime and compared with PyTorch before it gets its name.
            result = loopedge.export(model, path, form=form, example=model.example_inputs())
            found = loopedge.inspect(path)
            print(f"{form}: {found.nodes} nodes, relative error {result.max_rel_error:.1e}")
            print(f"  weights {found.weight_bytes} bytes; one copy per loop: {found.untied_bytes}")
            print(f"  read {found.tied_weights[0].uses} times: {found.tied_weights[0].name}")
            print(f"  tables {[(table.name, table.shape) for table in found.tables]}")
            # This part needs no PyTorch: it is what runs on the device.
            inputs = {"input_ids": model.example_inputs()[0].numpy()}
            print(f"  logits {loopedge.Session(path).run(inputs)['logits'].shape}")


if __name__ == "__main__":
    main()
