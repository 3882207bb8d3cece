"""Bytes of a zip archive in, an archive that unfolds to no more than those bytes out."""

from __future__ import annotations

import io
import zipfile

from ..errors import shorten

_MOST_MEMBERS = 100_000
_ENTRY = b"PK\x01\x02"  # begins every entry of the directory


def open_stored(data: bytes) -> zipfile.ZipFile:
    """A zip archive whose members are stored, not compressed, and hold together no more than `data`.

    Raises zipfile.BadZipFile, also if the directory is damaged: reading a member of anything else could take any amount of memory.
    """
    if data.count(_ENTRY) > _MOST_MEMBERS:  # counted before zipfile makes an object of each
        raise zipfile.BadZipFile(f"it has more than {_MOST_MEMBERS:,} members")
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except zipfile.BadZipFile:
        raise
    except Exception as error:  # damage in the directory reaches struct, the decoding of names, seek
        raise zipfile.BadZipFile(f"its directory is damaged ({type(error).__name__})") from error
    for member in archive.infolist():
        if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
            raise zipfile.BadZipFile(f"its member {shorten(member.filename)!r} is compressed")
    held = sum(member.file_size for member in archive.infolist())
    if held > len(data):
        raise zipfile.BadZipFile(f"its members hold {held:,} bytes, the file {len(data):,}: they overlap")
    return archive
