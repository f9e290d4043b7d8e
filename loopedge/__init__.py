"""Keep the weights of a looped transformer stored once, from training to the device.

Make a model
    LoopedModule        base class for a module of your own; any nn.Module with its methods will do
    LoopedTransformer   the reference model;  LoopedConfig  its sizes and choices
    inner_loop, attention, load, save   a loop inside the core; windows, soft caps; a model.pt read and written

Train it                (extra train)
    train               train on a Task, one of loopedge.tasks or your own, write model.pt -> TrainResult
    pilot, diagnose     loop counts compared, data described (PilotOptions, DiagnoseOptions) -> PilotResult, Diagnosis

Bring it to the device
    reroll, unroll      loops of any file: given back, written out       -> RerollResult, UnrollResult
    export              write ONNX, checked against PyTorch (ExportOptions; extra train) -> ExportResult
    quantize            round to int8, checked against the float model (QuantizeOptions) -> QuantizeResult
    to_generate, convert   a language model decodes with a cache; ORT format -> GenerateResult, ConvertResult
    prepare, package    packed on the device; a folder for an app (PackageOptions) -> PrepareResult, PackageResult

Look at it and run it
    inspect, profile    what a file holds; its memory and time (ProfileOptions) -> Inspection, ProfileResult
    compare, evaluate   two profiles; perplexity on a text               -> Comparison, EvaluateResult
    Session, Generator, forecast   run a model, write text, forecast a table (-> Forecast): numpy and onnxruntime

Each name is loaded on first use; help(loopedge.export) explains it. Pages: docs/.
"""

import importlib as _importlib
import typing as _typing

if _typing.TYPE_CHECKING:
    from loopedge.artifact.inspection import Inspection, inspect
    from loopedge.deployment.conversion import ConvertResult, convert
    from loopedge.deployment.generating import GenerateResult, to_generate
    from loopedge.deployment.preparation import PrepareResult, prepare
    from loopedge.deployment.rerolling import RerollResult, reroll
    from loopedge.deployment.unrolling import UnrollResult, unroll
    from loopedge.diagnosis.options import DiagnoseOptions
    from loopedge.diagnosis.pipeline import Diagnosis, diagnose
    from loopedge.exporter.options import ExportOptions
    from loopedge.exporter.pipeline import ExportResult, export
    from loopedge.inference.perplexity import EvaluateResult, evaluate
    from loopedge.model.attention import attention
    from loopedge.model.checkpoint import load, save
    from loopedge.model.config import LoopedConfig
    from loopedge.model.contract import LoopedModule
    from loopedge.model.inner import inner_loop
    from loopedge.model.transformer import LoopedTransformer
    from loopedge.packager.options import PackageOptions
    from loopedge.packager.pipeline import package
    from loopedge.packager.result import PackageResult
    from loopedge.profiler.comparison.pipeline import Comparison, compare
    from loopedge.profiler.options import ProfileOptions
    from loopedge.profiler.pipeline import ProfileResult, profile
    from loopedge.quantizer.options import QuantizeOptions
    from loopedge.quantizer.pipeline import QuantizeResult, quantize
    from loopedge.runtime.generator import Generator
    from loopedge.runtime.session import Session
    from loopedge.runtime.tables.forecast import Forecast
    from loopedge.runtime.tables.forecasting import forecast
    from loopedge.study.options import PilotOptions
    from loopedge.study.pipeline import PilotResult, pilot
    from loopedge.tasks.task import Task
    from loopedge.trainer.pipeline import TrainResult, train

    # For type checkers alone. At run time help() would print each of these classes in full, thousands of
    # lines, if there were an __all__; dir() lists the names all the same.
    __all__ = [
        "Comparison",
        "ConvertResult",
        "DiagnoseOptions",
        "Diagnosis",
        "EvaluateResult",
        "ExportOptions",
        "ExportResult",
        "Forecast",
        "GenerateResult",
        "Generator",
        "Inspection",
        "LoopedConfig",
        "LoopedModule",
        "LoopedTransformer",
        "PackageOptions",
        "PackageResult",
        "PilotOptions",
        "PilotResult",
        "PrepareResult",
        "ProfileOptions",
        "ProfileResult",
        "QuantizeOptions",
        "QuantizeResult",
        "RerollResult",
        "Session",
        "Task",
        "TrainResult",
        "UnrollResult",
        "attention",
        "compare",
        "convert",
        "diagnose",
        "evaluate",
        "export",
        "forecast",
        "inner_loop",
        "inspect",
        "load",
        "package",
        "pilot",
        "prepare",
        "profile",
        "quantize",
        "reroll",
        "save",
        "to_generate",
        "train",
        "unroll",
    ]

__version__ = "0.1.0"

_HOMES = {
    "Comparison": "loopedge.profiler.comparison.pipeline",
    "ConvertResult": "loopedge.deployment.conversion",
    "DiagnoseOptions": "loopedge.diagnosis.options",
    "Diagnosis": "loopedge.diagnosis.pipeline",
    "EvaluateResult": "loopedge.inference.perplexity",
    "ExportOptions": "loopedge.exporter.options",
    "ExportResult": "loopedge.exporter.pipeline",
    "Forecast": "loopedge.runtime.tables.forecast",
    "GenerateResult": "loopedge.deployment.generating",
    "Generator": "loopedge.runtime.generator",
    "Inspection": "loopedge.artifact.inspection",
    "LoopedConfig": "loopedge.model.config",
    "LoopedModule": "loopedge.model.contract",
    "LoopedTransformer": "loopedge.model.transformer",
    "PackageOptions": "loopedge.packager.options",
    "PackageResult": "loopedge.packager.result",
    "PilotOptions": "loopedge.study.options",
    "PilotResult": "loopedge.study.pipeline",
    "PrepareResult": "loopedge.deployment.preparation",
    "ProfileOptions": "loopedge.profiler.options",
    "ProfileResult": "loopedge.profiler.pipeline",
    "QuantizeOptions": "loopedge.quantizer.options",
    "QuantizeResult": "loopedge.quantizer.pipeline",
    "RerollResult": "loopedge.deployment.rerolling",
    "Session": "loopedge.runtime.session",
    "Task": "loopedge.tasks.task",
    "TrainResult": "loopedge.trainer.pipeline",
    "UnrollResult": "loopedge.deployment.unrolling",
    "attention": "loopedge.model.attention",
    "compare": "loopedge.profiler.comparison.pipeline",
    "convert": "loopedge.deployment.conversion",
    "diagnose": "loopedge.diagnosis.pipeline",
    "evaluate": "loopedge.inference.perplexity",
    "export": "loopedge.exporter.pipeline",
    "forecast": "loopedge.runtime.tables.forecasting",
    "inner_loop": "loopedge.model.inner",
    "inspect": "loopedge.artifact.inspection",
    "load": "loopedge.model.checkpoint",
    "package": "loopedge.packager.pipeline",
    "pilot": "loopedge.study.pipeline",
    "prepare": "loopedge.deployment.preparation",
    "profile": "loopedge.profiler.pipeline",
    "quantize": "loopedge.quantizer.pipeline",
    "reroll": "loopedge.deployment.rerolling",
    "save": "loopedge.model.checkpoint",
    "to_generate": "loopedge.deployment.generating",
    "train": "loopedge.trainer.pipeline",
    "unroll": "loopedge.deployment.unrolling",
}


def __getattr__(name: str) -> _typing.Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'loopedge' has no attribute {name!r}")
    try:
        value = getattr(_importlib.import_module(home), name)
    except ModuleNotFoundError as error:
        if error.name not in {"torch", "onnxscript", "scipy"}:
            raise
        from loopedge.errors import MissingExtraError

        raise MissingExtraError(f"loopedge.{name}", extra="train") from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
