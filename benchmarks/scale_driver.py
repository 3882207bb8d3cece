"""What one process, the driver of `segment --cluster`, takes for each image: measured over the product's own code, without Ray.

Used by scale_model.py. Planning lists the images, names their outputs and writes the manifest; counting takes the rows that come back, as
they come. What Ray itself does in the driver (it hands out blocks, and fetches results) is not in these figures.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness import memory as memory_of

if TYPE_CHECKING:
    import pyarrow as pa

    from rtformer_deploy.cluster.pipeline import Run

#: Images in a block that comes back from an engine, and in a folder.
_BLOCK = 64
_FOLDER = 1000


@dataclass(frozen=True)
class Driver:
    """For each image: microseconds of planning and of counting, bytes of the manifest, bytes of memory at most while planning."""

    images: int
    plan_us: float
    count_us: float
    manifest_bytes: float
    memory_bytes: float


def measure_driver(plan: Path, images: int, folder: Path) -> Driver:
    """Plans `images` images of a folder and counts their results, in a process of its own: memory is measured."""
    for number in range(images):
        place = folder / f"in/camera-{number // _FOLDER:05}"
        if number % _FOLDER == 0:
            place.mkdir(parents=True)
        (place / f"2026-11-25T18-00-00-{number:09}.jpg").touch()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measure, plan, images, folder).result()


def _measure(plan: Path, images: int, folder: Path) -> Driver:
    from rtformer_deploy.cluster.flow import Cluster
    from rtformer_deploy.cluster.parcel import pack
    from rtformer_deploy.cluster.pipeline import Images
    from rtformer_deploy.cluster.segmenting import Style
    from rtformer_deploy.commands.segment_cluster import ClusterRequest, prepare

    parcel = pack(plan)
    request = ClusterRequest(Cluster("auto"), plan, [str(folder / "in")], str(folder / "out"), Style("_labels.png", "_overlay.png"))
    memory, began = memory_of("VmHWM"), time.perf_counter()
    run = prepare(request, parcel, lambda _line: None)
    planned, after = time.perf_counter() - began, memory_of("VmHWM")
    written = sum(path.stat().st_size for path in (folder / "out/.cluster").rglob("*.json"))
    work = Images(run, lambda *_: None, lambda _line: None)
    counted = 0.0
    for block in _blocks(run):
        began = time.perf_counter()
        work.take(block.to_pylist())
        counted += time.perf_counter() - began
    assert not work.left, "an image was not counted"
    return Driver(images, 1e6 * planned / images, 1e6 * counted / images, written / images, 2**20 * (after - memory) / images)


def _blocks(run: Run) -> Iterator[pa.Table]:
    """The rows of every image as an engine gives them back."""
    from rtformer_deploy.cluster.manifest import unfinished
    from rtformer_deploy.cluster.rows import as_table, new_row

    for shard, _ in unfinished(run.manifest):
        rows = [new_row(shard, index, entry, "done") | {"node": "node"} for index, entry in enumerate(run.manifest.entries(shard))]
        for start in range(0, len(rows), _BLOCK):
            yield as_table(rows[start : start + _BLOCK])
