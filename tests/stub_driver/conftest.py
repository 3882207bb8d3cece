"""Loads the stub as this process's CUDA driver. It must be a process of its own, since other tests rely on there being no driver."""

from __future__ import annotations

import gc
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
APART = pytest.StashKey[bool]()
CAN_BUILD = sys.platform == "linux" and shutil.which("gcc") is not None and shutil.which("g++") is not None


def pytest_configure(config: pytest.Config) -> None:
    """Where only tests of this folder are asked for, the stub becomes the driver, before anything imports cuda.core."""
    asked = [Path(argument.partition("::")[0]).resolve() for argument in config.args]
    config.stash[APART] = bool(asked) and all(path == HERE or HERE in path.parents for path in asked)
    if config.stash[APART] and CAN_BUILD:
        import stub

        stub.load()


def pytest_unconfigure(config: pytest.Config) -> None:
    """See the fixture `machine`: libraries complain about what is left at the end."""
    gc.unfreeze()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """In a run of other tests these are left out."""
    return None if config.stash.get(APART, False) else True


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if not config.stash.get(APART, False):
        terminalreporter.write_line("tests/stub_driver needs a process of its own and was left out: pytest tests/stub_driver")


@pytest.fixture
def driver() -> Iterator[Any]:
    """The stub, as new; a test that makes faults asks for them."""
    if not CAN_BUILD:
        pytest.skip("needs Linux with gcc and g++ to build the stub driver")
    import stub

    loaded = stub.load()
    loaded.reset()
    yield loaded
    faults = loaded.faults()
    log = loaded.log()
    loaded.reset()
    assert faults == 0, log


@pytest.fixture
def cuda(driver: Any) -> Any:
    """The installed cuda.core."""
    import cuda.core

    return cuda.core


@pytest.fixture
def gpu(cuda: Any) -> Any:
    """The stub's GPU, its primary context current."""
    device = cuda.Device(0)
    device.set_current()
    return device


@pytest.fixture
def lab(driver: Any, cuda: Any, gpu: Any) -> Iterator[Any]:
    """See stub_lab."""
    from stub_lab import Lab

    made = Lab(driver, cuda, gpu)
    yield made
    faults, log = driver.faults(), driver.log()
    made.close()
    assert faults == 0, log


@pytest.fixture
def lane_lab(driver: Any, cuda: Any, gpu: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """See lane_lab."""
    import stub
    from lane_lab import LaneLab

    monkeypatch.setattr("rtformer_deploy.lanes.kernels.compile_kernel_file", stub.compile_kernel_file)
    made = LaneLab(driver, cuda, gpu)
    yield made
    made.close()


@pytest.fixture
def machine(driver: Any, cuda: Any, gpu: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """See tensorrt_lab."""
    from tensorrt_lab import TensorRTLab

    gc.collect()  # what an earlier test left is not this one's
    gc.freeze()  # so the next collection looks at what comes from now on
    made = TensorRTLab(driver, cuda)
    made.install(monkeypatch)
    return made
