"""NVDEC: videos are decoded by the GPU that segments them, and their frames stay there. What cannot be is made on the CPU, and said."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal

from ..errors import UsageError, VideoError, first_line
from ..lanes.lane import Lane
from ..lanes.surfaces import GpuFrames, Surface
from ..machine import require
from ..nvidia.driver import missing_video_library
from ..runtime.frame_runner import FrameRunner
from ..runtime.runner import Runner
from ..runtime.tiled import TiledRunner
from ..types import Say

if TYPE_CHECKING:
    from av.codec.hwaccel import HWAccel
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame

    from ..lanes.shared import LaneShare
    from ..lanes.surfaces import GpuFrame

#: Where videos are decoded. "auto": on the GPU if the engine runs on one and it can, otherwise on the CPU.
Decode = Literal["auto", "gpu", "cpu"]

#: The layout that the kernel takes: 8 bits, 4:2:0.
_LAYOUT = "nv12"
_FULL_RANGE = 2  # AVCOL_RANGE_JPEG
_TRIED_WITH = "h264"
_LEAVE_OUT = "Choose auto or cpu for --decode (in the library: decode)."


def nvdec_for(runner: Runner, decode: Decode, say: Say) -> Nvdec | None:
    """A runner and what was asked for -> how its videos are decoded; None: on the CPU.

    Raises UsageError for "gpu" if the runner takes no frames on a GPU, VideoError if NVDEC cannot be used here, MissingPackageError.
    """
    lane = runner.sessions[0] if isinstance(runner, FrameRunner) else None
    if decode != "cpu" and isinstance(lane, Lane):
        nvdec = Nvdec(lane.share, say, strict=decode == "gpu")
        nvdec.refuse_if_strict()
        return nvdec
    if decode == "gpu":
        why = "tiles are cut out of frames on the CPU" if isinstance(runner, TiledRunner) else "the engine takes no frames on a GPU"
        raise UsageError(f"Videos cannot be decoded on the GPU: {why}.", _LEAVE_OUT)
    return None


class Nvdec:
    """The decoder of the GPU that a runner's lanes work on, for all videos of a run. Any thread may use it.

    `strict`: whatever cannot stay on the GPU raises VideoError. Otherwise it is made on the CPU, and `say` gets one line for each reason.
    """

    def __init__(self, share: LaneShare, say: Say, *, strict: bool) -> None:
        self.share, self.strict = share, strict
        self._say = say
        self._lock = threading.Lock()
        self._said: set[str] = set()
        self._tried = False
        self._missing: str | None = None

    def refuse_if_strict(self) -> None:
        """Raises VideoError, or MissingPackageError, if it is strict and NVDEC cannot be used at all."""
        if not self.strict:
            return
        require("av", "video", "Decoding videos")
        if (why := self._why_not()) is not None:
            raise VideoError(f"Videos cannot be decoded on the GPU: {why}.", _LEAVE_OUT)

    def current(self) -> AbstractContextManager[Any]:
        """The GPU's primary context is current in this thread, as it has to be where a video is opened with `hwaccel`."""
        return self.share.current()

    def hwaccel(self) -> HWAccel | None:
        """What `av.open` is given; None, with a line, if NVDEC cannot be used here."""
        if (why := self._why_not()) is None:
            return _hwaccel(self.share.device)
        self.give_up(f"Videos are decoded on the CPU: {why}.", why)
        return None

    @property
    def usable(self) -> bool:
        """Whether NVDEC can be used for any video at all."""
        return self._why_not() is None

    def give_up(self, line: str, why: str) -> None:
        """Says the line, once for each reason."""
        with self._lock:
            new = why not in self._said
            self._said.add(why)
        if new:
            self._say(line)

    def _why_not(self) -> str | None:
        """Why NVDEC cannot be used for any video, found out once; None: it can be."""
        with self._lock:
            if not self._tried:
                with self.current():
                    self._missing = _obstacle(self.share.device)
                self._tried = True
            return self._missing


class DecodedOnCpuError(Exception):
    """FFmpeg decodes a video by itself that it should leave to NVDEC, and with one thread: it is better opened anew, without NVDEC."""


class NvdecPictures:
    """The pictures of one video -> frames on the GPU; `text` is what messages call the video, `codec` decodes it."""

    def __init__(self, nvdec: Nvdec, text: str, codec: VideoCodecContext) -> None:
        self._nvdec, self._text, self._codec = nvdec, text, codec
        self._frames: GpuFrames | None = None
        self._began = False

    def frame(self, picture: VideoFrame, turns: int) -> GpuFrame | None:
        """A picture, turned by `turns` quarters counter-clockwise; None: it has to be made on the CPU, which was said.

        Raises VideoError if that is refused, DecodedOnCpuError for a first picture (see there), ImageError for colours that are not
        converted, EngineError if the GPU has failed.
        """
        first, self._began = not self._began, True
        why = _why_on_cpu(picture, self._codec.name)
        if why is None:
            self._frames = self._frames or GpuFrames(self._nvdec.share)
            return self._frames.convert(surface_of(picture, turns))
        if self._nvdec.strict:
            raise VideoError(f"{self._text} cannot be decoded on the GPU: {why}.", _LEAVE_OUT)
        self._nvdec.give_up(f"{self._text}: frames are made on the CPU, since {why}.", why)
        if first and self._codec.is_hwaccel and picture.sw_format is None:
            raise DecodedOnCpuError
        return None


def surface_of(picture: VideoFrame, turns: int) -> Surface:
    """A picture in NV12 on the GPU -> the same as lanes know it. The picture has to be held until the surface is no longer read."""
    from ..image.nv12 import yuv_factors
    from ..lanes.kernels import Plane

    luma, chroma = (Plane(plane.buffer_ptr, plane.line_size) for plane in picture.planes)
    factors = yuv_factors(picture.colorspace, picture.color_range == _FULL_RANGE)
    return Surface((picture.height, picture.width), luma, chroma, factors, turns % 4)


def _why_on_cpu(picture: VideoFrame, codec: str) -> str | None:
    """Why a picture cannot become a frame on the GPU; None: it can."""
    if picture.sw_format is None:
        return f"NVDEC does not decode {codec} in {picture.format.name} here"
    if picture.sw_format.name != _LAYOUT:
        return f"they are in {picture.sw_format.name}, and only 8-bit 4:2:0 ({_LAYOUT}) stays on the GPU"
    return None


def _obstacle(device: int) -> str | None:
    """Why no video can be decoded on GPU `device`, whose context is current; None: nothing is known to be in the way."""
    import av
    from av.codec.codec import Codec
    from av.error import FFmpegError
    from av.video.frame import VideoFrame

    if not hasattr(VideoFrame, "sw_format"):
        return f"PyAV {av.__version__} cannot leave frames there (pip install --upgrade av)"
    if (name := missing_video_library()) is not None:
        return f"the driver's {name} is not installed (in a container, NVIDIA_DRIVER_CAPABILITIES has to hold video)"
    try:
        _hwaccel(device).create(Codec(_TRIED_WITH, "r"))
    except (FFmpegError, NotImplementedError) as error:
        return f"FFmpeg refuses it: {first_line(error)}"
    return None


def _hwaccel(device: int) -> HWAccel:
    """FFmpeg's decoder on GPU `device`, in the context that is current when the video is opened.

    Left to itself PyAV asks for the primary context, which FFmpeg refuses once lanes use it, because it wants other flags.
    """
    from av.codec.hwaccel import HWAccel

    options: dict[str, object] = {"primary_ctx": "0", "current_ctx": "1"}
    return HWAccel("cuda", device=str(device), allow_software_fallback=True, options=options, is_hw_owned=True)
