"""A GPU that does not answer any more: the process ends all the same, and frees nothing of what lies there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import stub
from stub import StubDriver

ROOT = Path(__file__).parent.parent.parent
PROGRAM = """
import sys
sys.path[:0] = {paths!r}
import stub
driver = stub.load()
import cuda.core as cuda
from rtformer_deploy.lanes import kernels
kernels.compile_kernel_file = stub.compile_kernel_file
gpu = cuda.Device(0)
gpu.set_current()
from helpers import frames
from lane_lab import LaneLab
from rtformer_deploy.errors import EngineError
lab = LaneLab(driver, cuda, gpu)
runner = lab.open(2)
for _ in range(3):
    runner.run(frames((50, 70)))
labels = runner.result(runner.submit(frames((50, 70)), on_device=True))
driver.hang()
lab.share.health._patience_s = 0.2
try:
    runner.run(frames((50, 70)))
except EngineError as error:
    print(error, file=sys.stderr)
if {close}:
    runner.close()
lab.opened.clear()
print("the end", file=sys.stderr, flush=True)
"""


@pytest.mark.parametrize("close", [True, False])
def test_a_process_with_a_hung_gpu_ends_and_frees_nothing_there(driver: StubDriver, close: bool) -> None:
    paths = [str(ROOT), *(str(ROOT / "tests" / part) for part in ("", "stub_driver"))]
    program = PROGRAM.format(paths=paths, close=close)
    environment = {**stub.environment(), "STUB_DRIVER_LOG": "1"}
    try:
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired as expired:
        pytest.fail(f"it waits for ever: {(expired.stderr or b'')[-300:]!r}")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "has not finished a request for 0.2 s" in done.stderr
    after = done.stderr.partition("the end")[2]
    assert [line for line in after.splitlines() if "freed" in line or "queued free" in line] == []
