"""What `segment --cluster` is asked to do -> a manifest in the output place: images named as on one machine, from folders and stores."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from ..cluster.flow import Cluster
from ..cluster.manifest import Entry, Identity, Manifest, listing_of, open_manifest
from ..cluster.parcel import Parcel
from ..cluster.pipeline import Run
from ..cluster.segmenting import Style
from ..cluster.stores import Bucket, Store, is_ours, open_store, shown_input, shown_place
from ..errors import ImageError, OutputError, UsageError
from ..files import check_folder, sha256
from ..formats.external_model import ExternalModel
from ..image.picture_formats import readable_suffixes
from ..image.selection import Selection
from ..runtime.whole_logits import check_has_logits
from ..stream.inputs import Inputs, sort_inputs
from ..stream.loop import LoopOptions
from ..stream.network import is_object, shown
from ..types import ModelSpec, Say
from .kinds import PICTURE
from .outputs import Output, refuse_meeting
from .segment import images_below
from .segment_answers import CONFIDENCE, POLYGONS, Answers
from .segment_outputs import frame_names, names_by_folder


@dataclass(frozen=True, slots=True)
class ClusterRequest:
    """A run of `segment` over a cluster; the rest is as on one machine."""

    cluster: Cluster
    model: Path
    given: Sequence[str]
    output: str
    style: Style
    external: ExternalModel | None = None
    stop_on_error: bool = False
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class _Found:
    """An image: the index of its source, its name there, the path that its output is called after, and the sub-folder it lies in."""

    source: int
    name: str
    path: Path
    below: Path


def with_outputs(request: ClusterRequest, answers: Answers, selection: Selection | None) -> ClusterRequest:
    """The request with the outputs that `answers` asks for, and with the pixels that are looked at."""
    style = replace(
        request.style,
        polygons=POLYGONS if "geojson" in answers.polygons else "",
        confidence=CONFIDENCE if answers.confidence else "",
        tolerance=answers.tolerance,
        selection=selection,
    )
    return replace(request, style=style)


def prepare(request: ClusterRequest, parcel: Parcel, say: Say) -> Run:
    """Plans a run and begins its manifest, or goes on with the one that is there. The parcel is `cluster.parcel.pack` of its model.

    Raises UsageError for what a cluster does not take and for another run's manifest, ImageError if there is no image, OutputError if an
    output would replace an input or a file that this program did not write.
    """
    _refuse_without_logits(request.style, parcel.spec_info.spec)
    inputs = sort_inputs(request.given)
    _refuse_live(inputs)
    store = open_store(request.output)
    sources, found = _find(inputs, store, say)
    if not found:
        raise UsageError(f"{', '.join(map(shown_place, request.given))} names nothing to segment.", "Write images into it, one a line.")
    entries = _entries(found)
    _refuse_meeting(store, sources, entries, request.style.ends)
    if store.folder is not None:
        check_folder(store.folder)
    identity = Identity(parcel.package, sha256(parcel.plan), _look(request.style, parcel), listing_of(sources, entries))

    def there() -> Iterator[str]:
        return _there(store, entries, request.style.ends, overwrite=request.overwrite)

    manifest: Manifest = open_manifest(store, identity, sources, entries, there)
    return Run(request.cluster, parcel, request.style, manifest, request.stop_on_error)


def _refuse_live(inputs: Inputs) -> None:
    """Raises UsageError that names the first input that is no image."""
    hint = "A cluster segments images: folders, patterns, lists, s3:// and gs://. Leave --cluster out for the others."
    for path, _ in inputs.videos:
        raise UsageError(f"{path} is a video.", hint)
    for address in inputs.addresses:
        raise UsageError(f"{shown(address)} is a stream.", hint)
    for number in inputs.cameras:
        raise UsageError(f"Camera {number} is a camera.", hint)


def _refuse_without_logits(style: Style, spec: ModelSpec) -> None:
    """Raises UsageError if what was asked for needs logits, and the engine has none."""
    uncertain = LoopOptions(confidence=bool(style.confidence), selection=style.selection).needs_confidence
    if style.tiles is not None:
        check_has_logits(spec, "Tiles need")
        if uncertain:
            raise UsageError("Tiles have no logits of the whole frame.", "Leave --tiles out, or what needs logits.")
    if uncertain:
        check_has_logits(spec, "Confidence needs")


def _find(inputs: Inputs, output: Store, say: Say) -> tuple[list[str], list[_Found]]:
    """The places that are read, and the images in them; one that is named twice is taken once."""
    sources: dict[str, int] = {}
    found: list[_Found] = []
    for path in inputs.images:
        for image, below in images_below(path, output.folder, say):
            place = path if image != path else image.parent
            source = sources.setdefault(str(place.absolute()), len(sources))
            name = image.relative_to(place).as_posix()
            found.append(_Found(source, name, image, below))
    for address in inputs.objects:
        prefix, names = _objects(address, say)
        source = sources.setdefault(prefix, len(sources))
        bucket = _path_of(prefix)
        for name in names:
            below = Path(posixpath.dirname(name)) if prefix == address else Path()
            found.append(_Found(source, name, Path(f"{bucket}/{name}"), below))
    return list(sources), _once(sources, found)


def _once(sources: dict[str, int], found: list[_Found]) -> list[_Found]:
    """Without the images that were found twice, as in a folder and in one above it."""
    texts = list(sources)
    return list({shown_input(texts[each.source], each.name): each for each in reversed(found)}.values())[::-1]


def _objects(address: str, say: Say) -> tuple[str, list[str]]:
    """An address -> the place of its images, and their names there. Raises ImageError if there is none."""
    store = Bucket(address)
    if store.is_single_file():
        parts = urlsplit(address)
        folder, name = posixpath.split(parts.path)
        return parts._replace(path=folder).geturl(), [name]
    suffixes, names = readable_suffixes(), store.names()
    images = [name for name in names if PurePosixPath(name).suffix.lower() in suffixes]
    if not images:
        raise ImageError(f"{shown_place(address)} holds no image.")
    if len(images) < len(names):
        say(f"Left out of {shown_place(address)}: {len(names) - len(images):,} objects that are no images.")
    return address, images


def _path_of(place: str) -> str:
    """A place as a path, BUCKET/PREFIX, after which images of one name can be called."""
    parts = urlsplit(place)
    return f"{parts.netloc}{parts.path}".rstrip("/") if is_object(place) else place


def _entries(found: Sequence[_Found]) -> list[Entry]:
    paths, folders = [each.path for each in found], [each.below for each in found]
    names = names_by_folder(paths, folders)
    frames = frame_names(folders, paths, names)
    return [
        Entry(each.source, each.name, (each.below / name).as_posix(), frame) for each, name, frame in zip(found, names, frames, strict=True)
    ]


def _refuse_meeting(store: Store, sources: Sequence[str], entries: Sequence[Entry], ends: Sequence[str]) -> None:
    """Raises OutputError if an output is an input, or UsageError if a store's outputs would be read as inputs the next time."""
    if store.folder is not None:
        planned = [Output(store.folder / (entry.output + end), PICTURE) for entry in entries for end in ends]
        local = [
            (Path(sources[entry.source]) / entry.input, "itself an input") for entry in entries if not is_object(sources[entry.source])
        ]
        refuse_meeting(planned, local, "Choose another --output.")
        return
    mine = f"{_path_of(store.text)}/"
    for source in sources:
        if is_object(source) and mine.startswith(f"{_path_of(source)}/"):
            what = f"The outputs would lie among the images of {shown_place(source)}."
            raise UsageError(what, "Choose an --output outside, or a prefix beside it.")
    read = {f"{_path_of(sources[entry.source])}/{entry.input}" for entry in entries if is_object(sources[entry.source])}
    for entry in entries:
        for end in ends:
            if mine + entry.output + end in read:
                raise OutputError(f"Cannot write {mine}{entry.output}{end}: it is itself an input.", "Choose another --output.")


def _there(store: Store, entries: Sequence[Entry], ends: Sequence[str], *, overwrite: bool) -> Iterator[str]:
    """The outputs that have files already. Raises OutputError for one that this program did not write, unless it may be replaced."""
    names = set(store.names())
    for entry in entries:
        present = [entry.output + end for end in ends if entry.output + end in names]
        for name in present:
            if not overwrite and not is_ours(store, name):
                what = f"Cannot write {name} in {shown_place(store.text)}: the file there is none that rtformer-deploy wrote."
                raise OutputError(what, "Choose another --output, or add --overwrite.")
        if present:
            yield entry.output


def _look(style: Style, parcel: Parcel) -> dict[str, object]:
    """What the outputs depend on besides the plan and the images, as JSON values under the options' names."""
    selection: Selection | None = style.selection
    roi = None if selection is None or selection.region is None else sha256(selection.region.tobytes())
    return {
        "alpha": style.look.alpha,
        "legend": style.look.legend,
        "palette": style.look.palette,
        "overlay": style.overlay,
        "polygons": style.polygons,
        "confidence": style.confidence,
        "tolerance": style.tolerance,
        "only": None if selection is None or selection.only is None else sorted(selection.only),
        "roi": roi,
        "min_confidence": None if selection is None else selection.least_confidence,
        "tiles": style.tiles,
        "bit_depth": style.bit_depth,
        "spec": sha256(json.dumps(asdict(parcel.spec_info.spec)).encode()),
    }
