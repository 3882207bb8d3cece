"""The stand-in engine without a GPU: its kernels compile, its classes are TensorRT's in part, and its network is worth comparing with."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from smooth_frames import frames
from standin_engine import FOLDER, LAYERS, StandinContext
from standin_network import CHANNELS, MOST, STRIDE, scores, standin_info, standin_labels, standin_output

from rtformer_deploy.nvidia.nvrtc import compile_kernel_file

SIZE = (64, 96)


@pytest.mark.parametrize("arch", ["75", "90", "120"])
def test_its_kernels_compile(arch: str) -> None:
    cuda = pytest.importorskip("cuda.core", reason="needs cuda-core with its bindings", exc_type=ImportError)
    assert len(bytes(compile_kernel_file(cuda, "standin", arch, folder=FOLDER).code)) > 1000


def test_both_have_the_same_numbers() -> None:
    source = (FOLDER / "standin.cu").read_text()
    assert f"kChannels = {CHANNELS}, kStride = {STRIDE};" in source
    assert f"kMost = 1 << {MOST.bit_length() - 1};" in source


def test_what_it_calls_tensorrts_is() -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx", exc_type=ImportError)
    own = {name for name in vars(StandinContext) if not name.startswith("_")}
    assert own <= set(dir(trt.IExecutionContext))
    assert hasattr(trt.ICudaEngine, "create_execution_context")


def test_its_logits_are_whole_numbers_that_a_float_holds() -> None:
    """The largest that its input can give, in both directions."""
    for value in (-100.0, 100.0):
        found = scores(np.full((1, 3, *SIZE), value, np.float32), 19, 6)
        assert np.abs(found).max() < 2**24


def test_every_pixel_of_the_input_counts_and_a_layer_reaches_its_neighbours() -> None:
    info = standin_info(SIZE)
    rng = np.random.default_rng(0)
    images = rng.standard_normal((1, 3, *SIZE)).astype(np.float32)
    before = standin_output(images, info, LAYERS)
    for place in ((0, 0, 0), (1, 33, 50), (2, 63, 95)):
        changed = images.copy()
        changed[(0, *place)] += 1
        cells = np.argwhere((standin_output(changed, info, LAYERS) != before).any((0, 1)))
        assert len(cells) > 1
        assert np.abs(cells - np.array(place[1:]) // STRIDE).max() <= LAYERS


def test_frames_have_many_classes_and_differ() -> None:
    info = standin_info(SIZE)
    maps = [standin_labels(frames(SIZE, seed=seed)[0], info, LAYERS) for seed in range(3)]
    assert all(len(np.unique(labels)) > 5 for labels in maps)
    assert not np.array_equal(maps[0], maps[1])


def test_the_labels_head_is_the_argmax_of_the_logits() -> None:
    images = np.random.default_rng(1).standard_normal((2, 3, *SIZE)).astype(np.float32)
    labels = standin_output(images, standin_info(SIZE, batch=(1, 1, 2), head="labels"), LAYERS)
    logits = standin_output(images, standin_info(SIZE, batch=(1, 1, 2)), LAYERS)
    np.testing.assert_array_equal(labels[:, ::8, ::8], logits.argmax(1))


COLLECT = """
import sys
import pytest

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
raise SystemExit(pytest.main(["tests/gpu", "--collect-only", "-q", "-p", "no:cacheprovider"]))
"""
#: What a GPU machine without network need not have: everything that the project depends on but what tests/gpu/README.md names.
NOT_NEEDED = "onnx,onnx_ir,ml_dtypes,onnxruntime,onnxsim,onnxscript,openvino,tomlkit,rich,click,safetensors,psutil,cv2,av,tensorrt_rtx"


def test_the_gpus_tests_are_found_without_most_packages(root: Path) -> None:
    """One that cannot be imported would end the whole run."""
    done = subprocess.run([sys.executable, "-c", COLLECT, NOT_NEEDED], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_lanes_gpu.py::test_frames_through_four_lanes_and_four_threads[standin-fp16]" in done.stdout


def test_the_gpus_readme_names_what_is_there(root: Path) -> None:
    text = (root / "tests" / "gpu" / "README.md").read_text()
    rows = set(re.findall(r"^\| `(test_\w+\.py)`", text, re.MULTILINE))
    assert rows == {path.name for path in (root / "tests" / "gpu").glob("test_*.py")}
    for path in re.findall(r"`((?:tests|benchmarks)/[\w./]+\.\w+)`", text):
        assert (root / path).is_file(), path
