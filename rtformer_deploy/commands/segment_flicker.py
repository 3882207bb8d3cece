"""`segment --flicker`: what the clips' label maps do from frame to frame, as JSON and as a picture."""

from __future__ import annotations

import json
from pathlib import Path

from ..evaluation.flicker import Flicker
from ..files import make_folder, write_atomic
from ..pictures import why_not_drawn
from ..stream.items import Source
from ..stream.result import Result
from ..types import ModelSpec, Say
from .segment_outputs import Clip

DATA, PICTURE = "_flicker.json", "_flicker.svg"


class FlickerWatch:
    """Sees the results of clips, in the thread that draws. Images have no time and are left out."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._flickers: dict[int, Flicker] = {}

    def __call__(self, source: Source, result: Result) -> None:
        if result.time is not None:
            self._flickers.setdefault(id(source), Flicker(len(self._spec.classes))).add(result.frame, result.labels, result.time)

    def of(self, clip: Clip) -> Flicker:
        """A clip's flicker; a clip without frames has one without values."""
        return self._flickers.get(id(clip.source)) or Flicker(len(self._spec.classes))

    def save(self, clip: Clip, say: Say) -> tuple[Path, ...]:
        """Writes a clip's CLIP_flicker.json and, if it can be drawn here, CLIP_flicker.svg; gives their paths."""
        flicker = self.of(clip)
        data, picture = clip.beside(DATA), clip.beside(PICTURE)
        make_folder(data.parent)  # a clip may have no other output
        write_atomic(data, json.dumps(flicker.to_json(self._spec.classes), indent=2).encode())
        why = why_not_drawn(picture.name)
        if why is not None:
            say(why)
            return (data,)
        from ..pictures.flicker import draw_flicker

        drawn = draw_flicker(clip.source.name, flicker.times, flicker.shares, flicker.share, flicker.threshold)
        write_atomic(picture, drawn.encode())
        return data, picture
