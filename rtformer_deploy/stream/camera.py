"""A camera of this machine as a live source, by its number."""

from __future__ import annotations

import functools
import re
import sys

from ..machine import require
from .live import LiveOptions, LiveSource

#: system -> FFmpeg's name for its cameras, and how camera N is called there. Tried on Linux with a made picture only.
_DEVICES = {"linux": ("video4linux2", "/dev/video{}"), "darwin": ("avfoundation", "{}"), "win32": ("vfwcap", "{}")}


def camera_source(number: int, options: LiveOptions | None = None) -> LiveSource:
    """Camera N of this machine -> a live source called cameraN. Raises MissingPackageError."""
    form, place = _DEVICES.get(sys.platform, _DEVICES["linux"])
    return device_source(place.format(number), form, f"camera {number}", f"camera{number}", options)


def device_source(place: str, form: str, text: str, name: str, options: LiveOptions | None = None) -> LiveSource:
    """What FFmpeg's input device `form` calls `place` -> a live source."""
    require("av", "video", f"Reading {text}")
    from .pyav import open_input

    options = options or LiveOptions()
    opener = functools.partial(open_input, place, text, form=form, timeout=(options.answer_s, options.answer_s))
    return LiveSource(text, name, opener, options)


def camera_number(text: str) -> int | None:
    """ "/dev/video2" or "2" -> 2; None if it is neither."""
    match = re.fullmatch(r"(?:/dev/video)?(\d{1,3})", text)
    return None if match is None else int(match[1])
