"""The machines that figures were measured on: what documents of any kind say under `environment`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..blocks import Block, Document, Heading, Part, facts


def section(documents: Sequence[Document[Mapping[str, Any]]]) -> Part:
    """Environments and the documents that name them -> one list of facts for each machine and set of packages."""
    groups: dict[str, list[Document[Mapping[str, Any]]]] = {}
    for document in documents:
        groups.setdefault(repr(sorted(document.data.items(), key=str)), []).append(document)
    blocks: list[Block] = []
    for group in groups.values():
        names = [document.name for document in group]
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        blocks += [Heading(", ".join(names[:8]) + more), facts(group[0].data)]
    return Part("Environment", blocks)
