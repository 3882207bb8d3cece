"""A frame's bytes in other memory, by the native code in threads or by NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import frames

from rtformer_deploy.image import copies, native
from rtformer_deploy.image.copies import copy_frame

WAYS = [pytest.param(True, marks=pytest.mark.skipif(not native.available(), reason="there is no native code")), False]
ROWS = [np.s_[:], np.s_[3:40], np.s_[::-1], np.s_[::3], np.s_[:1]]
PARTS = [*ROWS, np.s_[:, 5:60], np.s_[:, ::2], np.s_[:, :1], np.s_[4:5, 9:10], np.s_[:, :, ::-1]]


@pytest.mark.parametrize("in_native_code", WAYS)
@pytest.mark.parametrize("part", PARTS, ids=str)
def test_every_view_of_a_frame_is_copied_whole(part: Any, in_native_code: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "available", lambda: in_native_code)
    (frame,) = frames((50, 70))
    frame.flags.writeable = False
    view = frame[part]
    room = np.full(view.size + 2, 7, np.uint8)
    copy_frame(view, room[1:-1], 2)
    np.testing.assert_array_equal(room[1:-1].reshape(view.shape), view)
    assert room[0] == room[-1] == 7


@pytest.mark.skipif(not native.available(), reason="there is no native code")
@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_large_frames_are_shared_out_among_threads(threads: int) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (1237, 2001, 3), np.uint8)
    for view in (frame, frame[:, 11:1900], frame[::-1]):
        target = np.zeros(view.shape, np.uint8)
        native.copy_rows(view, target, threads)
        np.testing.assert_array_equal(target, view)


@pytest.mark.skipif(not native.available(), reason="there is no native code")
@pytest.mark.parametrize("offset", [0, 1, 31, 63])
def test_what_is_stored_past_the_caches_begins_and_ends_anywhere(offset: int) -> None:
    frame = np.random.default_rng(1).integers(0, 256, (1, 100_003, 3), np.uint8)
    room = np.full(frame.size + 128, 7, np.uint8)
    native.copy_rows(frame, room[offset : offset + frame.size], 1)
    np.testing.assert_array_equal(room[offset : offset + frame.size], frame.reshape(-1))
    assert (room[:offset] == 7).all()
    assert (room[offset + frame.size :] == 7).all()


@pytest.mark.parametrize(("usable", "used"), [(1, 1), (3, 3), (64, 4)])
def test_copies_use_a_few_threads_at_most(usable: int, used: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert copies.copy_threads(usable) == used
    monkeypatch.setattr(native, "usable_threads", lambda threads: usable)
    assert copies.copy_threads() == used


@pytest.mark.skipif(not native.available(), reason="there is no native code")
@pytest.mark.parametrize(
    ("source", "target", "threads"),
    [
        (np.zeros((4, 5, 3), np.uint8), np.zeros(59, np.uint8), 1),
        (np.zeros((4, 5, 3), np.uint8), np.zeros(61, np.uint8), 1),
        (np.zeros((4, 5, 3), np.uint8)[:, ::2], np.zeros(36, np.uint8), 1),
        (np.zeros((0, 5, 3), np.uint8), np.zeros(0, np.uint8), 1),
        (np.zeros((4, 5, 3), np.uint8), np.zeros(60, np.uint8), 0),
        (np.uint8(3), np.zeros(1, np.uint8), 1),
    ],
)
def test_the_native_code_refuses_what_does_not_fit(source: Any, target: Any, threads: int) -> None:
    with pytest.raises(ValueError, match=r"rows of contiguous bytes|another size"):
        native.copy_rows(source, target, threads)


@pytest.mark.skipif(not native.available(), reason="there is no native code")
def test_the_native_code_writes_to_no_memory_that_is_read_only() -> None:
    target = np.zeros(60, np.uint8)
    target.flags.writeable = False
    with pytest.raises((ValueError, BufferError), match=r"read-only|not writable|not writeable"):
        native.copy_rows(np.ones((4, 5, 3), np.uint8), target, 1)
