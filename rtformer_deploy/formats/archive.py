"""Opens a zip archive only if its members take no more memory than the archive itself."""

from __future__ import annotations

import io
import zipfile

from ..errors import shorten

_MOST_MEMBERS = 100_000
_ENTRY = b"PK\x01\x02"  # begins every entry of the directory


def open_stored(data: bytes) -> zipfile.ZipFile:
    """Opens a zip archive whose members are stored, not compressed, and together are no larger than `data`.

    Raises zipfile.BadZipFile for any other archive, whose members could take any amount of memory, and if the directory is damaged.
    """
    if data.count(_ENTRY) > _MOST_MEMBERS:  # counted first, because zipfile makes an object for each
        raise zipfile.BadZipFile(f"it has more than {_MOST_MEMBERS:,} members")
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except zipfile.BadZipFile:
        raise
    except Exception as error:  # a damaged directory makes struct, the decoding of names or seek fail
        raise zipfile.BadZipFile(f"its directory is damaged ({type(error).__name__})") from error
    for member in archive.infolist():
        if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
            raise zipfile.BadZipFile(f"its member {shorten(member.filename)!r} is compressed")
    total = sum(member.file_size for member in archive.infolist())
    if total > len(data):
        raise zipfile.BadZipFile(f"its members hold {total:,} bytes, the file {len(data):,}: they overlap")
    return archive
