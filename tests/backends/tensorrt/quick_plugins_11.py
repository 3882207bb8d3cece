"""Run with NVIDIA's TensorRT 11.4 Python part on the path: registers the quick plugins, asks them for their launches as TensorRT would, and
runs what they name under the emulation. Prints "equal" for each.

TensorRT itself never calls them here, so its expressions of shapes are numbers of ours.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import tensorrt as trt

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


class Number:
    """An IDimensionExpr that is known."""

    def __init__(self, value: int) -> None:
        self.value = value

    def is_constant(self) -> bool:
        return True

    def get_constant_value(self) -> int:
        return self.value


class Builder:
    """An IExprBuilder of known numbers."""

    def constant(self, value: int) -> Number:
        return Number(value)

    def operation(self, op: Any, a: Number, b: Number) -> Number:
        work = {"SUM": lambda: a.value + b.value, "PROD": lambda: a.value * b.value, "CEIL_DIV": lambda: -(-a.value // b.value)}
        return Number(work[op.name]())


trt.IDimensionExpr = Number
sys.modules["tensorrt.plugin"] = importlib.import_module("tensorrt_bindings.plugin")
plugin: Any = sys.modules["tensorrt.plugin"]
tensor_module = importlib.import_module("tensorrt_bindings.plugin._tensor")
library = importlib.import_module("tensorrt_bindings.plugin._lib")

from emulated_cuda import Cuda, prototypes  # noqa: E402
from kernel_calls import HostMemory, bytes_of  # noqa: E402

from rtformer_deploy.backends.tensorrt import plugins as trt_plugins  # noqa: E402
from rtformer_deploy.content import content_dir  # noqa: E402
from rtformer_deploy.image import frames as image  # noqa: E402
from rtformer_deploy.image.geometry import output_axes  # noqa: E402

cuda = Cuda()
capability = SimpleNamespace(major=9, minor=0)
fake = SimpleNamespace(Device=lambda: SimpleNamespace(compute_capability=capability))
trt_plugins._import_cuda = lambda: fake
compiled: list[tuple[str, str, str]] = []


def compile_kernel_file(module: Any, name: str, arch: str, target: str) -> Any:
    compiled.append((name, arch, target))
    return SimpleNamespace(code=f".version 9.5\nPTX of {name}".encode())


vars(trt_plugins)["compile_kernel_file"] = compile_kernel_file
vars(trt_plugins)["gpus"] = lambda: (SimpleNamespace(driver="13.0"),)


def describe(shape: tuple[int, ...], dtype: Any) -> Any:
    expressions = plugin.ShapeExprs(len(shape))
    for index, extent in enumerate(shape):
        expressions[index] = tensor_module.ShapeExpr(Number(extent))
    return tensor_module.TensorDesc(expressions, dtype)


def run(name: str, inputs: list[np.ndarray], attributes: dict[str, int]) -> np.ndarray:
    """What the plugin launches, with its arguments in TensorRT's order: inputs, numbers, outputs."""
    tensor_module.SymIntExpr._exprBuilder = Builder()
    types = {"float32": trt.float32, "float16": trt.float16, "int32": trt.int32}
    descriptions = [describe(array.shape, types[array.dtype.name]) for array in inputs]
    definition = library.QDP_REGISTRY[f"rtformer::{name}"]
    output = definition.register_func(*descriptions, **attributes)
    shape = tuple(extent._expr.value for extent in output.shape_expr)
    dtype = {trt.float32: np.float32, trt.float16: np.float16, trt.uint8: np.uint8}[output.dtype]
    combinations = [
        comb for tuned in definition.autotune_func(*descriptions, **attributes, outputs=(output,)) for comb in tuned._get_combinations()
    ]
    assert [*(d.dtype for d in descriptions), output.dtype] in [comb.types for comb in combinations]

    kernel, ptx, launch, numbers = definition.aot_impl_func(*descriptions, *attributes.values(), [output], 0)
    version, text = ptx.decode().splitlines()
    assert version == ".version 9.0", "the driver's"
    source = text.removeprefix("PTX of ")
    assert isinstance(launch, plugin.KernelLaunchParams)
    assert isinstance(numbers, tensor_module.SymExprs)
    assert all(isinstance(number, tensor_module.SymInt32) for number in numbers)
    options = {"name": f"{source}.cu", "arch": "sm_90", "fma": False, "include_path": [str(content_dir("plugins"))]}
    text = (content_dir("plugins") / f"{source}.cu").read_text()
    assert kernel in prototypes(text)
    found = cuda.Program(text, "c++", options).compile("cubin").get_kernel(kernel)
    dims = {f"{part}_{axis}": getattr(launch, f"{part}_{axis}")._expr.value for part in ("grid", "block") for axis in "xyz"}
    memory = HostMemory()
    result = np.zeros(shape, dtype)
    target = memory.put(bytes_of(result))
    arguments = [*(memory.put(bytes_of(array)) for array in inputs), *(np.int32(number._expr.value) for number in numbers), target]
    config = cuda.LaunchConfig(tuple(dims[f"grid_{a}"] for a in "xyz"), tuple(dims[f"block_{a}"] for a in "xyz"))
    cuda.launch("s", config, found, *arguments)
    return memory.get(target, result.nbytes).view(dtype).reshape(shape)


trt_plugins.register_quick_plugins(trt)
trt_plugins.register_quick_plugins(trt)  # a second engine in one process
rng = np.random.default_rng(0)
for dtype in (np.float32, np.float16):
    x = rng.standard_normal((2, 24, 9, 130)).astype(dtype)
    grouped = np.exp(x.astype(np.float64)).reshape(2, 3, 8, -1)
    grouped /= grouped.sum(3, keepdims=True)
    expected = (grouped / (grouped.sum(2, keepdims=True) + 1e-6)).reshape(x.shape)
    given = run("GroupedDoubleNorm", [x], {"groups": 3, "group_size": 8})
    np.testing.assert_allclose(
        given, expected, rtol=2**-11 + 2e-5 if dtype == np.float16 else 2e-5, atol=2**-25 if dtype == np.float16 else 0
    )
    print("equal")

    logits = rng.standard_normal((2, 5, 8, 12)).astype(dtype)
    rows, columns = output_axes((8, 12), (64, 96), (64, 96), "stretch")
    cell = np.repeat(np.arange(13, dtype=np.int32), np.diff(columns.cells))
    tables = [rows.cells, rows.weight, columns.cells, columns.weight, cell]
    labels = run("UpsampleArgmax", [logits, *tables], {"height": 64, "width": 96})
    for one, values in zip(labels, logits.astype(np.float32), strict=True):
        np.testing.assert_array_equal(one, image.upsample_argmax(values, (64, 96), (64, 96)))
    print("equal")
assert {target for _, _, target in compiled} == {"ptx"}
