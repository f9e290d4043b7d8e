"""Run the tests that compute under several instruction sets and numbers of threads: ``make test-arithmetic``.

No outcome may hang on how a processor rounds. Each setting below changes that, is asked whether it took effect,
and runs the same tests; a table ends it. Words behind the program go to pytest:

    make test-arithmetic PYTEST="-m 'not slow and not long'"

What computes: every test but those of packages, GPUs, measured processes and words (`LEFT_OUT`).

ONNX Runtime chooses its kernels by the processor alone, no variable and no option changes that. An emulated
processor does: where qemu-user is installed (Debian's ``qemu-user``), the tests that need no PyTorch run on one
without AVX, whose int8 products are exact, and on one with AVX2 alone, whose int8 products saturate.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).parent
FOLDERS = ("graph", "parity", "unit", "cli")
LEFT_OUT = (
    *(
        "test_profile*",
        "test_peers*",
        "test_soak*",
        "test_measured*",
        "test_resident*",
        "test_trace*",
    ),
    *("test_cuda*", "test_gpu*", "test_startup*", "test_docs*", "test_output*", "test_progress*"),
    *("test_narrow*", "test_train_memory*", "test_memory_sources*", "test_iteration*"),
)
WITHOUT_TORCH = ("graph", "cli/test_quantize.py", "cli/test_budget.py", "cli/test_run.py")
"""What an emulated processor runs: torch takes minutes there."""

PROBE = """
import json, torch
torch.zeros(8, 8).to_mkldnn().relu()
torch.ones(64, 64) @ torch.ones(64, 64)
print(json.dumps({"aten": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads()}))
"""
RUNTIME_PROBE = """
import numpy as np, onnx.parser, onnxruntime as ort
text = '<ir_version: 10, opset_import: ["": 21]> g (uint8[1, 64] a, int8[64, 8] b) => (int32[1, 8] y) '
model = onnx.parser.parse_model(text + '{ y = MatMulInteger (a, b) }').SerializeToString()
feeds = {"a": np.full((1, 64), 255, np.uint8), "b": np.full((64, 8), 127, np.int8)}
session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
print(int(session.run(None, feeds)[0][0, 0]))
"""
EXACT, SATURATED = 64 * 255 * 127, 32 * (2**15 - 1)
"""The product of the probe, and what pairs that are added in 16 bits make of it."""
ONEDNN = {"SSE41": "SSE4.1", "AVX2": "AVX2"}
MKL = {"SSE4_2": "SSE4.2", "AVX2": "AVX2"}


@dataclass(frozen=True)
class Setting:
    """Variables of the environment, or an emulated processor and the product that it computes."""

    name: str
    variables: dict[str, str] = field(default_factory=dict)
    processor: str | None = None
    product: int = EXACT


SETTINGS = (
    Setting(
        "ATen without AVX, 2 threads", {"ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "2"}
    ),
    Setting(
        "AVX2, 1 thread",
        {
            "ATEN_CPU_CAPABILITY": "avx2",
            "ONEDNN_MAX_CPU_ISA": "AVX2",
            "MKL_ENABLE_INSTRUCTIONS": "AVX2",
            "OMP_NUM_THREADS": "1",
        },
    ),
    Setting(
        "oneDNN and MKL without AVX, 1 thread",
        {
            "ONEDNN_MAX_CPU_ISA": "SSE41",
            "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
            "MKL_CBWR": "COMPATIBLE",
            "OMP_NUM_THREADS": "1",
        },
    ),
    Setting("ONNX Runtime without AVX", processor="Nehalem", product=EXACT),
    Setting("ONNX Runtime with AVX2 alone", processor="Haswell", product=SATURATED),
)


@dataclass(frozen=True)
class Row:
    """A line of the table; a reason stands where nothing ran."""

    setting: str
    passed: int = 0
    failed: int = 0
    reason: str = ""


def ask(command: Sequence[str], variables: dict[str, str]) -> str:
    """Run Python with variables; return what it printed."""
    environment = {**os.environ, **variables}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def not_in_effect(variables: dict[str, str]) -> dict[str, str]:
    """Return the variables that changed nothing, each with what the library says of itself."""
    loud = {**variables, "ONEDNN_VERBOSE": "1", "MKL_VERBOSE": "1"}
    lines = ask([sys.executable, "-c", PROBE], loud).splitlines()
    found = json.loads(next(line for line in lines if line.startswith("{")))
    onednn = next((line for line in lines if "cpu,isa:" in line), "no oneDNN")
    mkl = next((line for line in lines if "MKL_VERBOSE oneMKL" in line), "no MKL")
    product = next((line for line in lines if "MKL_VERBOSE SGEMM" in line), "no product of MKL")
    held: dict[str, Callable[[str], tuple[bool, str]]] = {
        "ATEN_CPU_CAPABILITY": lambda value: (found["aten"] == value.upper(), found["aten"]),
        "OMP_NUM_THREADS": lambda value: (str(found["threads"]) == value, str(found["threads"])),
        "ONEDNN_MAX_CPU_ISA": lambda value: (onednn.endswith(ONEDNN[value]), onednn),
        "MKL_ENABLE_INSTRUCTIONS": lambda value: (MKL[value] in mkl, mkl),
        "MKL_CBWR": lambda value: (f"CNR:{value}" in product, product),
    }
    checks = {name: held[name](value) for name, value in variables.items()}
    return {name: said for name, (holds, said) in checks.items() if not holds}


def emulator(processor: str) -> list[str] | None:
    """Return the words that run a program on another processor; None where there is no qemu."""
    names = (os.environ.get("QEMU", ""), "qemu-x86_64", "qemu-x86_64-static")
    found = next((path for name in names if name and (path := shutil.which(name))), None)
    return None if found is None else [found, "-cpu", processor]


def run_tests(
    command: Sequence[str], variables: dict[str, str], words: Iterable[str], setting: str
) -> Row:
    """Run pytest, and count."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        options = ["-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *words]
        code = subprocess.run(
            [*command, *options], env={**os.environ, **variables}, check=False
        ).returncode
        if not report.exists():
            return Row(setting, reason=f"pytest ended with {code}", failed=1)
        counts = ET.parse(report).getroot().find("testsuite").attrib  # type: ignore[union-attr]
    failed = int(counts["failures"]) + int(counts["errors"])
    passed = int(counts["tests"]) - failed - int(counts["skipped"])
    return Row(setting, passed, failed or int(code != 0))


def run_setting(setting: Setting, words: Sequence[str], workers: str) -> Row:
    """See that a setting takes effect, and run the tests under it."""
    print(f"\n== {setting.name}: {setting.variables or setting.processor}", flush=True)
    if setting.processor is not None:
        command = emulator(setting.processor)
        if command is None:
            return Row(setting.name, reason="not run: it needs qemu-user")
        product = int(ask([*command, sys.executable, "-c", RUNTIME_PROBE], {}).split()[-1])
        if product != setting.product:
            reason = f"not in effect: the product is {product}, not {setting.product}"
            return Row(setting.name, failed=1, reason=reason)
        chosen = [str(TESTS / name) for name in WITHOUT_TORCH]
        emulated = [*command, sys.executable]
        return run_tests(emulated, {}, ["-n", "0", *chosen, *words], setting.name)
    idle = not_in_effect(setting.variables)
    # MKL looks at it on Intel's processors alone; MKL_CBWR, which stands beside it, it takes on every one.
    said = idle.pop("MKL_ENABLE_INSTRUCTIONS", None)
    if idle:
        return Row(setting.name, failed=1, reason=f"not in effect: {idle}")
    row = run_tests(
        [sys.executable],
        setting.variables,
        [
            *("--numprocesses", workers, "--maxprocesses", "8", "--dist", "loadfile"),
            *(f"--ignore-glob=*/{name}.py" for name in LEFT_OUT),
            *(str(TESTS / name) for name in FOLDERS),
            *words,
        ],
        setting.name,
    )
    reason = f"MKL_ENABLE_INSTRUCTIONS has no effect here: {said}" if said else row.reason
    return Row(row.setting, row.passed, row.failed, reason)


def main() -> int:
    """Run every setting, and print the table."""
    words, workers = sys.argv[1:], os.environ.get("WORKERS", "auto")
    rows = [run_setting(setting, words, workers) for setting in SETTINGS]
    print("\n| setting | passed | failed | |\n|---|---|---|---|")
    for row in rows:
        print(f"| {row.setting} | {row.passed} | {row.failed} | {row.reason} |")
    return int(any(row.failed for row in rows))


if __name__ == "__main__":
    sys.exit(main())
