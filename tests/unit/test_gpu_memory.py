"""Memory of a GPU by source: a driver that is not there stands in, traces are written by hand."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from loopedge.profiler.dissection import gpu
from loopedge.profiler.dissection.arena import ArenaUse
from loopedge.profiler.dissection.gpu import (
    GpuReadings,
    device_arena_use,
    measure_gpu,
    split_memory,
)
from loopedge.profiler.dissection.nvml import Meter, NoMeterError, PeakWatch, open_meter
from loopedge.profiler.processes.setup import ProcessSetup

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 2**20
CUDA = "CUDAExecutionProvider"
PATIENCE_S = 60
"""Seconds after which what is waited for counts as missing: far more than it takes."""


class FakeNvml(ModuleType):
    """What of pynvml is used; processes and used memory of each device are set by the test."""

    class NVMLError(Exception):
        pass

    def __init__(self, *, devices: int = 1) -> None:
        super().__init__("pynvml")
        self.processes: list[dict[int, int | None]] = [{} for _ in range(devices)]
        self.used: list[int] = [0] * devices
        self.hidden = False
        self.closed = False

    def nvmlInit(self) -> None:  # noqa: N802
        pass

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.closed = True

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.processes)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetName(self, device: int) -> str | bytes:  # noqa: N802
        return b"NVIDIA Test"

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "999.1"

    def nvmlDeviceGetComputeRunningProcesses(self, device: int) -> list[Any]:  # noqa: N802
        if self.hidden:
            raise self.NVMLError("Insufficient Permissions")
        return [
            SimpleNamespace(pid=pid, usedGpuMemory=used)
            for pid, used in self.processes[device].items()
        ]

    def nvmlDeviceGetMemoryInfo(self, device: int) -> Any:  # noqa: N802
        return SimpleNamespace(used=self.used[device])


def test_the_driver_tells_of_the_process() -> None:
    nvml = FakeNvml(devices=2)
    nvml.processes[0][7] = 100
    meter = Meter(nvml)
    nvml.processes[0][42], nvml.processes[1][42] = 300, 30
    assert meter.used_bytes(42) == 330
    assert (meter.source, meter.name, meter.driver) == ("process", "NVIDIA Test", "999.1")
    assert not meter.alone


def test_in_a_container_the_one_that_came_meanwhile_is_ours() -> None:
    nvml = FakeNvml()
    nvml.processes[0][1] = 100
    meter = Meter(nvml)
    nvml.processes[0][99_042] = 300
    assert meter.used_bytes(42) == 300
    assert meter.source == "process"


def test_another_process_that_has_our_number_on_the_host_is_not_ours() -> None:
    nvml = FakeNvml()
    nvml.processes[0][42] = 5000
    meter = Meter(nvml)
    nvml.processes[0][99_042] = 300
    assert meter.used_bytes(42) == 300


def test_figures_of_two_kinds_are_never_mixed() -> None:
    nvml = FakeNvml()
    nvml.used[0] = 1000
    meter = Meter(nvml)
    nvml.processes[0][99_042], nvml.used[0] = 300, 1400
    assert meter.used_bytes(42) == 300
    nvml.processes[0][99_043], nvml.used[0] = 2000, 3600  # another program comes
    assert (meter.used_bytes(42), meter.source) == (300, "process")
    del nvml.processes[0][99_042]
    assert meter.used_bytes(42) is None


def test_the_growth_of_the_device_stays_the_figure() -> None:
    nvml = FakeNvml()
    nvml.used[0] = 1000
    meter = Meter(nvml)
    nvml.used[0] = 1400  # the driver does not list the process yet
    assert (meter.used_bytes(42), meter.source) == (400, "device")
    nvml.processes[0][42], nvml.used[0] = 200, 1600
    assert (meter.used_bytes(42), meter.source) == (600, "device")


def test_of_two_that_came_meanwhile_none_is_taken_for_ours() -> None:
    nvml = FakeNvml()
    nvml.used[0] = 1000
    meter = Meter(nvml)
    nvml.processes[0] = {8: 300, 9: 400}
    nvml.used[0] = 1700
    assert meter.used_bytes(42) == 700
    assert meter.source == "device"


@pytest.mark.parametrize("hidden", ["figure", "list"])
def test_where_the_driver_hides_processes_the_device_is_read(hidden: str) -> None:
    nvml = FakeNvml()
    nvml.hidden = hidden == "list"
    nvml.used[0] = 1000
    meter = Meter(nvml)
    nvml.processes[0][42] = None
    nvml.used[0] = 1500
    assert meter.used_bytes(42) == 500
    assert meter.source == "device"


def test_of_several_devices_the_visible_one_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml(devices=2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert Meter(nvml).used_bytes(42) is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    assert Meter(nvml).used_bytes(42) is None  # CUDA's second need not be the driver's
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    meter = Meter(nvml)
    nvml.used = [10, 250]
    assert meter.used_bytes(42) == 250


def test_without_package_or_driver_there_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(NoMeterError, match="nvidia-ml-py is not installed"):
        open_meter()
    nvml = FakeNvml(devices=0)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    with pytest.raises(NoMeterError, match="no device"):
        open_meter()
    assert nvml.closed

    def missing() -> None:
        raise nvml.NVMLError("NVML Shared Library Not Found")

    monkeypatch.setattr(nvml, "nvmlInit", missing)
    with pytest.raises(NoMeterError, match="NVML: NVML Shared Library Not Found"):
        open_meter()


def test_the_watch_keeps_the_largest_figure() -> None:
    figures = iter([None, 5, 9, 4])
    with PeakWatch(lambda: next(figures, 4)) as watch:
        end = time.monotonic() + PATIENCE_S
        while watch.peak != 9 and time.monotonic() < end:
            time.sleep(0.005)
    assert watch.peak == 9


def node(at: int, in_use: int, delta: int, peak: int, held: int) -> dict[str, Any]:
    figures = {
        "mem_bytes_in_use": in_use,
        "mem_in_use_delta": delta,
        "mem_in_use_peak": peak,
        "mem_arena_held": held,
    }
    return {
        "name": "a_kernel_time",
        "ts": at,
        "dur": 1,
        "args": {"op_name": "MatMul", "provider": CUDA}
        | {name: str(value) for name, value in figures.items()},
    }


def test_the_arena_tells_what_the_runs_added_to_the_load() -> None:
    events = [node(20, 70, -20, 90, 128), node(10, 60, 10, 60, 64)]
    use = device_arena_use(events, weight_bytes=40)
    assert use == ArenaUse(loaded_bytes=50, activations_bytes=40, held_bytes=78, peak_node="a")


def test_a_peak_of_loading_is_none_of_the_runs() -> None:
    use = device_arena_use([node(10, 60, 10, 500, 64), node(20, 70, 10, 500, 64)], weight_bytes=40)
    assert use is not None
    assert use.activations_bytes == 20


def test_nodes_of_another_provider_do_not_count() -> None:
    other = node(15, 900, 0, 900, 900)
    other["args"]["provider"] = "CPUExecutionProvider"
    use = device_arena_use([node(10, 60, 10, 60, 64), other], weight_bytes=40)
    assert use is not None
    assert (use.activations_bytes, use.held_bytes) == (10, 14)


def test_the_statistics_of_another_arena_are_not_taken() -> None:
    assert device_arena_use([node(10, 60, 10, 60, 64)], weight_bytes=1000) is None
    assert device_arena_use([{"name": "model_run", "ts": 0, "dur": 1}], weight_bytes=1) is None


READINGS = GpuReadings(context_bytes=300 * MIB, loaded_bytes=400 * MIB, peak_bytes=450 * MIB)


def test_the_parts_add_up_to_the_process() -> None:
    arena = ArenaUse(loaded_bytes=60 * MIB, activations_bytes=20 * MIB, held_bytes=30 * MIB)
    parts = split_memory(READINGS, arena, 60 * MIB)
    assert parts == {
        "process_bytes": 150 * MIB,
        "context_bytes": 300 * MIB,
        "activations_bytes": 20 * MIB,
        "workspace_bytes": 70 * MIB,
        "arena_bytes": 90 * MIB,
    }


def test_no_workspace_is_reported_where_the_parts_are_more_than_the_process() -> None:
    arena = ArenaUse(loaded_bytes=60 * MIB, activations_bytes=200 * MIB, held_bytes=210 * MIB)
    parts = split_memory(READINGS, arena, 60 * MIB)
    assert parts["workspace_bytes"] is None
    assert parts["process_bytes"] == 150 * MIB


def test_without_the_arena_activations_are_what_the_process_grew_by() -> None:
    parts = split_memory(READINGS, None, 60 * MIB)
    assert (parts["activations_bytes"], parts["workspace_bytes"]) == (50 * MIB, 40 * MIB)
    assert parts["arena_bytes"] is None


def test_without_a_driver_only_the_arena_is_reported() -> None:
    arena = ArenaUse(loaded_bytes=60, activations_bytes=20, held_bytes=30)
    parts = split_memory(GpuReadings(), arena, 60)
    assert parts["activations_bytes"] == 20
    assert parts["process_bytes"] is parts["workspace_bytes"] is None


class _Process:
    """A measured process that fills a device, and whose trace is given."""

    def __init__(self, nvml: FakeNvml, trace: Path) -> None:
        self.nvml, self.trace = nvml, trace

    def run(self, runs: int) -> list[float]:
        self.nvml.processes[0][42] = 450 * MIB
        return [1.0] * runs

    def end_trace(self) -> Path:
        return self.trace


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    nvml = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    return nvml


@pytest.fixture
def setup(monkeypatch: pytest.MonkeyPatch, driver: FakeNvml, tmp_path: Path) -> ProcessSetup:
    trace = tmp_path / "trace.json"
    trace.write_text("unused: events are given")
    events = [
        {"name": "model_run", "ts": 0, "dur": 90},
        node(10, 70 * MIB, 10 * MIB, 70 * MIB, 90 * MIB),
        node(12, 70 * MIB, 0, 80 * MIB, 90 * MIB),
        {
            "name": "q_kernel_time",
            "ts": 20,
            "dur": 1,
            "args": {
                "op_name": "DynamicQuantizeLinear",
                "provider": "CPUExecutionProvider",
                "output_type_shape": [{"uint8": [1, 8]}],
            },
        },
        {"name": "model_run", "ts": 100, "dur": 90},
    ]
    monkeypatch.setattr(gpu, "read_trace", lambda path: events)

    @contextmanager
    def start(setup: ProcessSetup, *, before_load: Any, **_: Any) -> Iterator[_Process]:
        driver.processes[0][42] = 300 * MIB
        before_load(42)
        driver.processes[0][42] = 400 * MIB
        yield _Process(driver, trace)

    monkeypatch.setattr(gpu, "MeasuredProcess", start)
    return ProcessSetup(
        model=tmp_path / "m.onnx",
        inputs=tmp_path / "m.npz",
        file_bytes=1,
        provider=CUDA,
        threads=1,
        cuda_graphs=True,
    )


def test_a_model_is_measured_from_context_to_peak(setup: ProcessSetup, driver: FakeNvml) -> None:
    memory, notes = measure_gpu(setup, 60 * MIB)
    assert notes == []
    assert driver.closed
    assert (memory.name, memory.driver, memory.source) == ("NVIDIA Test", "999.1", "process")
    assert (memory.context_bytes, memory.process_bytes) == (300 * MIB, 150 * MIB)
    assert (memory.weights_bytes, memory.activations_bytes) == (60 * MIB, 20 * MIB)
    assert memory.workspace_bytes == 70 * MIB
    assert memory.cuda_graph  # asked for, and the last run launched no node
    assert memory.fell_back == ["DynamicQuantizeLinear q"]


def test_without_nvml_figures_are_missing_and_a_note_says_why(
    setup: ProcessSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    memory, notes = measure_gpu(setup, 60 * MIB)
    assert memory.process_bytes is memory.context_bytes is memory.workspace_bytes is None
    assert memory.activations_bytes == 20 * MIB
    assert memory.fell_back == ["DynamicQuantizeLinear q"]
    (note,) = notes
    assert note.startswith("GPU memory was not measured: nvidia-ml-py is not installed")


def test_a_figure_of_the_whole_device_is_reported_as_such(
    setup: ProcessSetup, driver: FakeNvml
) -> None:
    driver.hidden = True
    memory, notes = measure_gpu(setup, 60 * MIB)
    assert memory.source == "device"
    assert "no memory per process" in notes[0]
