"""What is compared: every toolchain's products of every model."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from benchmarks.peers.environments import OWN

__all__ = ["BASELINE", "LAST", "OURS", "SORTING", "TMLT", "Product", "products"]

Precision = Literal["float", "int8"]
Positions = Literal["all", "last"]

TMLT = "tmlt-12"
FLATNESS = ("tmlt-1", "tmlt-48")
LAST = "-last"
"""End of the variants that answer for the last position alone."""

SORTING = "sorting"
BASELINE = "torch.onnx + ONNX Runtime, unrolled"
OURS = "loopedge"
LOOP_COUNTS = {"tmlt-1": 1, "tmlt-12": 12, "tmlt-48": 48, SORTING: 8}
SEQUENCES = {SORTING: 25}

LIMIT_S = 480
"""Seconds that a conversion may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """A way to run a model: who makes it from what, and who runs it how.

    ``how`` says what happens to activations and weights in eight bits, ``options`` go to the runtime.
    """

    label: str
    environment: str
    variant: str
    subject: str
    precision: Precision
    how: str = ""
    runtime: str
    options: Mapping[str, Any] = field(default_factory=dict)
    limit_s: int = LIMIT_S

    @property
    def peer(self) -> str:
        """Return the converter's name, which ``--refresh`` takes."""
        return self.environment

    @property
    def artifact(self) -> str:
        """Return the name of the artifact's folder."""
        return f"{self.peer}.{self.variant}.{self.subject}"

    @property
    def positions(self) -> Positions:
        """Return what the product answers for: every position, or the last one alone."""
        return "last" if self.variant.endswith(LAST) else "all"

    @property
    def is_ours(self) -> bool:
        """Whether loopedge made it."""
        return self.environment == OWN


Row = tuple[str, str, str, str, dict[str, Any]]  # label, environment, variant, how, options

FLOAT: tuple[Row, ...] = (
    (BASELINE, "onnxruntime", "unrolled", "", {}),
    ("the same, denormals are zero", "onnxruntime", "unrolled", "", {"denormals_are_zero": True}),
    ("the same, timestep table given", "onnxruntime", "table", "", {}),
    ("torch.while_loop + torch.onnx + ONNX Runtime", "onnxruntime", "while-loop", "", {"loops": 0}),
    ("OpenVINO", "openvino", "pytorch", "", {"precision": "f32"}),
    ("OpenVINO in bfloat16, its default where the processor has it", "openvino", "pytorch", "", {}),
    (
        "OpenVINO, Loop of torch.while_loop",
        "openvino",
        "while-loop",
        "",
        {"precision": "f32", "loops": 0},
    ),
    ("ExecuTorch, XNNPACK", "executorch", "float32", "", {}),
    ("LiteRT, XNNPACK", "litert", "float32", "", {}),
    ("ExecuTorch, torch.while_loop", "executorch", "while-loop", "", {}),
    ("LiteRT, torch.while_loop", "litert", "while-loop", "", {}),
    ("ggml-compiler", "ggml", "float32", "", {}),
    ("PyTorch, eager", "torch", "eager", "", {}),
    ("PyTorch, torch.compile", "torch", "compiled", "", {"compiled": True, "sequence": 0}),
    ("untied stack of blocks, ONNX Runtime", "onnxruntime", "untied", "", {}),
    ("loopedge balanced", OWN, "balanced", "", {"memory": "balanced"}),
    ("loopedge mapped, prepared", OWN, "mapped", "", {"memory": "mapped"}),
    ("loopedge low", OWN, "low", "", {"memory": "low"}),
    (
        "loopedge balanced, loop count selectable",
        OWN,
        "selectable",
        "",
        {"memory": "balanced", "loops": 0},
    ),
    ("torch.onnx + ONNX Runtime, last position", "onnxruntime", "unrolled-last", "", {}),
    ("loopedge balanced, last position", OWN, "balanced-last", "", {"memory": "balanced"}),
)
"""The options ``loops`` and ``sequence`` become those of the model."""

STATIC = "static"
DYNAMIC = "dynamic"
INT8: tuple[Row, ...] = (
    ("ONNX Runtime quantize_static, as exported", "onnxruntime", "static-unprepared", STATIC, {}),
    ("ONNX Runtime quantize_static, after quant_pre_process", "onnxruntime", "static", STATIC, {}),
    (
        "ONNX Runtime quantize_dynamic, as exported",
        "onnxruntime",
        "dynamic-unprepared",
        DYNAMIC,
        {},
    ),
    (
        "ONNX Runtime quantize_dynamic, after quant_pre_process",
        "onnxruntime",
        "dynamic",
        DYNAMIC,
        {},
    ),
    (
        "ONNX Runtime quantize_static on torch.while_loop",
        "onnxruntime",
        "while-loop-static",
        STATIC,
        {"loops": 0},
    ),
    ("OpenVINO + NNCF", "openvino", "pytorch-int8", STATIC, {"precision": "f32"}),
    (
        "OpenVINO + NNCF on torch.while_loop",
        "openvino",
        "while-loop-int8",
        STATIC,
        {"precision": "f32", "loops": 0},
    ),
    ("ExecuTorch, XNNPACK, PT2E", "executorch", "int8", STATIC, {}),
    ("LiteRT, AI Edge Quantizer, dynamic", "litert", "dynamic", DYNAMIC, {}),
    ("LiteRT, AI Edge Quantizer, static", "litert", "static", STATIC, {}),
    ("ggml-compiler q8_0", "ggml", "q8_0", "blocks of 32, activations dynamic", {}),
    (
        "loopedge int8 balanced",
        OWN,
        "int8-balanced",
        "static, per iteration",
        {"memory": "balanced"},
    ),
    ("loopedge int8 low", OWN, "int8-low", "static, per iteration", {"memory": "low"}),
    (
        "OpenVINO + NNCF, last position",
        "openvino",
        "pytorch-int8-last",
        STATIC,
        {"precision": "f32"},
    ),
    (
        "loopedge int8 balanced, last position",
        OWN,
        "int8-balanced-last",
        "static, per iteration",
        {"memory": "balanced"},
    ),
)
FLAT_LABELS = (
    BASELINE,
    "torch.while_loop + torch.onnx + ONNX Runtime",
    "OpenVINO",
    "ExecuTorch, XNNPACK",
    "LiteRT, XNNPACK",
    "ggml-compiler",
    "PyTorch, eager",
    "loopedge balanced",
    "loopedge mapped, prepared",
    "loopedge low",
    "ONNX Runtime quantize_static, after quant_pre_process",
    "OpenVINO + NNCF",
    "LiteRT, AI Edge Quantizer, dynamic",
    "ggml-compiler q8_0",
    "loopedge int8 balanced",
    "loopedge int8 low",
    "loopedge int8 balanced, last position",
)
ONLY_SORTING = ("ExecuTorch, torch.while_loop", "LiteRT, torch.while_loop")
"""Tried on the small model alone: they do not know the operator."""

ONLY_TMLT = (
    "untied stack of blocks, ONNX Runtime",
    "the same, timestep table given",
    *(row[0] for row in (*FLOAT, *INT8) if row[2].endswith(LAST)),
)


def products(subject: str, peers: Collection[str] = ()) -> list[Product]:
    """Return the products of a model, the baseline first; fewer for the loop counts besides 12.

    Args:
        subject: The model.
        peers: Whose products; empty: everybody's. The baseline is always one of them.
    """
    rows: list[tuple[Precision, Row]] = [("float", row) for row in FLOAT]
    rows += [("int8", row) for row in INT8]
    if subject in FLATNESS:
        rows = [(precision, row) for precision, row in rows if row[0] in FLAT_LABELS]
    else:
        left_out = ONLY_TMLT if subject == SORTING else ONLY_SORTING
        rows = [(precision, row) for precision, row in rows if row[0] not in left_out]
    if peers:
        rows = [one for one in rows if one[1][0] == BASELINE or one[1][1] in peers]
    return [
        Product(
            label=label,
            environment=environment,
            variant=variant,
            subject=subject,
            precision=precision,
            how=how,
            runtime="onnxruntime" if environment == OWN else environment,
            options=_options(given, subject),
        )
        for precision, (label, environment, variant, how, given) in rows
    ]


def _options(given: dict[str, Any], subject: str) -> dict[str, Any]:
    own = {"loops": LOOP_COUNTS[subject], "sequence": SEQUENCES.get(subject, 128)}
    return {name: own.get(name, value) for name, value in given.items()}
