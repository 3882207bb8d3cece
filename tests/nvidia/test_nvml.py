"""The GPU's clocks and throttle reasons, from an NVML that the test wrote."""

from __future__ import annotations

import sys
import threading
from types import ModuleType
from typing import Any

import pytest

from rtformer_deploy.nvidia.nvml import GpuSample, GpuWatch, clock_fall, gpu_rows, throttles, watch_over


class FakeNvml(ModuleType):
    """pynvml with one GPU, whose SM clock goes through `clocks` and stays at the last; it knows no power."""

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

    class NVMLError(Exception):
        pass

    class NVMLError_NotSupported(NVMLError):  # noqa: N801, N818
        pass

    def __init__(self, clocks: list[int], reasons: int = 0) -> None:
        super().__init__("pynvml")
        self.clocks, self.reasons = clocks, reasons
        self.asked = 0
        self.open = 0
        self.enough = threading.Event()
        self.lost = False

    def nvmlInit(self) -> None:  # noqa: N802
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlSystemGetDriverVersion(self) -> bytes:  # noqa: N802
        return b"580.1"

    def nvmlDeviceGetHandleByPciBusId(self, bus: bytes) -> str:  # noqa: N802
        if bus != b"0000:01:00.0":
            raise self.NVMLError("Not Found")
        return "gpu"

    def nvmlDeviceGetClockInfo(self, handle: str, kind: int) -> int:  # noqa: N802
        assert handle == "gpu"
        assert self.open == 1
        if kind == self.NVML_CLOCK_MEM:
            return 2600
        if self.lost:
            self.enough.set()
            raise self.NVMLError("GPU is lost")
        self.asked += 1
        if self.asked > len(self.clocks):
            self.enough.set()
        return self.clocks[min(self.asked, len(self.clocks)) - 1]

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:  # noqa: N802
        return 60

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:  # noqa: N802
        raise self.NVMLError_NotSupported("Not Supported")

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: str) -> int:  # noqa: N802
        return self.reasons


def watched(monkeypatch: pytest.MonkeyPatch, nvml: FakeNvml, bus: str = "0000:01:00.0") -> GpuWatch:
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    with GpuWatch(bus, period=0.001) as watch:
        if watch.trouble is None:
            assert nvml.enough.wait(30)
    assert nvml.open == 0, "NVML is shut down"
    return watch


def test_values_are_sampled_and_what_is_unknown_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = watched(monkeypatch, FakeNvml([1980, 1980, 1950]))
    facts = watch.to_json()
    assert facts["samples"] >= 3
    assert (facts["sm_mhz"]["min"], facts["sm_mhz"]["max"]) == (1950, 1980)
    assert facts["memory_mhz"] == {"min": 2600, "median": 2600, "max": 2600}
    assert facts["temperature_c"]["median"] == 60
    assert "power_w" not in facts
    assert facts["driver"] == "580.1"
    assert [row[0] for row in gpu_rows(facts)] == ["SM clock, MHz", "memory clock, MHz", "temperature, C"]
    assert watch.notes() == []


def test_throttling_and_falling_clocks_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = watched(monkeypatch, FakeNvml([1980, 1500], reasons=0x40 | 0x04))
    assert watch.to_json()["throttled"] == {"the power limit (software)": 1.0, "the temperature (hardware)": 1.0}
    throttled, fell = watch.notes()
    assert "temperature (hardware) in 100%" in throttled
    assert "fell by 24%" in fell


def sample(clock: float, reasons: int = 0) -> GpuSample:
    return GpuSample({"sm_mhz": clock}, reasons)


def test_idle_moments_and_a_slow_start_are_no_fall() -> None:
    assert clock_fall([sample(300), sample(1980), sample(1970), sample(300, reasons=1)]) == pytest.approx(10 / 1980)
    assert clock_fall([]) == 0
    assert throttles([sample(1, 0x02), sample(1, 0x01)]) == {}, "set clocks and idleness are no throttling"
    assert throttles([sample(1, 0x08), sample(1)]) == {"a hardware slowdown": 0.5}


def test_trouble_is_a_note_and_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Not Found" in watched(monkeypatch, FakeNvml([1]), bus="other").notes()[0]
    lost = FakeNvml([1])
    lost.lost = True
    assert "GPU is lost" in watched(monkeypatch, lost).notes()[0]
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with GpuWatch("0000:01:00.0") as watch:
        pass
    assert "pip install" in watch.notes()[0]


def test_on_a_cpu_nothing_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    unopened: Any = FakeNvml([1])
    monkeypatch.setitem(sys.modules, "pynvml", unopened)
    with watch_over(None) as watch:
        assert watch is None
    assert unopened.asked == 0


@pytest.mark.parametrize("missing", [True, False])
def test_a_gpu_that_does_not_tell_its_bus_is_a_note_and_no_failure(monkeypatch: pytest.MonkeyPatch, missing: bool) -> None:
    class Device:
        def __init__(self, device: int) -> None:
            assert device == 1

        @property
        def pci_bus_id(self) -> str:
            raise RuntimeError("CUDA_ERROR_INVALID_DEVICE: This indicates that the device ordinal is not valid")

    core: Any = None if missing else ModuleType("cuda.core")
    if core is not None:
        core.Device = Device
    monkeypatch.setitem(sys.modules, "cuda.core", core)
    nvml = FakeNvml([1980])
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    with watch_over(1) as watch:
        assert watch is not None
    assert nvml.asked == 0
    facts = watch.to_json()
    assert facts["samples"] == 0
    assert ("cuda.core" if missing else "CUDA_ERROR_INVALID_DEVICE") in facts["trouble"]
    assert "not sampled" in watch.notes()[0]
