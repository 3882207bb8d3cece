"""One xz stream to the bytes that it holds, a piece at a time, and back: a few bytes may stand for gigabytes."""

from __future__ import annotations

from types import ModuleType

from ..errors import WeightsError, first_line

HINT = "Copy or download it again."

_MEMORY = 2**28  # what a decoder may take; `xz -9e` needs a quarter


def compress(data: bytes) -> bytes:
    """Weights to an xz stream; of FP16 a seventh is saved. Raises WeightsError if this Python has no lzma."""
    lzma = _lzma()
    # For values of two bytes: every second one, with the exponent, repeats itself; the others hardly do.
    return bytes(lzma.compress(data, lzma.FORMAT_XZ, filters=[{"id": lzma.FILTER_LZMA2, "preset": 6, "lc": 0, "lp": 1, "pb": 1}]))


class XzReader:
    """Reads `data`, an xz stream; `name` is what messages call it. Every method raises WeightsError for a stream that is damaged."""

    def __init__(self, data: bytes, name: str) -> None:
        self._lzma, self._data, self._name = _lzma(), data, name
        self._decoder = self._lzma.LZMADecompressor(self._lzma.FORMAT_XZ, _MEMORY)

    def read(self, count: int) -> bytes:
        """The next `count` bytes, no fewer."""
        parts = []
        while count:
            if self._decoder.eof or (self._decoder.needs_input and not self._data):
                raise WeightsError(f"{self._name} was cut short.", HINT)
            parts.append(self._some(count))
            count -= len(parts[-1])
        return b"".join(parts)

    def end(self) -> None:
        """Raises WeightsError if the stream has more, if its end is missing, or if something is behind it."""
        more = b"" if self._decoder.eof else self._some(1)
        if more or self._decoder.unused_data:
            raise WeightsError(f"{self._name} holds more than the weights that its header tells of.", HINT)
        if not self._decoder.eof:
            raise WeightsError(f"{self._name} was cut short.", HINT)

    def _some(self, most: int) -> bytes:
        """At least one byte if there is one, at most `most`."""
        data, self._data = self._data, b""
        try:
            return bytes(self._decoder.decompress(data, most))
        except self._lzma.LZMAError as error:
            raise WeightsError(f"{self._name} is not an xz file, or is damaged: {first_line(error)}.", HINT) from error
        except MemoryError as error:
            raise WeightsError(f"{self._name} takes more memory than there is.") from error


def _lzma() -> ModuleType:
    """Python's own module, which is missing where Python was built without liblzma."""
    try:
        import lzma
    except ImportError as error:
        what = "This Python was built without lzma, so it cannot read or write .xz files."
        raise WeightsError(what, "Decompress it: xz -d FILE") from error
    return lzma
