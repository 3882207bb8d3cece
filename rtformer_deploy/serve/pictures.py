"""What clients send as pictures and what they get: which media types, decoding within limits, PNG, JPEG and JSON."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from PIL import Image

from ..image.areas import class_areas
from ..image.decode import decode_image
from ..image.frames import overlay
from ..image.geojson import feature_collection
from ..image.legend import draw_legend
from ..image.picture_formats import readable
from ..image.png import encode_png
from ..image.polygons import polygons_of
from ..image.selection import without
from ..types import Frame, ModelSpec
from .batcher import Kind
from .model import Model, Segmented
from .refusal import Refusal

Output = Literal["labels", "overlay", "confidence", "json"]
#: What JSON holds beside the classes: pictures as base64 PNG, polygons as GeoJSON.
Extra = Literal["labels", "overlay", "confidence", "polygons"]

PNG, JPEG, JSON = "image/png", "image/jpeg", "application/json"
#: Media types of pictures beside image/NAME of each format that is read.
_OTHER_NAMES = frozenset({"image/jpg", "image/pjpeg", "image/x-ms-bmp", "image/x-bmp", "image/heic", "image/apng"})
_ANY = "application/octet-stream"
_PNG_LEVEL = 1  # label maps compress well at any level; a higher one costs more than the engine's post-processing
_JPEG_QUALITY = 85


def picture_types() -> frozenset[str]:
    """The media types that a picture may come as."""
    names = {f"image/{each.name.lower()}" for each in readable()}
    return frozenset(names | _OTHER_NAMES | {_ANY})


def check_picture_type(media_type: str) -> None:
    """Raises a 415 unless a body of this media type (in lower case, without parameters) may be a picture; "" is fine."""
    if media_type and media_type not in picture_types():
        hint = "Send the picture's bytes with its own type, such as Content-Type: image/jpeg, or as the form field image."
        raise Refusal(415, "The body is not of a type that a picture has.", hint)


def decode(data: bytes, pixels: int) -> Frame:
    """A picture's bytes -> its upright frame of at most `pixels`. Raises ImageError."""
    return decode_image(data, "The image", max_pixels=pixels)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which answer a client wants: `alpha`, `legend` and `hide` (class ids) are for overlays, `extras` for JSON."""

    output: Output = "labels"
    alpha: float = 0.5
    legend: bool = False
    hide: frozenset[int] = frozenset()
    extras: frozenset[Extra] = frozenset()

    @property
    def kind(self) -> Kind:
        """What the engine has to give for it."""
        return "logits" if self.output == "confidence" or (self.output == "json" and "confidence" in self.extras) else "labels"

    @property
    def media_type(self) -> str:
        return JSON if self.output == "json" else PNG

    def check(self, model: Model) -> None:
        """Raises a 400 if the model cannot give it."""
        if self.kind == "logits" and model.spec.head == "labels":
            hint = "Ask for another output, or serve an engine of a model that was exported with --head lowres."
            raise Refusal(400, "This engine gives labels only, so there is no confidence.", hint)
        unknown = [each for each in sorted(self.hide) if each >= len(model.spec.classes)]
        if unknown:
            raise Refusal(400, f"There is no class {unknown[0]} to hide.", f"The classes are 0 to {len(model.spec.classes) - 1}.")

    def encoder(self, model: Model) -> Callable[[Sequence[Segmented]], bytes]:
        """A function from one segmented frame to the answer's bytes."""

        def encode(segmented: Sequence[Segmented]) -> bytes:
            (one,) = segmented
            return _json(one, model, self) if self.output == "json" else _picture(one, model.spec, self.output, self)

        return encode


def jpeg_overlay(one: Segmented, spec: ModelSpec, alpha: float) -> bytes:
    """A segmented frame -> its overlay as JPEG, for streams: a PNG of a photograph is large and slow to write."""
    data = io.BytesIO()
    Image.fromarray(overlay(one.frame, one.labels, spec.palette, alpha)).save(data, "JPEG", quality=_JPEG_QUALITY)
    return data.getvalue()


def labels_png(one: Segmented) -> bytes:
    """A segmented frame -> its label map as an 8-bit grey PNG, the class id as the value."""
    return encode_png(one.labels, level=_PNG_LEVEL)


def _picture(one: Segmented, spec: ModelSpec, what: Output | Extra, wanted: Wanted) -> bytes:
    if what == "labels":
        return labels_png(one)
    if what == "confidence":
        assert one.confidence is not None
        return encode_png(one.confidence, level=_PNG_LEVEL)
    labels = without(one.labels, wanted.hide)
    drawn = overlay(one.frame, labels, spec.palette, wanted.alpha)
    if wanted.legend:
        drawn = draw_legend(drawn, labels, spec.classes, spec.palette)
    return encode_png(drawn)


def _json(one: Segmented, model: Model, wanted: Wanted) -> bytes:
    spec = model.spec
    document: dict[str, Any] = {
        "model": model.name,
        "height": one.labels.shape[0],
        "width": one.labels.shape[1],
        "classes": [
            {"id": area.index, "name": area.name, "colour": list(spec.palette[area.index]), "pixels": area.pixels, "share": area.share}
            for area in class_areas(one.labels, spec.classes)
        ],
    }
    for what in sorted(wanted.extras):
        if what == "polygons":
            document[what] = feature_collection(polygons_of(one.labels), spec.classes)
        else:
            document[what] = base64.b64encode(_picture(one, spec, what, wanted)).decode()
    return json.dumps(document).encode()
