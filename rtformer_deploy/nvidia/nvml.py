"""A GPU's clocks, temperature, power and throttle reasons, sampled while something is measured; NVML through `pynvml`."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from ..errors import first_line

PERIOD_S = 0.1
#: A clock that falls by more than this share of the highest one seen, while the GPU works, is worth a note.
FALL = 0.1
#: Bits of NVML's clocks event reasons that slow a busy GPU down (nvml.h).
THROTTLES = {
    0x04: "the power limit (software)",
    0x08: "a hardware slowdown",
    0x20: "the temperature (software)",
    0x40: "the temperature (hardware)",
    0x80: "the power brake (hardware)",
}
_IDLE = 0x01
_VALUES = {
    "sm_mhz": ("SM clock", "MHz"),
    "memory_mhz": ("memory clock", "MHz"),
    "temperature_c": ("temperature", "C"),
    "power_w": ("power", "W"),
}


@dataclass(frozen=True, slots=True)
class GpuSample:
    """The GPU at one moment; `values` may have sm_mhz, memory_mhz, temperature_c and power_w; `reasons` holds NVML's bits."""

    values: Mapping[str, float]
    reasons: int


@dataclass(slots=True)
class GpuWatch:
    """A context manager: while it is open, a thread samples the GPU `bus_id` every `period` seconds.

    `bus_id` is the GPU's PCI bus id, because CUDA and NVML may number GPUs differently. If NVML is missing or refuses,
    nothing is sampled and `trouble` says why; the measurement goes on. A watch that is made with a `trouble` samples nothing.
    """

    bus_id: str
    period: float = PERIOD_S
    samples: list[GpuSample] = field(default_factory=list)
    driver: str | None = None
    trouble: str | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self.trouble is not None:
            return self
        try:
            import pynvml
        except ImportError:
            self.trouble = "nvidia-ml-py is not installed: pip install 'rtformer-deploy[gpu]'"
            return self
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            self.trouble = f"NVML does not start: {error}"
            return self
        try:
            handle = pynvml.nvmlDeviceGetHandleByPciBusId(self.bus_id.encode())
            driver = pynvml.nvmlSystemGetDriverVersion()
            self.driver = driver.decode() if isinstance(driver, bytes) else str(driver)
        except pynvml.NVMLError as error:
            self.trouble = f"NVML does not know the GPU {self.bus_id}: {error}"
            pynvml.nvmlShutdown()
            return self
        self._thread = threading.Thread(target=self._run, args=(pynvml, handle), name="gpu-watch", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
            self._thread = None

    def _run(self, nvml: Any, handle: Any) -> None:
        try:
            due = time.monotonic()
            while True:
                self.samples.append(read_sample(nvml, handle))
                due += self.period
                if self._stop.wait(max(0.0, due - time.monotonic())):
                    return
        except nvml.NVMLError as error:  # a GPU that fell off the bus
            self.trouble = f"NVML stopped answering: {error}"
        finally:
            nvml.nvmlShutdown()

    def to_json(self) -> dict[str, Any]:
        """samples, driver, min, median and max of each value, and the throttle reasons with the share of the samples that had them."""
        facts: dict[str, Any] = {"bus_id": self.bus_id, "driver": self.driver, "samples": len(self.samples), "period_s": self.period}
        for name in _VALUES:
            values = [sample.values[name] for sample in self.samples if name in sample.values]
            if values:
                facts[name] = {"min": min(values), "median": float(np.median(values)), "max": max(values)}
        facts["throttled"] = throttles(self.samples)
        if self.trouble is not None:
            facts["trouble"] = self.trouble
        return facts

    def notes(self) -> list[str]:
        """What a reader must know: throttling, a clock that fell, or that nothing was sampled."""
        lines = [] if self.trouble is None else [f"Clocks and temperature were not sampled throughout: {self.trouble}."]
        shares = throttles(self.samples)
        if shares:
            listed = ", ".join(f"{name} in {share:.0%}" for name, share in shares.items())
            lines.append(f"The GPU was throttled by {listed} of the samples: it could be faster than these figures.")
        fall = clock_fall(self.samples)
        if fall > FALL:
            lines.append(f"The GPU's SM clock fell by {fall:.0%} while it worked: the figures mix fast and slow.")
        return lines


@contextlib.contextmanager
def watch_over(device: int | None) -> Iterator[GpuWatch | None]:
    """Samples CUDA's GPU `device` while the block runs. If `device` is None (a CPU), samples nothing and gives None."""
    if device is None:
        yield None
        return
    with _watch(device) as watch:
        yield watch


def _watch(device: int) -> GpuWatch:
    """A watch of CUDA's GPU `device`, or one whose `trouble` says why CUDA cannot identify that GPU."""
    try:
        from cuda.core import Device

        return GpuWatch(str(Device(device).pci_bus_id))
    except Exception as error:  # whatever CUDA raises: the measurement goes on without clocks
        return GpuWatch("unknown", trouble=f"CUDA does not tell which GPU {device} is: {first_line(error)}")


def read_sample(nvml: Any, handle: Any) -> GpuSample:
    """Samples a GPU once; values that it does not support are left out. Raises NVMLError if the GPU does not answer."""
    reasons = getattr(nvml, "nvmlDeviceGetCurrentClocksEventReasons", None) or nvml.nvmlDeviceGetCurrentClocksThrottleReasons
    readers: dict[str, Callable[[], Any]] = {
        "sm_mhz": lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
        "memory_mhz": lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM),
        "temperature_c": lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
        "power_w": lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000,
        "reasons": lambda: reasons(handle),
    }
    values: dict[str, float] = {}
    for name, read in readers.items():
        try:
            values[name] = read()
        except nvml.NVMLError_NotSupported:
            continue
    bits = int(values.pop("reasons", 0))
    return GpuSample(values, bits)


def throttles(samples: list[GpuSample]) -> dict[str, float]:
    """The reasons that slowed the GPU down, each with the share of the samples that had it."""
    counts = {name: sum(bool(sample.reasons & bit) for sample in samples) for bit, name in THROTTLES.items()}
    return {name: count / len(samples) for name, count in counts.items() if count}


def clock_fall(samples: list[GpuSample]) -> float:
    """The share by which the SM clock fell after its highest value. Samples of an idle GPU do not count."""
    clocks = [sample.values["sm_mhz"] for sample in samples if "sm_mhz" in sample.values and not sample.reasons & _IDLE]
    if not clocks:
        return 0.0
    highest = max(clocks)
    return 1 - min(clocks[clocks.index(highest) :]) / highest if highest else 0.0


def gpu_rows(facts: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """The result of `GpuWatch.to_json` -> rows: a name with its unit, then min, median and max as text."""
    rows = []
    for key, (name, unit) in _VALUES.items():
        if key in facts:
            low, middle, high = (f"{facts[key][part]:.0f}" for part in ("min", "median", "max"))
            rows.append((f"{name}, {unit}", low, middle, high))
    return rows
