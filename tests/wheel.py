"""What an installed wheel must do, without torch and outside the checkout; cibuildwheel runs it on each platform.

    python tests/wheel.py

The compiled loops are there and give NumPy's bits, the recipes and kernels came along, and the commands take a small model to an engine and
to a label map.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = (64, 96)
SAID = ("--classes", "3", "--mean", "0,0,0", "--std", "1,1,1")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # the checkout must not be found
        check_loops()
        check_content()
        check_commands()
    print(f"rtformer-deploy works on Python {sys.version.split()[0]}")


def check_loops() -> None:
    from rtformer_deploy.image import native
    from rtformer_deploy.image.frames import upsample_argmax

    logits = np.random.default_rng(0).standard_normal((5, 8, 12)).astype(np.float32)
    assert native.available(), native.description()
    compiled = upsample_argmax(logits, SIZE, SIZE)
    native._module = None
    assert np.array_equal(upsample_argmax(logits, SIZE, SIZE), compiled)


def check_content() -> None:
    import rtformer_deploy
    from rtformer_deploy.content import content_dir
    from rtformer_deploy.formats.recipe import recipe_names

    assert "rtformer-slim-camvid" in recipe_names()
    assert (content_dir("models") / "rtformer-slim-camvid.safetensors.xz").is_file()
    assert list(content_dir("plugins").glob("*.cuh"))
    assert Path(rtformer_deploy.__file__ or "").with_name("py.typed").is_file()


def check_commands() -> None:
    onnx.save(small_model(), "small.onnx")
    cv2.imwrite("photograph.png", np.random.default_rng(1).integers(0, 256, (*SIZE, 3), np.uint8))
    for backend in ("onnxruntime", "openvino"):
        run("build-engine", "small.onnx", *SAID, "--backend", backend, "--output", f"{backend}.plan")
        run("segment", f"{backend}.plan", "photograph.png", "--output", backend)
        labels = cv2.imread(f"{backend}/photograph_labels.png", cv2.IMREAD_UNCHANGED)
        assert labels is not None
        assert labels.shape == SIZE, labels.shape
        assert labels.max() < 3


def run(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "rtformer_deploy", *arguments], check=True)


def small_model() -> onnx.ModelProto:
    """Three classes by one convolution, at an eighth of the input's size."""
    weight = np.random.default_rng(2).standard_normal((3, 3, 8, 8)).astype(np.float32)
    node = helper.make_node("Conv", ["input", "weight"], ["logits"], name="conv", strides=[8, 8], kernel_shape=[8, 8])
    frame = helper.make_tensor_value_info("input", TensorProto.FLOAT, (1, 3, *SIZE))
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, (1, 3, SIZE[0] // 8, SIZE[1] // 8))
    graph = helper.make_graph([node], "small", [frame], [logits], [numpy_helper.from_array(weight, "weight")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


if __name__ == "__main__":
    main()
