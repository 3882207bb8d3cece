"""The quick plugins: NVIDIA's own Python part takes them, what they would launch is right, and without it the message says so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from emulated_cuda import COMPILER
from exports import exported

from rtformer_deploy.backends.tensorrt.plugins import register_quick_plugins
from rtformer_deploy.errors import BuildError, MissingPackageError
from rtformer_deploy.pipeline import prepare_model
from rtformer_deploy.types import BuildOptions, PrecisionName

SCRIPT = Path(__file__).with_name("quick_plugins_11.py")
TRT = SimpleNamespace(__version__="10.3.0")


@pytest.mark.skipif(COMPILER is None, reason="needs g++ or clang++")
def test_nvidias_python_part_takes_them_and_their_launches_give_the_reference(tensorrt_11: Path, root: Path) -> None:
    environment = os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{tensorrt_11}"}
    done = subprocess.run([sys.executable, str(SCRIPT)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-4:] == ["equal"] * 4


def test_a_tensorrt_without_them_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt.plugin", None)
    with pytest.raises(BuildError, match=r"10\.3\.0 has no tensorrt\.plugin"):
        register_quick_plugins(TRT)
    monkeypatch.setitem(sys.modules, "tensorrt", ModuleType("tensorrt"))
    monkeypatch.setitem(sys.modules, "tensorrt.plugin", ModuleType("tensorrt.plugin"))
    with pytest.raises(BuildError, match="no ahead-of-time plugins"):
        register_quick_plugins(TRT)


def test_without_cuda_core_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("tensorrt.plugin")
    vars(module)["aot_impl"] = None
    monkeypatch.setitem(sys.modules, "tensorrt", ModuleType("tensorrt"))
    monkeypatch.setitem(sys.modules, "tensorrt.plugin", module)
    monkeypatch.setitem(sys.modules, "cuda.core", None)
    with pytest.raises(MissingPackageError, match=r"rtformer-deploy\[gpu\]"):
        register_quick_plugins(TRT)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_nodes_of_a_model_that_gives_labels(precision: PrecisionName) -> None:
    model = exported(head="labels").model
    prepared = prepare_model(model, "tensorrt", BuildOptions(precision=precision, plugins=True))
    ours = [node for node in prepared.graph if node.domain == "rtformer"]
    assert [node.op_type for node in ours] == ["GroupedDoubleNorm"] * 2 + ["UpsampleArgmax"]
    for node in ours:
        assert node.attributes["plugin_namespace"].as_string() == "rtformer"
        assert node.attributes["plugin_version"].as_string() == "1"
    assert not prepared.functions
    assert prepared.opset_imports["rtformer"] == 1
    assert not {"head/Resize", "head/ArgMax", "head/Cast"} & {node.name for node in prepared.graph}
    head = ours[-1]
    types = [str(value.dtype) for value in head.inputs if value is not None]
    assert types == ["FLOAT16" if precision == "fp16" else "FLOAT", *["INT32", "FLOAT"] * 2, "INT32"]
    assert (head.attributes["height"].as_int(), head.attributes["width"].as_int()) == (128, 256)
    outputs = [(value.name, str(value.dtype), list(value.shape or ())) for value in prepared.graph.outputs]
    assert outputs == [("labels", "UINT8", [1, 128, 256])]
    half = [str(value.dtype) for value in (node.inputs[0] for node in ours[:-1]) if value is not None]
    assert half == ["FLOAT16" if precision == "fp16" else "FLOAT"] * 2


def test_no_other_builder_gets_them() -> None:
    model = exported().model
    for backend in ("tensorrt-rtx", "openvino", "onnxruntime"):
        prepared = prepare_model(model, backend, BuildOptions(plugins=True))
        assert all(node.domain != "rtformer" for node in prepared.graph)
