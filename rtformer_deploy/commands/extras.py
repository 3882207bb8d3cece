"""The project's extras on this machine: for each one, what it is for and whether all that it brings works.

Imports the standard library alone, as `checks` does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from importlib.metadata import metadata

from .checks import Check, Package, State

#: extra -> what it is for, in the order of the report. `dev` is for work on this project.
EXTRAS = {
    "export": "exporting a network, and training",
    "segformer": "SegFormer",
    "gpu": "running engines on an NVIDIA GPU",
    "tensorrt": "TensorRT engines",
    "tensorrt-rtx": "TensorRT-RTX engines",
    "pycuda": "frames and labels shared with PyCUDA",
    "openvino-ep": "OpenVINO inside ONNX Runtime, in compare --formats",
    "tensorrt-rtx-ep": "TensorRT-RTX inside ONNX Runtime, in compare --formats",
    "report": "pictures and pages",
    "serve": "the service",
    "video": "videos, cameras and streams",
    "heif": "HEIC images",
    "polygons": "simpler polygons",
    "cluster": "Ray clusters",
}


def project_extras() -> dict[str, list[str]]:
    """extra -> the libraries that it brings on this platform, by the installed project's metadata.

    Raises PackageNotFoundError in a checkout that is not installed, ImportError without `packaging`.
    """
    from packaging.requirements import Requirement

    project = metadata("rtformer-deploy")
    brought: dict[str, list[str]] = {extra: [] for extra in project.get_all("Provides-Extra") or () if extra in EXTRAS}
    for requirement in map(Requirement, project.get_all("Requires-Dist") or ()):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            continue
        for extra, names in brought.items():
            if requirement.marker.evaluate({"extra": extra}):
                names.append(requirement.name.lower())
    return brought


def check_extras(
    brought: Mapping[str, Collection[str]], packages: Iterable[Package], checks: Iterable[Check], installed: Collection[str]
) -> list[Check]:
    """One Check an extra, from those of its libraries. A library that `packages` lacks is fine if it is `installed`."""
    states = {check.name: check.state for check in checks}
    known = {name: states[package.name] for package in packages for name in package.distributions or (package.name,)}
    found = []
    for extra, names in brought.items():
        broken = [name for name in names if known.get(name) == "broken"]
        missing = [name for name in names if known.get(name, "ok" if name in installed else "missing") == "missing"]
        faults = [f"{word}: {', '.join(bad)}" for word, bad in (("broken", broken), ("not installed", missing)) if bad]
        detail = "; ".join((EXTRAS[extra], *(faults or [", ".join(names)])))
        state: State = "broken" if broken else "missing" if missing else "ok"
        found.append(Check("Extras", extra, state, detail, f"pip install 'rtformer-deploy[{extra}]'" if state == "missing" else None))
    return found
