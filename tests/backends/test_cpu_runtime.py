"""What is particular to engines on the CPU: bound memory, settings that arrive, several at once, and what a missing package says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import frames, tiny_model, tiny_spec

from rtformer_deploy.backends import BACKENDS, build, open_engine
from rtformer_deploy.backends.onnxruntime import run as onnxruntime_runtime
from rtformer_deploy.backends.openvino.plan import compile_plan
from rtformer_deploy.backends.torch.run import open_network
from rtformer_deploy.errors import EngineError, MissingPackageError, ModelError
from rtformer_deploy.formats.engine_file import save_engine
from rtformer_deploy.runtime.cpu_session import preprocess_frames
from rtformer_deploy.runtime.session import WorkerSession, rebuild_command
from rtformer_deploy.types import Backend, BuildOptions, Engine

ON_CPU = [row.name for row in BACKENDS.values() if not row.on_gpu]


@pytest.fixture(scope="module", params=ON_CPU)
def engine(request: pytest.FixtureRequest) -> Engine:
    return build(tiny_model("batch"), tiny_spec("batch"), request.param, BuildOptions(batch=(1, 1, 3), threads=1))


def fill(session: Any, batch: int, seed: int) -> None:
    """Preprocessed frames into the input of a session's engine."""
    preprocess_frames(frames(*[(64, 96)] * batch, seed=seed), tiny_spec("batch"), session.input)


def test_the_output_is_written_where_it_was_bound(engine: Engine) -> None:
    with open_engine(engine, threads=1) as runner:
        session: Any = runner.sessions[0].engine
        seen = []
        for batch in (3, 1, 2, 2):
            fill(session, batch, seed=batch)
            session.start(runner.engine_batch(batch))
            output = session.wait()
            assert output.shape == (batch, 5, 8, 12)
            assert np.shares_memory(output, session._output)
            seen.append(output[0].copy())
        assert not np.array_equal(seen[0], seen[1])
        assert np.array_equal(seen[2], seen[3])


def test_a_signal_after_engines_that_were_closed_in_any_order_is_no_crash(engine: Engine, tmp_path: Path) -> None:
    """OpenVINO's plugin changes the thread's signal stack; a library that does so must not leave one that is gone."""
    save_engine(engine, tmp_path / "e.plan")
    code = (
        "import signal, sys\n"
        "from pathlib import Path\n"
        "from rtformer_deploy import load_engine, open_engine\n"
        "first, second, third = (open_engine(load_engine(Path(sys.argv[1])), threads=1) for _ in range(3))\n"
        "for runner in (first, third, second):\n"
        "    runner.close()\n"
        "del first, second, third, runner\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "signal.raise_signal(signal.SIGTERM)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "e.plan")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (7, "")


def test_a_smaller_batch_touches_no_more_than_itself(engine: Engine) -> None:
    with open_engine(engine, threads=1) as runner:
        session: Any = runner.sessions[0].engine
        session._output[:] = -7
        session.start(2)
        session.wait()
        assert np.all(session._output[2] == -7)
        assert not np.any(np.all(session._output[:2] == -7, axis=(1, 2, 3)))


def test_two_engine_sessions_run_at_once(engine: Engine) -> None:
    with open_engine(engine, threads=2, lanes=2) as runner:
        first, second = (session.engine for session in runner.sessions)
        fill(first, 1, seed=1)
        fill(second, 1, seed=2)
        first.start(1)
        second.start(1)
        outputs = [first.wait().copy(), second.wait().copy()]
        assert not np.array_equal(outputs[0], outputs[1])
        fill(first, 1, seed=2)
        first.start(1)
        np.testing.assert_allclose(first.wait(), outputs[1], rtol=1e-5, atol=1e-5)


def test_openvino_is_told_what_was_asked_for() -> None:
    engine = build(tiny_model(), tiny_spec(), "openvino", BuildOptions(threads=1))
    for lanes, hint in ((1, "LATENCY"), (2, "THROUGHPUT")):
        compiled = compile_plan(engine.plan, 2, lanes)
        assert compiled.get_property("INFERENCE_NUM_THREADS") == 2
        assert compiled.get_property("NUM_STREAMS") == lanes
        assert str(compiled.get_property("PERFORMANCE_HINT")).endswith(hint)
        assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"


def test_onnxruntime_uses_the_cores_it_was_given() -> None:
    assert 1 <= onnxruntime_runtime.available_threads() <= (os.cpu_count() or 1)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_missing_package_is_named(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = build(tiny_model(), tiny_spec(), backend, BuildOptions(threads=1))
    monkeypatch.setitem(sys.modules, backend, None)
    with pytest.raises(
        MissingPackageError, match=rf"needs the package {backend}, which is not installed.\nRun: pip install rtformer-deploy"
    ):
        open_engine(engine)
    with pytest.raises(MissingPackageError, match=f"needs the package {backend}"):
        build(tiny_model(), tiny_spec(), backend, BuildOptions(threads=1))


def test_the_command_that_rebuilds_names_the_batch(engine: Engine) -> None:
    assert rebuild_command(engine.info) == (
        f"rtformer-deploy build-engine MODEL.onnx --backend {engine.info.backend} --fp32 --min 1 --opt 1 --max 3"
    )


def test_waiting_for_nothing() -> None:
    session = WorkerSession((1, 3, 8, 8), "test")
    with pytest.raises(EngineError, match="Nothing was started"):
        session.wait()
    session.close()


def test_a_network_in_training_mode_is_refused() -> None:
    with pytest.raises(ModelError, match=r"training mode.*\n.*eval"):
        open_network(torch.nn.Conv2d(3, 5, 3), tiny_spec())


class Two(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x, x


def test_a_network_that_gives_two_things_is_refused() -> None:
    with (
        open_network(Two().eval(), tiny_spec(), threads=1) as runner,
        pytest.raises(ModelError, match="gives tuple; a runner needs one tensor"),
    ):
        runner.run(frames((64, 96)))


def test_channels_last_gives_the_same_logits() -> None:
    torch.manual_seed(0)
    network = torch.nn.Conv2d(3, 5, 8, stride=8).eval()
    given = frames((64, 96), (40, 40))
    with (
        open_network(network, tiny_spec(), batch=2, threads=1) as plain,
        open_network(network, tiny_spec(), batch=2, channels_last=True, threads=1) as last,
    ):
        np.testing.assert_allclose(plain.logits(given), last.logits(given), atol=1e-5)
