"""What a file is that was taken for a model and is none: a web page, a Git LFS pointer and the like, which downloads often leave."""

from __future__ import annotations

_DOWNLOAD = "Download the file itself: what is there is the page about it."
_UNPACK = "Unpack it, and give the model that is in it."
#: How a file begins -> what it is, and what to do. White space before it does not count.
_BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer: a note that stands for the model", "Fetch the model itself: git lfs pull."),
    (b"<!doctype html", "a web page", _DOWNLOAD),
    (b"<html", "a web page", _DOWNLOAD),
    (b"<?xml", "an XML file", "Give the ONNX model that it was made from."),
    (b"\x1f\x8b", "compressed by gzip", _UNPACK),
    (b"PK\x03\x04", "a ZIP archive or a PyTorch file", "Unpack it, or export the network to ONNX."),
    (b"\x80\x02", "a pickle, as PyTorch and Paddle write them", "Export the network to ONNX."),
    (b"\x89HDF", "an HDF5 file, as Keras writes them", "Export the network to ONNX."),
)
_TFLITE = b"TFL3"  # from byte 4 on
_LOOKED_AT = 512  # bytes


def kind_of_file(data: bytes) -> tuple[str, str] | None:
    """A file's bytes -> what it is, in words, and the way out; None if it is of no known kind."""
    start = data[:_LOOKED_AT].lstrip().lower()
    for beginning, what, hint in _BEGINNINGS:
        if start.startswith(beginning.lower()):
            return what, hint
    if data[4:8] == _TFLITE:
        return "a TensorFlow Lite model", "Convert it to ONNX with tf2onnx."
    return None
