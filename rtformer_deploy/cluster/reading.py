"""A shard of the manifest -> rows with images' bytes; what was made before is not read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from ..errors import DeployError, ImageError
from .manifest import Entry, load_manifest
from .rows import Row, as_table, failed, new_row
from .stores import is_whole, open_store

if TYPE_CHECKING:
    import pyarrow as pa

_AT_ONCE = 8  # images of a shard that are read at once: a store of objects answers slowly, and many at a time


class Reader:
    """Reads the images of shards. `ends` are those of an image's outputs; `resumed`: an earlier start may have made some of them."""

    def __init__(self, output: str, ends: Sequence[str], *, resumed: bool) -> None:
        self._output, self._ends, self._resumed = open_store(output), tuple(ends), resumed
        self._manifest = load_manifest(self._output)
        self._sources = [open_store(text) for text in self._manifest.head.sources]

    def rows(self, shard: int) -> Iterator[Row]:
        """The rows of what a shard still has to do: all of it, or what failed before."""
        result = self._manifest.result(shard) if self._resumed else None
        entries = self._manifest.entries(shard)
        check = self._resumed and result is None
        todo = range(len(entries)) if result is None else [failure.index for failure in result.failed if failure.index < len(entries)]
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="read") as pool:
            for start in range(0, len(todo), _AT_ONCE):  # no more than these are in memory
                yield from pool.map(lambda index: self._row(shard, index, entries[index], check), todo[start : start + _AT_ONCE])

    def _row(self, shard: int, index: int, entry: Entry, check: bool) -> Row:
        if check and not entry.old and all(is_whole(self._output, entry.output + end) for end in self._ends):
            return new_row(shard, index, entry, "there")
        try:
            data = self._sources[entry.source].read(entry.input, ImageError, "an image")
        except DeployError as error:
            return failed(new_row(shard, index, entry, "read"), error)
        return new_row(shard, index, entry, "read", data)


class ReadShards:
    """A Reader in a worker of Ray."""

    def __init__(self, output: str, ends: Sequence[str], resumed: bool) -> None:
        self._reader = Reader(output, ends, resumed=resumed)

    def __call__(self, shards: pa.Table) -> Iterator[pa.Table]:
        for shard in shards.column("shard").to_pylist():
            for row in self._reader.rows(shard):
                yield as_table([row])
