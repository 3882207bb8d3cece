"""Standard TensorRT's quick plugins for two kernels of plugins/, compiled ahead of time. NEVER RUN so far: off unless asked for.

    rtformer::GroupedDoubleNorm  x (N, C, H, W) -> the same; attributes `groups`, `group_size`
    rtformer::UpsampleArgmax     logits (N, C, h, w) and five tables of geometry.Axis -> labels (N, height, width) uint8

graph/quick_plugins.py makes the nodes. A plan holds the kernels' PTX (TensorRT takes no cubin), so opening it
needs none of this. Checked so far: NVIDIA's Python part accepts the registrations and the launch parameters, and the kernels take
their arguments in TensorRT's order. It is not known whether TensorRT accepts uint8 from a plugin.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from ...errors import BuildError, MissingPackageError
from ...nvidia.driver import gpus
from ...nvidia.nvrtc import compile_kernel_file, ptx_for_driver

DOMAIN = "rtformer"
#: As in plugins/: positions that a block of grouped_double_norm.cu writes, and the block of upsample_argmax_quarter.cuh.
_NORM_THREADS = 1024
_UPSAMPLE_THREADS, _CELLS_HIGH, _CELLS_WIDE = 256, 7, 31
_TABLES = ("row_cells", "row_weight", "column_cells", "column_weight", "column_cell")

#: A kernel file and "f32" or "f16" -> PTX for the GPU that is current.
Compile = Callable[[str], bytes]


def register_quick_plugins(trt: Any) -> None:
    """Registers both plugins with the module `tensorrt`; a second call does nothing.

    Raises BuildError if this TensorRT has no ahead-of-time plugins (10.16 does, 10.3 does not), MissingPackageError without
    cuda-core.
    """
    trtp = _plugin_module(trt)
    cuda = _import_cuda()

    def ptx(name: str) -> bytes:
        capability = cuda.Device().compute_capability
        code = bytes(compile_kernel_file(cuda, name, f"{capability.major}{capability.minor}", "ptx").code)
        return ptx_for_driver(code, gpus()[0].driver)  # one driver runs all GPUs

    if not hasattr(getattr(trtp.op, DOMAIN, None), "GroupedDoubleNorm"):
        _register_double_norm(trt, trtp, ptx)
        _register_upsample_argmax(trt, trtp, ptx)


def _register_double_norm(trt: Any, trtp: Any, ptx: Compile) -> None:
    name = f"{DOMAIN}::GroupedDoubleNorm"

    def describe(x, groups, group_size):  # type: ignore[no-untyped-def]
        return x.like()

    def tune(x, groups, group_size, outputs):  # type: ignore[no-untyped-def]
        return [trtp.AutoTuneCombination("FP32|FP16, FP32|FP16", "LINEAR")]

    def implement(x, groups, group_size, outputs, tactic):  # type: ignore[no-untyped-def]
        images, _, height, width = x.shape_expr
        positions = height * width
        launch = trtp.KernelLaunchParams()
        launch.grid_x, launch.grid_y = trtp.cdiv(positions, _NORM_THREADS), images * groups
        launch.block_x = _NORM_THREADS
        numbers = _numbers(trtp, group_size, positions, _NORM_THREADS)
        return f"grouped_double_norm_{_suffix(trt, x)}", ptx("grouped_double_norm"), launch, numbers

    attributes = {"groups": int, "group_size": int}
    _register(trtp, name, describe, tune, implement, {"x": trtp.TensorDesc, **attributes})


def _register_upsample_argmax(trt: Any, trtp: Any, ptx: Compile) -> None:
    name = f"{DOMAIN}::UpsampleArgmax"

    def describe(logits, row_cells, row_weight, column_cells, column_weight, column_cell, height, width):  # type: ignore[no-untyped-def]
        return trtp.from_shape_expr((logits.shape_expr[0], height, width), trt.DataType.UINT8)

    def tune(logits, row_cells, row_weight, column_cells, column_weight, column_cell, height, width, outputs):  # type: ignore[no-untyped-def]
        return [trtp.AutoTuneCombination("FP32|FP16, INT32, FP32, INT32, FP32, INT32, UINT8", "LINEAR")]

    def implement(  # type: ignore[no-untyped-def]
        logits, row_cells, row_weight, column_cells, column_weight, column_cell, height, width, outputs, tactic
    ):
        images, classes, rows, columns = logits.shape_expr
        launch = trtp.KernelLaunchParams()
        launch.grid_x, launch.grid_y = trtp.cdiv(columns + 1, _CELLS_WIDE), trtp.cdiv(rows + 1, _CELLS_HIGH)
        launch.grid_z, launch.block_x = images, _UPSAMPLE_THREADS
        numbers = _numbers(trtp, classes, rows, columns, height, width)
        return f"upsample_argmax_plugin_{_suffix(trt, logits)}", ptx("upsample_argmax_plugin"), launch, numbers

    tensors = dict.fromkeys(("logits", *_TABLES), trtp.TensorDesc)
    _register(trtp, name, describe, tune, implement, {**tensors, "height": int, "width": int})


def _register(
    trtp: Any, name: str, describe: Callable[..., Any], tune: Callable[..., Any], implement: Callable[..., Any], types: dict[str, Any]
) -> None:
    """Registers one plugin; TensorRT reads the types of arguments and results from annotations with its own classes."""
    describe.__annotations__ = {**types, "return": trtp.TensorDesc}
    tune.__annotations__ = {**types, "outputs": tuple[trtp.TensorDesc], "return": list[trtp.AutoTuneCombination]}
    result = tuple[str, bytes, trtp.KernelLaunchParams, trtp.SymExprs]
    implement.__annotations__ = {**types, "outputs": tuple[trtp.TensorDesc], "tactic": int, "return": result}
    trtp.register(name)(describe)
    trtp.autotune(name)(tune)
    trtp.aot_impl(name)(implement)


def _numbers(trtp: Any, *values: Any) -> Any:
    """Ints and symbolic ints -> the kernel's int arguments."""
    numbers = trtp.SymIntExprs(len(values))
    for index, value in enumerate(values):
        numbers[index] = trtp.SymInt32(value)
    return numbers


def _suffix(trt: Any, tensor: Any) -> str:
    return "f16" if tensor.dtype == trt.DataType.HALF else "f32"


def _plugin_module(trt: Any) -> Any:
    try:
        trtp = importlib.import_module("tensorrt.plugin")
    except ImportError as error:
        raise BuildError(f"tensorrt {trt.__version__} has no tensorrt.plugin, which --plugins needs.", "Leave --plugins out.") from error
    if not hasattr(trtp, "aot_impl"):
        raise BuildError(f"tensorrt {trt.__version__} has no ahead-of-time plugins, which --plugins needs.", "Leave --plugins out.")
    return trtp


def _import_cuda() -> Any:
    try:
        return importlib.import_module("cuda.core")
    except ImportError as error:
        raise MissingPackageError("cuda-core", "gpu", "--plugins") from error
