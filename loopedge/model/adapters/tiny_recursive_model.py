"""Tiny recursive models (package tiny-recursive-model): outputs and latents refined in turns."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from loopedge.errors import InputError
from loopedge.model.contract import LoopedModule, Tensors, as_tuple
from loopedge.model.folder import (
    CONFIG,
    CONTRACT_HINT,
    MOST,
    check_counts,
    check_parameters,
    import_package,
    load_tensors,
    weights_file,
)
from loopedge.model.inner import inner_loop

__all__ = ["HaltingTinyRecursive", "TinyRecursive", "adapt", "load"]

EXAMPLE_LENGTH = 8
NETWORKS = {
    "MLPMixer1D": "tiny_recursive_model",
    "Encoder": "x_transformers",
    "Decoder": "x_transformers",
}
"""Kinds of networks that a ``config.json`` may name, and the packages that define them."""
OPTIONS = ("max_deep_refinement_steps", "halt_prob_thres", "length")
"""Keys of a ``config.json`` that go to `adapt`; the others go to the package's constructor."""


class TinyRecursive(LoopedModule):
    """`TinyRecursiveModel.forward` from its initial outputs and latents, under the contract.

    The state is (outputs, latents), each float32 (batch, positions, dim), registers first; the
    context is the embedded inputs. One iteration refines the latents ``num_latent_refinements``
    times and the outputs once. Input is ``input_ids`` int64 (batch, sequence); outputs are
    ``logits`` (batch, sequence, tokens) and ``halt_probability`` (batch,).

    Args:
        model: The package's module; it is put into evaluation mode.
        length: The sequence length, where the network takes one only and hides it: it is found in
            an MLPMixer1D.
    """

    input_embed: Any
    network: Any
    to_pred: Any
    to_halt_pred: Any
    input_names = ("input_ids",)
    output_names = ("logits", "halt_probability")

    def __init__(self, model: nn.Module, *, length: int | None = None) -> None:
        super().__init__()
        source: Any = model.eval()
        # Modules and parameters under the model's own names, so that the initializers are called
        # as in its state dict.
        for name, child in source.named_children():
            self.add_module(name, child)
        for name, parameter in source.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        self.loops: int = source.num_refinement_blocks
        self.latent_refinements: int = source.num_latent_refinements
        self.registers: int = source.register_tokens.shape[0]
        mixed = _mixed_positions(source.network)
        if length is None and mixed is not None:
            length = mixed - self.registers
        if length is not None:
            self.max_length = length

    def prelude(self, *inputs: Tensor) -> tuple[Tensors, Tensors]:
        """Return the initial outputs and latents, and the embedded tokens after the registers."""
        embedded: Tensor = self.input_embed(inputs[0])
        if self.registers:
            registers = self.get_parameter("register_tokens").expand(embedded.shape[0], -1, -1)
            embedded = torch.cat([registers, embedded], dim=1)  # (B, registers + S, D)
        outputs = self.get_parameter("output_init_embed").expand_as(embedded).contiguous()
        latents = self.get_parameter("latent_init_embed").expand_as(embedded).contiguous()
        return (outputs, latents), embedded

    def core(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        """Refine the latents several times, then the outputs once."""
        assert isinstance(context, Tensor)
        outputs, latents = state
        (latents,) = as_tuple(
            inner_loop(self.refine_latents, self.latent_refinements, latents, (outputs, context))
        )
        return self.network(outputs + latents), latents

    def refine_latents(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        """Refine the latents once; the context is the outputs and the embedded inputs."""
        outputs, embedded = context
        assert isinstance(state, Tensor)
        latents: Tensor = self.network(outputs + state + embedded)
        return latents

    def coda(self, state: Tensors, context: Tensors) -> Tensors:
        """Read the outputs: a token per position, and whether the model is done."""
        outputs = state[0]
        return self.to_pred(outputs[:, self.registers :]), self.halt_probability(outputs)

    def halt_probability(self, outputs: Tensor) -> Tensor:
        """Return float32 (batch,); registers count, as in the package."""
        # to_halt_pred is mean, linear, squeeze; einops' layers read sizes as Python numbers.
        probability: Tensor = self.to_halt_pred[1](outputs.mean(dim=1)).squeeze(-1).sigmoid()
        return probability

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Return two rows of tokens."""
        generator = torch.Generator().manual_seed(0)
        shape = (2, getattr(self, "max_length", EXAMPLE_LENGTH))
        tokens = self.input_embed.num_embeddings
        return (torch.randint(tokens, shape, generator=generator),)


class HaltingTinyRecursive(TinyRecursive):
    """`TinyRecursiveModel.predict` under the contract: deep refinements until each row is done.

    One iteration is one deep refinement, all its refinement blocks: the package looks at
    ``halt_probability`` after each of those, not after each block. The argmax of ``logits`` is what
    ``predict`` returns.

    Args:
        model: The package's module; it is put into evaluation mode.
        steps: Deep refinements at most; ``max_deep_refinement_steps`` of ``predict``.
        threshold: Probability from which on a row is done; ``halt_prob_thres`` of ``predict``.
        length: As `TinyRecursive`.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        steps: int = 12,
        threshold: float = 0.5,
        length: int | None = None,
    ) -> None:
        super().__init__(model, length=length)
        if steps < 1:
            raise InputError(f"max_deep_refinement_steps is {steps}, at least 1 is needed")
        self.blocks = self.loops
        self.loops = steps
        self.threshold = threshold

    def core(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        """Run all refinement blocks once."""
        return inner_loop(self.block, self.blocks, state, context)

    def block(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        """Run one refinement block: what an iteration of `TinyRecursive` is."""
        return super().core(state, context, row)

    def halt(self, state: Tensors, previous: Tensors) -> Tensor:
        """Return which rows are done, bool (batch,)."""
        return self.halt_probability(state[0]) >= self.threshold


def adapt(
    model: nn.Module,
    *,
    max_deep_refinement_steps: int | None = None,
    halt_prob_thres: float = 0.5,
    length: int | None = None,
) -> TinyRecursive:
    """Bring a tiny recursive model under the contract.

    Args:
        model: A `TinyRecursiveModel`.
        max_deep_refinement_steps: Adapt ``predict`` with this bound; default: adapt ``forward``.
        halt_prob_thres: Where ``predict`` is adapted: the probability from which on a row is done.
        length: The sequence length, where the network takes one only and is not an MLPMixer1D.

    Raises:
        InputError: The object is none, or the bound is below 1.
    """
    if type(model).__name__ != "TinyRecursiveModel":
        raise InputError(
            f"{type(model).__name__} has no adapter, TinyRecursiveModel has",
            hint=CONTRACT_HINT,
        )
    if max_deep_refinement_steps is None:
        return TinyRecursive(model, length=length)
    return HaltingTinyRecursive(
        model, steps=max_deep_refinement_steps, threshold=halt_prob_thres, length=length
    )


def load(folder: Path, config: dict[str, Any]) -> TinyRecursive:
    """Build one from ``config.json`` and ``model.safetensors``.

    The package has no format of its own. Here the configuration holds the constructor's arguments,
    `OPTIONS` of `adapt`, and ``network``: its kind, one of `NETWORKS`, and its arguments, ``dim``
    being the model's.

    Raises:
        InputError: A key is missing or unknown, or the weights do not fit.
        MissingExtraError: The package is not installed.
    """
    source = folder / CONFIG
    arguments = {key: value for key, value in config.items() if key not in {"model_type", *OPTIONS}}
    network = arguments.pop("network", None)
    kind = network.get("kind") if isinstance(network, dict) else None
    if not isinstance(network, dict) or kind not in NETWORKS:
        raise InputError(
            f"{source}: network names the kind {kind}, known are {', '.join(NETWORKS)}",
            hint='"network": {"kind": "MLPMixer1D", "depth": 2, "seq_len": 81}',
        )
    weights = weights_file(folder, pickled=False)
    package = import_package("tiny_recursive_model", "a model of type tiny-recursive-model")
    home = import_package(NETWORKS[kind], f"a network of kind {kind}")
    sizes = {key: value for key, value in network.items() if key != "kind"}
    check_counts(network, MOST, source)

    def build() -> nn.Module:
        built = getattr(home, kind)(**{"dim": arguments.get("dim"), **sizes})
        model: nn.Module = package.TinyRecursiveModel(network=built, **arguments)
        return model

    try:
        check_parameters(build, weights, source)
        model = build()
    except InputError:
        raise
    except Exception as error:  # whatever the constructors give
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"{source}: the model cannot be built: {reason[0]}") from error
    load_tensors(model, weights)
    return adapt(model, **{key: config[key] for key in OPTIONS if key in config})


def _mixed_positions(network: nn.Module) -> int | None:
    """Return how many positions a network mixes by a weight of that size, as MLPMixer1D does."""
    for module in network.modules():
        if isinstance(module, nn.Conv1d) and module.kernel_size == (1,):
            return module.in_channels
    return None
