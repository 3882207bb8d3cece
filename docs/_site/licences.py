"""Writes docs/licences.md: the licence of every dependency and extra, and of what they bring, from installed packages' metadata.

    python docs/_site/licences.py [--also VENV/bin/python ...]

`--also` names interpreters of other environments, for extras that are not installed in this one. If some are installed in none of them,
their rows and those of what they may bring stay as they are.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "licences.md"
#: What builds and tests the project, and does not go to its users.
INSIDE = ("dev", "docs")
NOT_STATED = "not stated"
#: Packages whose metadata says nothing, or that are for another platform than the table's machine: what their projects state.
STATED = {
    "cuda-toolkit": "NVIDIA's, proprietary",
    "onnxruntime": "MIT",
    "pycuda": "MIT",
    "tensorrt": "NVIDIA's, proprietary",
}
#: What a licence's text begins with, for packages that name it in no other way.
_TEXTS = {"MIT License": "MIT", "Apache License": "Apache-2.0", "BSD 3-Clause": "BSD-3-Clause"}
_OSI = "License :: OSI Approved :: "
#: Names that mean the same -> the SPDX name.
_SPDX = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "Apache License": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache License v2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "Apache Software License 2.0": "Apache-2.0",
    "Apache": "Apache-2.0",
    "BSD": "BSD",
    "BSD License": "BSD",
    "ISC License": "ISC",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "MPL 2.0": "MPL-2.0",
    "LicenseRef-NVIDIA-Proprietary": "NVIDIA's, proprietary",
    "LicenseRef-NVIDIA-SOFTWARE-LICENSE": "NVIDIA's, proprietary",
    "NVIDIA Proprietary Software": "NVIDIA's, proprietary",
    "Proprietary": "proprietary",
    "Other/Proprietary License": "proprietary",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
}
#: Run in another environment: its packages' metadata as JSON, {name: {header: [values]}}.
_ASK = """
import json
from importlib.metadata import distributions
print(json.dumps({d.metadata["Name"]: {k: [str(v) for v in d.metadata.get_all(k) or []]
    for k in ("License", "License-Expression", "Classifier", "Requires-Dist")} for d in distributions()}))
"""

Metadata = Mapping[str, list[str]]


@dataclass
class Direct:
    """A package that pyproject.toml names: as it is written there, and the extras that want it ("" for every install)."""

    name: str
    wanted_by: list[str] = field(default_factory=list)


def requirements(project: Mapping[str, Any]) -> dict[str, list[str]]:
    """The table [project] -> what its users get, as it is written there, with the extras that want it ("" for every install)."""
    groups = {"": project["dependencies"], **{k: v for k, v in project["optional-dependencies"].items() if k not in INSIDE}}
    found: dict[str, list[str]] = {}
    for extra, lines in groups.items():
        for line in lines:
            found.setdefault(line, []).append(extra)
    return found


def direct(project: Mapping[str, Any]) -> dict[str, Direct]:
    """The table [project] -> the packages that users get, by canonical name."""
    found: dict[str, Direct] = {}
    for line, wanted_by in requirements(project).items():
        name = Requirement(line).name
        entry = found.setdefault(str(canonicalize_name(name)), Direct(name))
        entry.wanted_by += [extra for extra in wanted_by if extra not in entry.wanted_by]
    return found


def installed(python: str) -> dict[str, Metadata]:
    """What an interpreter's environment holds, by canonical name."""
    answer = subprocess.run([python, "-I", "-c", _ASK], capture_output=True, text=True, check=True).stdout
    return {str(canonicalize_name(name)): metadata for name, metadata in json.loads(answer).items()}


def licence(metadata: Metadata) -> str:
    """The licence that a package's metadata names: its expression, else its classifier, else its text's name. NOT_STATED if none."""
    for expression in metadata["License-Expression"]:
        return _SPDX.get(expression, expression)
    classified = [entry.removeprefix(_OSI).removeprefix("License :: ") for entry in metadata["Classifier"] if entry.startswith(_OSI[:11])]
    text = " ".join(metadata["License"]).strip().removeprefix(_OSI.removeprefix("License :: "))
    if text and len(text) < 60 and "\n" not in text:
        named = _SPDX.get(text, text)
        if named not in ("BSD", "proprietary") or not classified:
            return named
    if classified:
        return " and ".join(sorted({_SPDX.get(entry, entry) for entry in classified}))
    begins = [name for start, name in _TEXTS.items() if start in text[:200]]
    return begins[0] if begins else NOT_STATED


def brought(project: Mapping[str, Any], packages: Mapping[str, Metadata]) -> set[str]:
    """The packages that those of the table [project] need in turn, all the way down, as far as they are installed."""
    seen: set[tuple[str, str]] = set()
    waiting = [(name, extra) for line in requirements(project) for name, extra in _parts(Requirement(line))]
    while waiting:
        name, extra = waiting.pop()
        metadata = packages.get(name)
        for line in metadata["Requires-Dist"] if metadata else ():
            need = Requirement(line)
            if need.marker is None or need.marker.evaluate({"extra": extra}):
                new = [part for part in _parts(need) if part[0] in packages and part not in seen]
                seen.update(new)
                waiting += new
    return {name for name, _ in seen} - set(direct(project))


def _parts(need: Requirement) -> list[tuple[str, str]]:
    """A requirement -> its canonical name with each extra that it asks for, and with none."""
    return [(str(canonicalize_name(need.name)), extra) for extra in ("", *sorted(need.extras))]


def page(project: Mapping[str, Any], packages: Mapping[str, Metadata], earlier: str) -> str:
    """The whole of docs/licences.md; `earlier` is the page as it was, whose rows of packages that are not installed are kept."""
    kept = rows_of(earlier)
    named = direct(project)
    rows = [f"| {entry.name} | {extras(entry)} | {licence_of(name, packages, kept)} |" for name, entry in sorted(named.items())]
    whole = all(name in packages or name in STATED for name in named)  # else nobody knows what the missing ones bring
    others = brought(project, packages) | (set() if whole else set(kept)) - set(named)
    turn = [f"| {name} | {licence_of(name, packages, kept)} |" for name in sorted(others)]
    return "\n".join([HEAD, *rows, BETWEEN, *turn, ""])


def rows_of(text: str) -> dict[str, str]:
    """The page -> its licences by canonical name."""
    rows = re.findall(r"^\| ([\w.-]+) \|(?:.*\|)? (.+) \|$", text, re.MULTILINE)
    return {str(canonicalize_name(name)): licence for name, licence in rows if name != "package"}


def extras(entry: Direct) -> str:
    """Who wants a package, in words."""
    return ", ".join(f"`{extra}`" if extra else "every install" for extra in entry.wanted_by)


def licence_of(name: str, packages: Mapping[str, Metadata], kept: Mapping[str, str]) -> str:
    """A package's licence: as it is installed, else as its project states it, else as the page had it."""
    installed_one = licence(packages[name]) if name in packages else NOT_STATED
    if installed_one != NOT_STATED:
        return installed_one
    if name in STATED:
        return f"{STATED[name]} (as its project states)"
    if name in kept:
        return kept[name]
    raise SystemExit(f"{name} is not installed in any of these environments, or names no licence: add one with --also.")


HEAD = """# Licences

rtformer-deploy is Apache-2.0. The shipped weights are for research only, whatever the code's licence: see
[their card](../models/rtformer-slim-camvid.md). `NOTICE` names the sources of photographs, class names and architectures.

Made by `docs/_site/licences.py` from the metadata of the installed packages; a test compares it with what is installed. It is what the
packages state about themselves, and no legal advice. Some wheels carry more than their own code: PyAV's holds FFmpeg with codecs under the
GPL, and Ray Serve brings HAProxy under the GPL, so a product that ships those has to follow the GPL. The wheels of OpenCV, Pillow and NumPy
list what they hold in licence files of their own.

## What the project names

| package | for | licence |
|---|---|---|"""
BETWEEN = """
## What those bring in turn

| package | licence |
|---|---|"""


def main() -> None:
    """Writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--also", action="append", default=[], metavar="PYTHON", help="look into this interpreter's environment too")
    packages: dict[str, Metadata] = {}
    for python in [*reversed(parser.parse_args().also), sys.executable]:
        packages |= installed(python)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    earlier = PAGE.read_text() if PAGE.is_file() else ""
    PAGE.write_text(page(project, packages, earlier))


if __name__ == "__main__":
    main()
