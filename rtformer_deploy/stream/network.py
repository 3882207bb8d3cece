"""RTSP, HTTP and the like as a source: live, unless an HTTP address gives a video with a length, which is then read to its end."""

from __future__ import annotations

import functools
import re
from urllib.parse import urlsplit

from ..errors import UsageError
from ..machine import require
from .live import LiveOptions, LiveSource

SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "srt", "udp")
#: Stores of objects, which a cluster reads.
OBJECTS = ("s3", "gs")

#: A playlist or a description of a session may name these and nothing else: no file of this machine.
_WHITELIST = "crypto,http,httpproxy,https,rtmp,rtmps,rtp,rtsp,rtsps,srt,srtp,tcp,tls,udp"
_OPTIONS = {"protocol_whitelist": _WHITELIST}
_RTSP = {"rtsp_transport": "tcp"}  # UDP loses packets, and is blocked in many networks


def is_address(text: str) -> bool:
    """Whether the text is an address (scheme://...), of whatever scheme."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) is not None


def is_object(text: str) -> bool:
    """Whether the text is the address of an object, or of a prefix of objects, in a cloud's store."""
    return text.partition("://")[0].lower() in OBJECTS and "://" in text


def network_source(address: str, options: LiveOptions | None = None) -> LiveSource:
    """An address -> a source whose outputs are called after its host and path. Raises UsageError for a scheme that is not read."""
    parts = urlsplit(address)
    text = shown(address)
    if parts.scheme.lower() not in SCHEMES or not parts.netloc:
        raise UsageError(f"{text} is not an address that can be read.", f"It begins with one of: {', '.join(f'{s}://' for s in SCHEMES)}.")
    require("av", "video", f"Reading {text}")
    from .pyav import open_input

    options = options or LiveOptions()
    opening = _OPTIONS | (_RTSP if parts.scheme.lower() in ("rtsp", "rtsps") else {})
    opener = functools.partial(open_input, address, text, options=opening, timeout=(options.answer_s, options.answer_s))
    return LiveSource(text, address_name(address), opener, options, may_be_finite=parts.scheme.lower() in ("http", "https"))


def shown(address: str) -> str:
    """An address as it may be printed and written: without a user and a password, and without what follows a question mark."""
    return re.sub(r"//[^/@]*@", "//", address.partition("?")[0])


def address_name(address: str) -> str:
    """ "rtsp://user:secret@cam-1.local:554/live/main" -> "cam-1_local_live_main"."""
    parts = urlsplit(address)
    path = re.sub(r"\.[A-Za-z0-9]{1,5}$", "", parts.path)
    words = re.sub(r"[^A-Za-z0-9-]+", "_", f"{_host(parts.netloc)}_{path}").strip("_")
    return words[:100] or "stream"


def _host(netloc: str) -> str:
    return netloc.rpartition("@")[2].rpartition(":")[0] or netloc.rpartition("@")[2]
