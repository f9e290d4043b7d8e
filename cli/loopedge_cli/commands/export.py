"""``loopedge export``."""

import contextlib
import sys

from loopedge_cli.options import export as options
from loopedge_cli.output import Debug, Force, Json, Quiet, sink
from loopedge_cli.views import export_view


def export(
    model: options.Model,
    path: options.TargetFile = None,
    target: options.Target = None,
    form: options.Form = None,
    loops: options.Loops = None,
    dynamic_loops: options.DynamicLoops = False,
    exit: options.Exit = None,
    inner: options.Inner = "unrolled",
    opset: options.Opset = 23,
    format: options.Format = "onnx",
    storage: options.Storage = "float32",
    padding: options.Padding = None,
    weights: options.Weights = None,
    dynamic_shapes: options.DynamicShapes = None,
    memory: options.Memory = None,
    logits: options.Logits = "all",
    last_rows: options.LastRows = None,
    activations: options.Activations = None,
    task: options.Task = None,
    weight_bits: options.WeightBits = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write a trained model as ONNX, verified against PyTorch."""
    with sink(json=json, quiet=quiet, debug=debug) as output:
        import loopedge
        from loopedge.exporter.capture.input_axes import read_dynamic_shapes
        from loopedge.exporter.module.opening import default_target
        from loopedge.exporter.options import ExportOptions

        chosen = ExportOptions(
            target=target,
            form=form,
            loops=loops,
            dynamic_loops=dynamic_loops,
            exit=exit,
            inner=inner,
            opset=opset,
            format=format,
            storage=storage,
            padding=padding,
            weights=weights,
            dynamic_shapes=read_dynamic_shapes(dynamic_shapes or ()),
            memory=memory,
            logits=logits,
            last_rows=last_rows,
            activations=activations,
            task=task,
            weight_bits=options.read_weight_bits(weight_bits),
            force=force,
        )
        # What a user's module prints is not part of the result.
        with output.status(f"exporting {model}"), contextlib.redirect_stdout(sys.stderr):
            written = path or default_target(model, format, task)
            result = loopedge.export(model, written, options=chosen)
        for note in result.notes:
            output.note(f"note: {note}")
        output.result(result, export_view, written=result.path)
