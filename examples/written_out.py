"""A file as exporters write it: a block that is applied ten times, written out ten times by ``torch.onnx.export``.

Nothing here knows of loopedge. Run it with ``python -m examples.written_out FILE.onnx``; then

    loopedge reroll FILE.onnx

gives the graph its loop back.
"""

import sys

import torch
from torch import Tensor, nn


class Repeated(nn.Module):
    """Changes a state with one block, ten times."""

    def __init__(self, width: int = 64, hidden: int = 128) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.block = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return the last state, float32 (batch, sequence, width)."""
        for _ in range(10):
            x = x + self.block(self.norm(x))
        return x


def main() -> None:
    """Write the file."""
    torch.manual_seed(0)
    axes = {0: "batch", 1: "sequence"}
    torch.onnx.export(
        Repeated().eval(),
        (torch.randn(2, 7, 64),),
        sys.argv[1],
        dynamo=True,
        dynamic_shapes=(axes,),
        external_data=False,
        verbose=False,
    )


if __name__ == "__main__":
    main()
