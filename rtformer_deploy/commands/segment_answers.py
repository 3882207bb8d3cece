"""Which answers `segment` writes beside its pictures, and where: class areas, polygons and confidence, of images and of clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..stream.answers import Answer, AreaDocument, AreaTable, Coco, ConfidenceFolder, GeoJson, ImageConfidence, ImagePolygons
from ..stream.sinks import Extra, refuse_foreign_folder
from ..types import ModelSpec
from .kinds import ANSWERS, AREAS, PICTURE
from .outputs import Output, refuse_foreign, refuse_meeting
from .segment_outputs import Clip, Job, frame_names

AREA_FORMATS, POLYGON_FORMATS = ("csv", "json"), ("geojson", "coco")

POLYGONS, CONFIDENCE, _MAPS = "_polygons.geojson", "_confidence.png", "_confidence"


@dataclass(frozen=True, slots=True)
class Answers:
    """What was asked for: the formats of areas and of polygons, how far polygons are simplified (pixels), and confidence maps."""

    areas: tuple[str, ...] = ()
    polygons: tuple[str, ...] = ()
    tolerance: float = 0.0
    confidence: bool = False

    @property
    def any(self) -> bool:
        """Whether something was asked for."""
        return bool(self.areas or self.polygons or self.confidence)

    def of_images(self, output: Path, spec: ModelSpec) -> list[Answer]:
        """The answers about all images of a run together: areas.csv, areas.json, coco.json in the output folder."""
        return self._answers(output / "areas", output / "coco.json", None, spec)

    def of_clip(self, clip: Clip, spec: ModelSpec) -> list[Answer]:
        """The answers about a clip: CLIP_areas.csv, CLIP_areas.json, CLIP_polygons.geojson, CLIP_coco.json, the folder CLIP_confidence."""
        answers = self._answers(clip.beside("_areas"), clip.beside("_coco.json"), clip.beside(POLYGONS), spec)
        return [*answers, ConfidenceFolder(clip.beside(_MAPS))] if self.confidence else answers

    def of_each_image(self, jobs: Sequence[Job], output: Path) -> list[Extra]:
        """The files of each image: NAME_polygons.geojson and NAME_confidence.png."""
        extras: list[Extra] = []
        if "geojson" in self.polygons:
            extras.append(ImagePolygons([job.beside(POLYGONS) for job in jobs], image_names(jobs, output), self.tolerance))
        if self.confidence:
            extras.append(ImageConfidence([job.beside(CONFIDENCE) for job in jobs]))
        return extras

    def check(self, jobs: Sequence[Job], clips: Sequence[Clip], output: Path, spec: ModelSpec, *, overwrite: bool) -> None:
        """Raises OutputError if an answer would overwrite an input or, without `overwrite`, a file that is no such answer."""
        extras = [path for extra in self.of_each_image(jobs, output) for path in extra.targets]
        answers = [*(self.of_images(output, spec) if jobs else []), *(answer for clip in clips for answer in self.of_clip(clip, spec))]
        files = [answer.target for answer in answers if not isinstance(answer, ConfidenceFolder)]
        planned = [Output(path, _KINDS[path.suffix]) for path in (*extras, *files)]
        refuse_meeting(planned, ((job.image, "itself an input") for job in jobs), "Choose another --output.")
        if not overwrite:
            refuse_foreign(planned, "Choose another --output, or add --overwrite.")
        for answer in answers:
            if isinstance(answer, ConfidenceFolder):
                refuse_foreign_folder(answer.target)

    def _answers(self, areas: Path, coco: Path, geojson: Path | None, spec: ModelSpec) -> list[Answer]:
        answers: list[Answer] = []
        if "csv" in self.areas:
            answers.append(AreaTable(areas.with_name(f"{areas.name}.csv")))
        if "json" in self.areas:
            answers.append(AreaDocument(areas.with_name(f"{areas.name}.json")))
        if "geojson" in self.polygons and geojson is not None:
            answers.append(GeoJson(geojson, self.tolerance))
        if "coco" in self.polygons:
            answers.append(Coco(coco, spec))
        return answers


_KINDS = {".csv": AREAS, ".json": ANSWERS, ".geojson": ANSWERS, ".png": PICTURE}


def image_names(jobs: Sequence[Job], output: Path) -> list[str]:
    """What answers call the images: their file names, behind the sub-folders that they lie in.

    Images of one name from two folders are called as their outputs, so that no two have one name.
    """
    folders = [job.labels.parent.relative_to(output) for job in jobs]
    return frame_names(folders, [job.image for job in jobs], [job.name for job in jobs])
