"""The errors that a user can see. Each says what happened and, if it is known, what to do.

Each is a DeployError. The exit code is 1 unless its line says another one:

    DeployError              exit code 1
    ├── UsageError           exit code 2: the call itself is wrong (two options that cannot be combined)
    ├── RecipeError          a recipe or dataset file cannot be read or contradicts itself
    ├── WeightsError         weights that are missing, unsafe, or another network's
    ├── ModelError           an ONNX file that cannot be read, is not what it should be, or fails its parity check
    ├── ImageError           an image that cannot be decoded
    │   └── ImageTooLargeError   one with more pixels than are decoded
    ├── VideoError           a video, camera or stream that cannot be opened or read
    ├── DatasetError         a folder that does not hold the dataset that was named
    ├── CalibrationError     images, activations or a ranges file that calibration cannot use
    ├── BuildError           a builder refused the model
    ├── EngineError          a plan that cannot be opened here
    ├── PrecisionError       --strict: the engine does not have the precision that was asked for
    ├── MissingPackageError  a package of one of the extras is not installed
    ├── ReportError          a folder without a report to show
    ├── OutputError          a file or folder that cannot be written
    ├── ClusterError         a cluster that cannot be reached, cannot run the plan, or has stopped working
    └── GateError            exit code 3: a limit that was set (verify, tune, --max-flips) was not met
"""

from __future__ import annotations

import re
from collections.abc import Iterable


class DeployError(Exception):
    """What happened (`what`, one sentence) and what to do about it (`hint`, one sentence or a command).

    `details` are lines between the two. Nothing else begins a line: a line end in a part, from a file's name perhaps, is printed escaped.
    Raised as ``raise DeployError(what, hint) from cause``; the command line prints all of it and exits with `exit_code`.
    """

    exit_code = 1

    def __init__(self, what: str, hint: str | None = None, *, details: Iterable[str] = ()) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.details = tuple(details)

    @property
    def lines(self) -> tuple[str, ...]:
        """What is printed: `what`, the details, the hint."""
        return (self.what, *self.details, *(() if self.hint is None else (self.hint,)))

    def __str__(self) -> str:
        return "\n".join(self.lines)


class UsageError(DeployError):
    exit_code = 2


class RecipeError(DeployError):
    pass


class WeightsError(DeployError):
    pass


class ModelError(DeployError):
    pass


class ImageError(DeployError):
    pass


class ImageTooLargeError(ImageError):
    pass


class VideoError(DeployError):
    pass


class DatasetError(DeployError):
    pass


class CalibrationError(DeployError):
    pass


class BuildError(DeployError):
    pass


class EngineError(DeployError):
    pass


class PrecisionError(DeployError):
    pass


class ReportError(DeployError):
    pass


class OutputError(DeployError):
    pass


class ClusterError(DeployError):
    pass


class GateError(DeployError):
    exit_code = 3


class MissingPackageError(DeployError):
    """A package of an extra is not installed. The error names the extra and the pip command."""

    def __init__(self, package: str, extra: str | None, wanted_by: str) -> None:
        target = "rtformer-deploy" if extra is None else f"'rtformer-deploy[{extra}]'"
        super().__init__(f"{wanted_by} needs the package {package}, which is not installed.", f"Run: pip install {target}")
        self.package = package
        self.extra = extra


def is_interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind an error: PyTorch's exporter and others turn it into errors of their own."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, KeyboardInterrupt):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
#: How ONNX Runtime's errors begin: "[ONNXRuntimeError] : 1 : FAIL : ", and the place in its sources.
_CODES = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : |/\S+\.(?:cc|h):\d+ (?:\w+ )*[\w:~<>]+(?:\(.*?\))?(?: const)? (?=\S)")
_OPENVINO_TRACE = re.compile(r"(Exception from |Check '|FrontEnd API failed|Summary:|To facilitate )")  # lines that only give a location


def about(name: object, what: str, error: DeployError) -> str:
    """A message about a file, from the error of what was tried with it: "NAME cannot be read as an image: it is empty." NAME stands
    there once."""
    name = str(name)
    if error.what.startswith(f"{name} "):
        return f"{name} {what}: it {error.what[len(name) + 1 :]}"
    return f"{name} {what}: {error.what.replace(f' {name}', '', 1)}"


def shorten(text: str, most: int = 100) -> str:
    """Text from a file, cut to `most` characters so that no message grows with the file."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def first_line(error: BaseException, most: int = 200) -> str:
    """The first line of a library's error that is not empty, cut to `most` characters; the error's type if there is none.

    A library's own colours are left out, and ONNX Runtime's codes and places in its sources.
    """
    lines = (_CODES.sub("", _COLOUR.sub("", line)).strip() for line in str(error).splitlines())
    return shorten(next((line for line in lines if line), type(error).__name__), most)


def openvino_reason(error: BaseException) -> str:
    """The message of an OpenVINO error in one line, without locations in OpenVINO's sources."""
    lines = [line.strip().removeprefix("-- ") for line in str(error).splitlines()]
    return " ".join(line for line in lines if line and not _OPENVINO_TRACE.match(line)) or type(error).__name__


def one_line(error: BaseException) -> str:
    """All of a library's error on one line, for a note."""
    return " ".join(str(error).split()) or type(error).__name__
