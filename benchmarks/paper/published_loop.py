"""The plain loop as the paper's authors published it: attention's values and the MLP read a state without a norm.

github.com/kevin671/tmlt, ``LoopedGPT`` with separate q, k and v: one norm before queries and keys, none before values
and MLP. `LoopedTransformer` without a timestep encoding has both norms that the paper's TMLT has.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812  PyTorch's own name for it
from torch import Tensor, nn

from loopedge.model.config import LoopedConfig
from loopedge.model.transformer import Attention, Layer, LoopedTransformer, rms_norm, rotate
from loopedge.tasks.task import Task
from loopedge.trainer.config import TrainConfig
from loopedge.trainer.evaluation import evaluate
from loopedge.trainer.logs import RunLog, metrics_path
from loopedge.trainer.loop import TrainingLoop
from loopedge.trainer.state import run_settings
from loopedge.trainer.steps.objective import Objective
from loopedge.trainer.world import open_world

__all__ = ["PublishedLoop", "train_published"]


class PublishedAttention(Attention):
    """Queries and keys read a normalised state, values the state itself."""

    def forward(self, x: Tensor, mask: Tensor | None, rotary: tuple[Tensor, ...]) -> Tensor:
        """Attend; x is float32 (batch, sequence, d_model), as is the result."""
        normed = rms_norm(x, None)
        q, k, v = (
            projection(read).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, nh, S, hs)
            for projection, read in ((self.q, normed), (self.k, normed), (self.v, x))
        )
        if rotary:
            q, k = rotate(q, *rotary), rotate(k, *rotary)
        attended = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=self.causal and mask is None
        )
        return cast("Tensor", self.o(attended.transpose(1, 2).flatten(2)))


class PublishedLayer(Layer):
    """One norm, before queries and keys alone."""

    def __init__(self, config: LoopedConfig) -> None:
        super().__init__(config)
        self.attention = PublishedAttention(config)

    def forward(
        self, x: Tensor, mask: Tensor | None, rotary: tuple[Tensor, ...], row: dict[str, Tensor]
    ) -> Tensor:
        """Apply the layer; there are no gates and scales in ``row``."""
        x = x + self.attention(x, mask, rotary)
        return x + cast("Tensor", self.mlp(x))


class PublishedLoop(LoopedTransformer):
    """A `LoopedTransformer` whose layers are those of the published plain loop; its weights have the same names.

    Args:
        config: Without a timestep encoding.
    """

    def __init__(self, config: LoopedConfig) -> None:
        super().__init__(config)
        layers = [PublishedLayer(config) for _ in range(config.layers)]
        for layer, ready in zip(layers, self.core_layers, strict=True):
            layer.load_state_dict(ready.state_dict())  # so that both start from the same weights
        self.core_layers = nn.ModuleList(layers)


def train_published(
    task: Task, model_config: LoopedConfig, config: TrainConfig, target: Any
) -> dict[str, Any]:
    """Train it as `loopedge.train` trains the other arms.

    Returns:
        ``validation`` and ``test``, ``best_step``, ``steps``, ``train_loss``, ``stability`` and ``parameters``.

    Raises:
        DivergedError: Loss or gradient is not finite.
    """
    with open_world("cpu", "replicated") as world, torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        loop = TrainingLoop(
            task,
            PublishedLoop(model_config),
            config,
            Objective(kind=task.kind),
            target,
            log=RunLog(metrics_path(target)),
            world=world,
            settings=run_settings(task, model_config, config, None),
        )
        loop.run()
        loop.log.close()
        loop.use_best()
        scores = {
            "validation": evaluate(loop.model, task, "validation", config.samples),
            "test": evaluate(loop.model, task, "test", config.samples),
        }
    return scores | {
        "best_step": loop.best_step,
        "steps": loop.step,
        "train_loss": loop.loss,
        "stability": None if loop.stability is None else loop.stability.to_json(),
        "parameters": sum(parameter.numel() for parameter in loop.model.parameters()),
    }
