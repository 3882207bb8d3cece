"""FrameKernels: what it launches covers everything, what it cannot do it refuses by name; the tables of a frame's size."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from emulated_cuda import Cuda, gpu, prototypes
from kernel_calls import model_spec

from rtformer_deploy.backends.tensorrt import plugins
from rtformer_deploy.errors import EngineError, MissingPackageError, UsageError
from rtformer_deploy.image import frames as image
from rtformer_deploy.image.geometry import input_axes, output_axes, window
from rtformer_deploy.image.nv12 import yuv_factors
from rtformer_deploy.lanes import kernels as module
from rtformer_deploy.lanes.frame_tables import INPUT_TABLES, OUTPUT_TABLES
from rtformer_deploy.lanes.kernels import FrameKernels, check_flag, frame_tables, palette_bytes
from rtformer_deploy.types import TensorSpec

SPEC = model_spec((64, 96), (8, 12), 19, "letterbox")
LABELS = dataclasses.replace(SPEC, head="labels", output=TensorSpec("labels", (1, 64, 96), "uint8"))


class Recorder(Cuda):
    """Compiles nothing and keeps what is launched, held to the kernel's prototype."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root
        self.calls: list[tuple[str, Any, Any, dict[str, Any]]] = []
        self.compiled: list[str] = []

    def _object(self, source: Path, target: str) -> Any:
        self.compiled.append(source.stem)
        found = prototypes((self.root / "plugins" / source.name).read_text())
        return SimpleNamespace(get_kernel=found.__getitem__)

    def launch(self, stream: Any, config: Any, kernel: Any, *arguments: Any) -> None:
        self.calls.append((kernel.name, config.grid, config.block, dict(zip(kernel.names, arguments, strict=True))))


@pytest.fixture
def recorder(root: Path) -> Recorder:
    return Recorder(root)


def test_the_sources_constants_are_ours(root: Path) -> None:
    for form, (high, wide) in module.UPSAMPLE_FORMS.items():
        source = (root / "plugins" / f"{form}.cu").read_text()
        assert module._UPSAMPLE_THREADS == prototypes(source)[f"{form}_f32"].max_threads == 8 * 32
        (header,) = re.findall(r'#include "(.*)"', source)
        assert f"Tile = Tile<{high}, {wide}>;" in (root / "plugins" / header).read_text()
    assert module.UPSAMPLE_FORMS["upsample_argmax"] == (plugins._CELLS_HIGH, plugins._CELLS_WIDE)
    assert '#include "upsample_argmax_quarter.cuh"' in (root / "plugins" / "upsample_argmax_plugin.cu").read_text()
    assert f"kPixels = {module._OVERLAY_PIXELS};" in (root / "plugins" / "overlay.cu").read_text()
    assert f"kPixels = {module._NV12_PIXELS};" in (root / "plugins" / "nv12_to_rgb.cu").read_text()
    source = (root / "plugins" / "grouped_double_norm.cu").read_text()
    assert f"kMaxGroup = {module._NORM_MAX_GROUP};" in source
    assert prototypes(source)["grouped_double_norm_f16"].max_threads == module._NORM_THREADS


@pytest.mark.parametrize("name", ["preprocess", *module.UPSAMPLE_FORMS, "upsample_argmax_plugin", "grouped_double_norm"])
def test_the_kernels_of_two_types_differ_in_the_type_alone(root: Path, name: str) -> None:
    found = prototypes((root / "plugins" / f"{name}.cu").read_text())
    single, half = (found[f"{name}_{suffix}"] for suffix in ("f32", "f16"))
    assert single.names == half.names
    assert single.types == half.types


@pytest.mark.parametrize("size", [(1, 1), (63, 97), (1080, 1920)])
def test_the_tables_are_the_cpus(size: tuple[int, int]) -> None:
    tables = frame_tables(SPEC, size)
    assert tables.part == window(size, (64, 96), "letterbox")
    assert (tables.frame_bytes, tables.label_bytes) == (3 * size[0] * size[1], size[0] * size[1])

    def table(name: str, like: np.ndarray) -> np.ndarray:
        start = tables.offsets[name]
        assert start % 16 == 0
        return tables.blob[start : start + like.nbytes].view(like.dtype)

    rows, columns = input_axes(size, tables.part)
    for name, expected in zip(INPUT_TABLES, (rows.low, rows.weight, columns.low, columns.weight), strict=True):
        np.testing.assert_array_equal(table(name, expected), expected)
    rows, columns = output_axes((8, 12), size, (64, 96), "letterbox")
    for name, expected in zip(OUTPUT_TABLES, (rows.cells, rows.weight, columns.cells, columns.weight), strict=False):
        np.testing.assert_array_equal(table(name, expected), expected)
    cell = table("column_cell", np.empty(size[1], np.int32))
    assert (columns.cells[cell] <= np.arange(size[1])).all()
    assert (np.arange(size[1]) < columns.cells[cell + 1]).all()
    with pytest.raises(ValueError, match="read-only"):
        tables.blob[0] = 1


def test_tables_are_kept(recorder: Recorder) -> None:
    kernels = FrameKernels(recorder, recorder.gpu, SPEC)
    assert kernels.tables((30, 40)) is kernels.tables((30, 40))


def test_every_argument_goes_where_its_name_says(recorder: Recorder) -> None:
    kernels = FrameKernels(recorder, recorder.gpu, SPEC, "float16", "float16")
    tables = kernels.tables((100, 200))
    kernels.preprocess("s", 1 << 40, tables, 2 << 40, 3 << 40, index=2, count=3)
    kernels.upsample_argmax("s", 4 << 40, tables, 2 << 40, 5 << 40, 6 << 40, index=1, count=2)
    (first, grid, block, given), (second, cells, threads, labels) = recorder.calls
    assert (first, second) == ("preprocess_f16", "upsample_argmax_f16")
    assert grid == (3, 8, 3)
    assert block == (32, 8, 1)
    scale, bias = image.normalisation(SPEC.mean, SPEC.std)
    assert given == {
        "frames": 1 << 40,
        **{"height": 100, "width": 200, "out_height": 64, "out_width": 96, "top": 8, "left": 0, "rows": 48, "columns": 96},
        "out": (3 << 40) + 2 * 3 * 64 * 96 * 2,
        **{name: (2 << 40) + tables.offsets[name] for name in INPUT_TABLES},
        **{f"scale_{c}": scale[i] for i, c in enumerate("rgb")},
        **{f"bias_{c}": bias[i] for i, c in enumerate("rgb")},
    }
    assert cells == (1, 2, 2)
    assert threads == (256, 1, 1)
    weights = {"row_weight": "row_share", "column_weight": "column_share"}
    assert labels == {
        "logits": (4 << 40) + 19 * 8 * 12 * 2,
        **{"classes": 19, "height": 8, "width": 12, "out_height": 100, "out_width": 200},
        "labels": 5 << 40,
        **{name: (2 << 40) + tables.offsets[weights.get(name, name)] for name in list(labels)[7:12]},
        "flag": 6 << 40,
    }
    assert list(labels)[7:12] == ["row_cells", "row_weight", "column_cells", "column_weight", "column_cell"]


def test_a_decoders_picture_is_covered_and_every_argument_has_its_name(recorder: Recorder) -> None:
    kernels = FrameKernels(recorder, recorder.gpu, SPEC)
    factors = yuv_factors(1, full=False)
    kernels.nv12_to_rgb("s", module.Plane(1 << 40, 256), module.Plane(2 << 40, 512), (63, 97), factors, 3 << 40, turns=5)
    name, grid, block, given = recorder.calls[0]
    assert (name, grid, block) == ("nv12_to_rgb", (6, 1, 1), (256, 1, 1))
    assert 4 * 256 * grid[0] >= 63 * 97
    assert given == {
        **{"luma": 1 << 40, "luma_pitch": 256, "chroma": 2 << 40, "chroma_pitch": 512},
        **{"height": 63, "width": 97, "turns": 1, "out": 3 << 40},
        **{"luma_offset": factors.luma_offset, "luma_factor": factors.luma, "red_v": factors.red_v},
        **{"green_u": factors.green_u, "green_v": factors.green_v, "blue_u": factors.blue_u},
    }


def test_only_what_is_needed_is_compiled_and_once(recorder: Recorder) -> None:
    kernels = FrameKernels(recorder, recorder.gpu, LABELS, output_dtype="uint8")
    assert recorder.compiled == ["preprocess", "overlay"]
    for _ in range(2):
        kernels.double_norm("s", 1, 2, (1, 256, 2048), 8)
    assert recorder.compiled == ["preprocess", "overlay", "grouped_double_norm"]
    with pytest.raises(UsageError, match="--head labels"):
        kernels.upsample_argmax("s", 1, kernels.tables((9, 9)), 2, 3, 4)


@pytest.mark.parametrize(("positions", "groups"), [(1, 1), (2048, 8), (8192, 8), (8192, 300), (100_000, 1)])
def test_the_slices_cover_every_position_and_fill_the_gpu_once(recorder: Recorder, positions: int, groups: int) -> None:
    kernels = FrameKernels(recorder, gpu(132), SPEC)
    kernels.double_norm("s", 1, 2, (1, groups * 4, positions), groups)
    _, grid, _, given = recorder.calls[0]
    assert grid[0] * given["slice"] >= positions > (grid[0] - 1) * given["slice"]
    assert grid[0] == 1 or grid[0] * groups <= 132
    most = min(132 // groups, -(-positions // 32))  # a warp reads 32 positions together; one more slice a group would be a second round
    assert grid[0] >= most - most // 8, "multiprocessors are idle"  # equal slices do not always come out even
    assert grid[1] == groups
    assert given["size"] == 4


def test_what_it_cannot_do_it_refuses(recorder: Recorder) -> None:
    kernels = FrameKernels(recorder, recorder.gpu, SPEC)
    with pytest.raises(UsageError, match="float32 and float16, not int8"):
        FrameKernels(recorder, recorder.gpu, SPEC, "int8")
    with pytest.raises(EngineError, match="1 to 256 classes"):
        FrameKernels(recorder, recorder.gpu, model_spec((64, 96), (8, 12), 257))
    with pytest.raises(UsageError, match="0 to 1"):
        kernels.overlay("s", 1, 2, 3, 19, 4, (5, 6), alpha=1.5)
    with pytest.raises(UsageError, match="10 channels do not fall into 3 groups"):
        kernels.double_norm("s", 1, 2, (1, 10, 5), 3)
    with pytest.raises(UsageError, match="of at most 2048"):
        kernels.double_norm("s", 1, 2, (1, 2049, 5), 1)
    check_flag(0)
    with pytest.raises(EngineError, match="not finite"):
        check_flag(1)
    assert recorder.calls == []


def test_the_palette_has_a_colour_for_every_byte() -> None:
    labels = np.arange(256, dtype=np.uint8)[None]
    assert palette_bytes(SPEC.palette) == image.colourize(labels, SPEC.palette).tobytes()


def test_a_source_that_does_not_compile_says_so_in_nvrtcs_words(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(source: Path, target: str) -> Any:
        raise RuntimeError("overlay.cu(1): error: identifier")

    monkeypatch.setattr(recorder, "_object", fail)
    with pytest.raises(EngineError, match=r"preprocess\.cu for sm_90: overlay\.cu\(1\): error: identifier"):
        FrameKernels(recorder, recorder.gpu, SPEC)


def test_without_nvrtc_the_extra_is_named(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = type("DynamicLibNotFoundError", (RuntimeError,), {})

    def fail(source: Path, target: str) -> Any:
        raise missing("libnvrtc.so.13")

    monkeypatch.setattr(recorder, "_object", fail)
    with pytest.raises(MissingPackageError, match="nvidia-cuda-nvrtc") as raised:
        FrameKernels(recorder, recorder.gpu, SPEC)
    assert raised.value.extra == "gpu"


def test_pathfinders_error_has_the_name_we_look_for() -> None:
    pathfinder = pytest.importorskip("cuda.pathfinder")
    assert pathfinder.DynamicLibNotFoundError.__name__ == "DynamicLibNotFoundError"
