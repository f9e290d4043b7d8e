"""The first station: a module captured, with all that the graph is assembled from."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import onnx_ir as ir
from torch import nn

from loopedge.exporter.assembly import AssemblyPlan
from loopedge.exporter.capture.axes import Axes, find_axes
from loopedge.exporter.capture.capture import Parts, capture_parts
from loopedge.exporter.capture.halt import Halt, capture_halt_part
from loopedge.exporter.exits import choose_exit
from loopedge.exporter.float16_weights import RoundedModule, round_weights
from loopedge.exporter.module.exported_module import ExportedModule
from loopedge.exporter.module.timestep_tables import compute_tables
from loopedge.exporter.options import ExportOptions
from loopedge.exporter.targets import Settings

__all__ = ["Captured", "capture_module"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """A captured module.

    ``module`` holds the weights as the file stores them, ``original`` as they were trained; ``kept``
    are those that float16 cannot hold, with the reason. ``parts`` are moved when they are assembled.
    ``stored`` are weights by name that take the place of the captured ones, which are stand-ins.
    """

    module: ExportedModule
    original: nn.Module
    kept: list[dict[str, str]]
    axes: Axes
    parts: Parts
    halt: Halt | None
    plan: AssemblyPlan
    stored: Mapping[str, ir.TensorProtocol] = field(default_factory=dict)

    @property
    def exit(self) -> str | None:
        """When a batch row is done before the last iteration, as ``--exit`` says it; None: never."""
        return None if self.halt is None else str(self.halt.rule)

    @property
    def length(self) -> int | None:
        """Positions that an inference is expected to have, where that is known."""
        return self.axes.fixed_sequence or self.module.trained_length


def capture_module(module: ExportedModule, options: ExportOptions, settings: Settings) -> Captured:
    """Capture the parts of a module, its timestep tables and what ends its loop early.

    Raises:
        InputError: The module does not keep its contract, or torch.export cannot follow its code.
    """
    rule = choose_exit(options.exit, module.module, settings.form)
    loops = module.looped.loops if options.loops is None else int(options.loops)
    axes = find_axes(
        module.looped,
        module.example,
        module.input_names,
        asked=options.dynamic_shapes or module.dynamic_shapes,
        tied=module.tied,
        longest=module.max_length,
    )
    tables = compute_tables(module, loops)
    original = module.module
    rounded = RoundedModule(module=original, kept=[])
    if options.storage == "float16":
        rounded = round_weights(original)
    module = replace(module, module=rounded.module)
    parts = capture_parts(
        module.module,
        module.example,
        axes,
        opset=options.opset,
        inner_loops=options.inner == "loop",
    )
    halt = None if rule is None else Halt(module.module, rule, axes)
    plan = AssemblyPlan(
        input_names=module.input_names,
        output_names=module.output_names or _default_outputs(len(parts.coda.graph.outputs)),
        tables=tables,
        loops=loops,
        dynamic_loops=options.dynamic_loops,
        opset=options.opset,
        halt=None if halt is None else capture_halt_part(halt, module, axes, options.opset),
    )
    return Captured(
        module=module,
        original=original,
        kept=rounded.kept,
        axes=axes,
        parts=parts,
        halt=halt,
        plan=plan,
    )


def _default_outputs(count: int) -> tuple[str, ...]:
    return ("outputs", *(f"output_{i}" for i in range(1, count)))
