"""Memory of a process on the GPU, as the NVIDIA driver reports it (NVML, the extra ``gpu``)."""

import contextlib
import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

__all__ = ["Meter", "NoMeterError", "PeakWatch", "open_meter"]

INTERVAL_SECONDS = 0.002


class NoMeterError(Exception):
    """The driver cannot be asked; the message says why."""


class Meter:
    """Reads how much GPU memory one process holds.

    The driver counts by process, but names processes by their numbers on the host: in a container the
    one that was started meanwhile is taken for ours. One that was there before never is, though it may
    have our number there. Where the driver reports no figure per process at all, the growth of the device's
    used memory is taken, which other programs change. What the first figure is, all later ones are: the
    difference of two kinds would mean nothing.

    Args:
        nvml: The module ``pynvml``, initialized.

    Attributes:
        name: Of the device; of several, all of them.
        driver: Its version.
        source: ``process`` or ``device``: where figures come from; None before the first.
    """

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        count = nvml.nvmlDeviceGetCount()
        self._devices = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        self.name = ", ".join(
            dict.fromkeys(_text(nvml.nvmlDeviceGetName(device)) for device in self._devices)
        )
        self.driver = _text(nvml.nvmlSystemGetDriverVersion())
        self.source: str | None = None
        self._ours: int | None = None
        self._before = set(self._processes())
        self._used_before = self._device_bytes()

    @property
    def alone(self) -> bool:
        """Whether no other process was on the device when this was created, as far as NVML reports."""
        return not self._before

    def used_bytes(self, pid: int) -> int | None:
        """Return what the process holds, in bytes; None where the driver does not say."""
        if self.source != "device":
            found = self._processes()
            new = set(found) - self._before
            ours = {pid} if pid in new else new
            if self._ours is None and len(ours) == 1 and found[next(iter(ours))] is not None:
                self.source, self._ours = "process", ours.pop()
            if self._ours is not None:
                return found.get(self._ours)
        now = self._device_bytes()
        if now is None or self._used_before is None:
            return None
        self.source = "device"
        return now - self._used_before

    def close(self) -> None:
        """Let go of the driver."""
        with contextlib.suppress(self._nvml.NVMLError):
            self._nvml.nvmlShutdown()

    def _processes(self) -> dict[int, int | None]:
        """Return the bytes of each process, over all devices; None where the driver hides them."""
        found: dict[int, int | None] = {}
        for device in self._devices:
            with contextlib.suppress(self._nvml.NVMLError):
                for process in self._nvml.nvmlDeviceGetComputeRunningProcesses(device):
                    used, before = process.usedGpuMemory, found.get(process.pid, 0)
                    hidden = used is None or before is None
                    found[process.pid] = None if hidden else before + used
        return found

    def _device_bytes(self) -> int | None:
        """Return the used memory of the device that a process sees first; None where it is not known.

        CUDA puts the fastest first unless it is asked to count as NVML does.
        """
        devices = self._devices
        if len(devices) > 1:
            if os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
                return None
            first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
            if not first.isdecimal() or int(first) >= len(devices):
                return None
            devices = [devices[int(first)]]
        with contextlib.suppress(self._nvml.NVMLError):
            return sum(int(self._nvml.nvmlDeviceGetMemoryInfo(device).used) for device in devices)
        return None


def open_meter() -> Meter:
    """Ask the driver for its devices.

    Raises:
        NoMeterError: The package, the driver or a device is missing.
    """
    try:
        import pynvml
    except ImportError:
        raise NoMeterError("nvidia-ml-py is not installed: pip install nvidia-ml-py") from None
    try:
        pynvml.nvmlInit()
        meter = Meter(pynvml)
    except pynvml.NVMLError as error:
        raise NoMeterError(f"NVML: {error}") from None
    if not meter.name:
        meter.close()
        raise NoMeterError("NVML reports no device")
    return meter


class PeakWatch:
    """Samples a figure in a thread of its own and keeps the largest.

    Args:
        read: Returns the figure, or None where there is none.
    """

    def __init__(self, read: Callable[[], int | None]) -> None:
        self._read = read
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.peak: int | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> int | None:
        """End sampling, after one more sample; return the largest figure."""
        self._end.set()
        self._thread.join()
        return self.peak

    def _sample(self) -> None:
        while True:
            ended = self._end.wait(INTERVAL_SECONDS)
            found = self._read()  # once more after the end: a short peak at the end is not missed
            if found is not None:
                self.peak = found if self.peak is None else max(self.peak, found)
            if ended:
                return


def _text(value: str | bytes) -> str:
    """Return a name: releases of nvidia-ml-py before 12 give bytes."""
    return value.decode() if isinstance(value, bytes) else value
