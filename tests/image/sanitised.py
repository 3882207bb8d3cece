"""Drives the compiled loops, seeded, for a run under sanitisers: frames of many sizes against NumPy, and calls that do not fit.

A script: its argument is the folder of a `_native` that was compiled with sanitisers. It prints how many calls it made; the sanitisers
end the process with their report if one of them is wrong.
"""

from __future__ import annotations

import contextlib
import importlib.util
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np

SIZES = (-(2**31), -1, 0, 1, 2, 3, 7, 64, 2**28, 2**28 + 1, 2**30, 2**31 - 3, 2**31 - 1)


def load(folder: Path) -> Any:
    (path,) = folder.glob("_native*.so")
    spec = importlib.util.spec_from_file_location("rtformer_deploy.image._native", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules["rtformer_deploy.image._native"] = module
    return module


def proper_calls(module: Any, rng: random.Random) -> int:
    """Frames and grids of random sizes through the public functions, compiled and in NumPy."""
    from rtformer_deploy.image import frames as image
    from rtformer_deploy.image import native
    from rtformer_deploy.image.confidence import confidence_map
    from rtformer_deploy.image.outlines import outlines
    from rtformer_deploy.types import IMAGENET_MEAN, IMAGENET_STD, Resize

    layouts: tuple[Resize, ...] = ("stretch", "letterbox")
    assert id(native._module) == id(module), "the sanitised code is not the one that is used"
    calls = 0
    for index in range(60):
        module.limit_instruction_set(index % 3)
        draw = np.random.default_rng(index)
        classes, size = rng.choice([1, 2, 19, 256]), (rng.randint(1, 24), rng.randint(1, 40))
        logits = draw.standard_normal((classes, *size)).astype(np.float32)
        engine = (size[0] * 8, size[1] * 8)
        frame = draw.integers(0, 256, (rng.randint(1, 200), rng.randint(1, 200), 3), np.uint8)
        resize, corners = rng.choice(layouts), index % 4 > 1
        threads = rng.randint(1, 4)
        sure = confidence_map(logits, frame.shape[:2], engine, resize, corners=corners, threads=threads)
        map_of_few = draw.integers(0, rng.randint(1, 4), frame.shape[:2], np.uint8)
        rings = native.outlines(map_of_few, index % 2 == 0)
        given = image.upsample_argmax(logits, frame.shape[:2], engine, resize, corners=corners, threads=threads)
        ready = image.preprocess(frame, engine, IMAGENET_MEAN, IMAGENET_STD, resize, corners=corners, threads=threads)
        native._module = None
        np.testing.assert_array_equal(given, image.upsample_argmax(logits, frame.shape[:2], engine, resize, corners=corners))
        np.testing.assert_array_equal(ready, image.preprocess(frame, engine, IMAGENET_MEAN, IMAGENET_STD, resize, corners=corners))
        np.testing.assert_array_equal(sure, confidence_map(logits, frame.shape[:2], engine, resize, corners=corners))
        assert rings == outlines(map_of_few, index % 2 == 0)
        native._module = module
        calls += 4 + copies(native, frame[rng.randrange(len(frame)) :: rng.choice((1, 1, 2, -1))], threads)
    return calls + copies(native, np.random.default_rng(0).integers(0, 256, (700, 1999, 3), np.uint8), 3)


def copies(native: Any, frame: Any, threads: int) -> int:
    """Copies a frame, whose rows are contiguous, to memory that begins anywhere."""
    for offset in (0, 5):
        target = np.zeros(offset + frame.size, np.uint8)[offset:]
        native.copy_rows(frame, target, threads)
        np.testing.assert_array_equal(target.reshape(frame.shape), frame)
    return 2


def odd_value(rng: random.Random, value: Any) -> Any:
    """Something else in the place of an argument: another size, or a buffer that is shorter, longer, misaligned, odd inside."""
    if not isinstance(value, np.ndarray):
        return rng.choice(SIZES)
    kind = rng.randrange(6)
    if kind == 0:
        return value.reshape(-1)[: rng.randrange(value.size + 1)].copy()
    if kind == 1:
        return np.resize(value, value.size + rng.randint(1, 9))
    if kind == 2:
        return np.frombuffer(bytearray(value.nbytes + 1), np.uint8)[1:]
    if kind == 3:
        return value.reshape(-1)[::-1]
    if kind == 4 and value.dtype == np.int32:
        return np.array([rng.choice(SIZES) for _ in range(value.size)], np.int64).clip(-(2**31), 2**31 - 1).astype(np.int32)
    if value.dtype == np.float32:
        return np.full_like(value, rng.choice([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45]))
    return value.copy()


def odd_calls(module: Any, rng: random.Random, count: int) -> int:
    """Right calls with one to three arguments replaced: refused, or done within the buffers."""
    from rtformer_deploy.image.geometry import corner_axis, output_axes

    rows, columns = output_axes((4, 5), (32, 40), (32, 40), "stretch")
    finer = corner_axis(4, 6), corner_axis(5, 8)
    for index in range(count):
        module.limit_instruction_set(index % 3)
        labels, out = np.zeros((32, 40), np.uint8), np.zeros((3, 4, 6), np.float32)
        grid = np.random.default_rng(index).standard_normal((3, 4, 5)).astype(np.float32)
        upsample = [grid, 3, 4, 5, labels, 32, 40, rows.cells, rows.weight, columns.cells, columns.padded_weight, 2]
        low, weight = np.array([0, 1, 2, 3, 4, 7], np.int32), np.linspace(0, 1, 6, dtype=np.float32)
        frame = np.ones((8, 9, 3), np.uint8)
        preprocess = [frame, 8, 9, out, 4, 6, 0, 0, 4, 6, low[:4], weight[:4], low, weight, (1.0, 1.0, 1.0), (2.0, 2.0, 2.0), 2]
        levels = np.zeros((32, 40), np.uint8)
        confidence = [grid, 3, 4, 5, levels, 32, 40, rows.cells, rows.weight, columns.low, columns.high, columns.weight, 2]
        large = np.zeros((3, 6, 8), np.float32)
        interpolate: list[Any] = [grid, 3, 4, 5, large, 6, 8, *(table for axis in finer for table in (axis.low, axis.high, axis.weight)), 2]
        functions: list[tuple[Any, list[Any]]] = [(module.upsample_argmax, upsample), (module.preprocess, preprocess)]
        functions += [(module.confidence, confidence), (module.outlines, [labels, 32, 40, 1]), (module.interpolate, interpolate)]
        functions.append((module.copy_rows, [frame, np.zeros(frame.size, np.uint8), 2]))
        function, arguments = rng.choice(functions)
        for at in rng.sample(range(len(arguments)), rng.randint(1, 3)):
            if not isinstance(arguments[at], tuple):
                arguments[at] = odd_value(rng, arguments[at])
        with contextlib.suppress(ValueError, BufferError, OverflowError, MemoryError):
            function(*arguments)
    return count


if __name__ == "__main__":
    native = load(Path(sys.argv[1]))
    for limit in (-1, -(2**31)):
        try:
            native.limit_instruction_set(limit)
        except ValueError:
            continue
        raise AssertionError("a negative limit was taken")
    source = random.Random(0)
    print(proper_calls(native, source) + odd_calls(native, source, 3000), "calls")
