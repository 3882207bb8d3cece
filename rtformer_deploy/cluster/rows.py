"""What flows between the nodes: a row for each image. It names its shard and its place there; its state says how far it is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from ..errors import DeployError
from .manifest import Entry

if TYPE_CHECKING:
    import pyarrow as pa

#: "read" has the image's bytes. The others are final: "there" was made before, "done", "failed" (this image alone), "refused" (the node
#: can do nothing more).
State = Literal["read", "there", "done", "failed", "refused"]
Row = dict[str, Any]


def new_row(shard: int, index: int, entry: Entry, state: State, data: bytes = b"") -> Row:
    """An image's row as it leaves its reader."""
    return {
        "shard": shard, "index": index, "state": state, "data": data, "input": entry.input, "output": entry.output, "frame": entry.frame,
        "source": entry.source, "old": entry.old, "reason": "", "hint": "", "note": "", "note_key": "", "node": "",
    }  # fmt: skip


def failed(row: Row, error: DeployError, state: State = "failed") -> Row:
    """The row, with why nothing came of it."""
    row |= {"state": state, "data": b"", "reason": error.what, "hint": error.hint or ""}
    return row


def as_table(rows: Iterable[Row]) -> pa.Table:
    """Rows as a table of Arrow, which is how Ray carries them."""
    import pyarrow as pa

    numbers, flags, bytes_ = {"shard", "index", "source"}, {"old"}, {"data"}
    rows = list(rows)
    columns = {}
    for name in new_row(0, 0, Entry(0, "", "", ""), "read"):
        kind = pa.int64() if name in numbers else pa.bool_() if name in flags else pa.large_binary() if name in bytes_ else pa.string()
        columns[name] = pa.array([row[name] for row in rows], kind)
    return pa.table(columns)
