"""Writes docs/licences.md: the licence of every dependency and extra, and of what they bring, from installed packages' metadata.

    python docs/_site/licences.py [--also VENV/bin/python ...]

`--also` names interpreters of other environments, for extras that are not installed in this one. The row of a package that is installed in
none of them stays as it is.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "licences.md"
#: What builds and tests the project, and does not go to its users.
INSIDE = ("dev", "docs")
#: Packages that are built where they are installed and need NVIDIA's libraries for that; the licence is what their projects state.
STATED = {
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
    "Apache License 2.0": "Apache-2.0",
    "Apache License v2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "Apache Software License 2.0": "Apache-2.0",
    "Apache": "Apache-2.0",
    "BSD": "BSD",
    "BSD License": "BSD",
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


def direct(project: Mapping[str, Any]) -> dict[str, Direct]:
    """The table [project] -> the packages that users get, by canonical name."""
    groups = {"": project["dependencies"], **{k: v for k, v in project["optional-dependencies"].items() if k not in INSIDE}}
    found: dict[str, Direct] = {}
    for extra, lines in groups.items():
        for line in lines:
            name = Requirement(line).name
            entry = found.setdefault(canonicalize_name(name), Direct(name))
            if extra not in entry.wanted_by:
                entry.wanted_by.append(extra)
    return found


def installed(python: str) -> dict[str, Metadata]:
    """What an interpreter's environment holds, by canonical name."""
    answer = subprocess.run([python, "-I", "-c", _ASK], capture_output=True, text=True, check=True).stdout
    return {str(canonicalize_name(name)): metadata for name, metadata in json.loads(answer).items()}


def licence(metadata: Metadata) -> str:
    """The licence that a package's metadata names: its expression, else its classifier, else its text's name. "not stated" if none."""
    for expression in metadata["License-Expression"]:
        return _SPDX.get(expression, expression)
    classified = [entry.removeprefix(_OSI).removeprefix("License :: ") for entry in metadata["Classifier"] if entry.startswith(_OSI[:11])]
    text = " ".join(metadata["License"]).strip()
    if text and len(text) < 60 and "\n" not in text:
        named = _SPDX.get(text, text)
        if named not in ("BSD", "proprietary") or not classified:
            return named
    if classified:
        return " and ".join(sorted({_SPDX.get(entry, entry) for entry in classified}))
    begins = [name for start, name in _TEXTS.items() if start in text[:200]]
    return begins[0] if begins else "not stated"


def brought(names: Iterable[str], packages: Mapping[str, Metadata]) -> set[str]:
    """The packages that these need in turn, all the way down, as far as they are installed."""
    seen: set[str] = set()
    waiting = list(names)
    while waiting:
        metadata = packages.get(waiting.pop())
        for line in metadata["Requires-Dist"] if metadata else ():
            need = Requirement(line)
            name = str(canonicalize_name(need.name))
            if name in packages and name not in seen and (need.marker is None or need.marker.evaluate({"extra": ""})):
                seen.add(name)
                waiting.append(name)
    return seen


def page(project: Mapping[str, Any], packages: Mapping[str, Metadata], earlier: str) -> str:
    """The whole of docs/licences.md; `earlier` is the page as it was, whose rows of packages that are not installed are kept."""
    kept = rows_of(earlier)
    named = direct(project)
    rows = [f"| {entry.name} | {extras(entry)} | {_of(name, packages, kept)} |" for name, entry in sorted(named.items())]
    others = (brought(named, packages) | {name for name in kept if name not in packages}) - set(named) - set(STATED)
    return HEAD + "\n".join(rows) + BETWEEN + "\n".join(f"| {name} | {_of(name, packages, kept)} |" for name in sorted(others)) + "\n"


def rows_of(text: str) -> dict[str, str]:
    """The page -> its licences by canonical name."""
    rows = re.findall(r"^\| ([\w.-]+) \|(?:.*\|)? (.+) \|$", text, re.MULTILINE)
    return {str(canonicalize_name(name)): licence for name, licence in rows if name != "package"}


def extras(entry: Direct) -> str:
    """Who wants a package, in words."""
    return ", ".join(f"`{extra}`" if extra else "every install" for extra in entry.wanted_by)


def _of(name: str, packages: Mapping[str, Metadata], kept: Mapping[str, str]) -> str:
    if name in packages:
        return licence(packages[name])
    if name in STATED:
        return f"{STATED[name]} (as its project states)"
    if name in kept:
        return kept[name]
    raise SystemExit(f"{name} is not installed in any of these environments: add one with --also.")


HEAD = """# Licences

rtformer-deploy is Apache-2.0. The shipped weights are for research only, whatever the code's licence: see
[their card](../models/rtformer-slim-camvid.md). `NOTICE` names the sources of photographs, class names and architectures.

Made by `docs/_site/licences.py` from the metadata of the installed packages; a test compares it with what is installed. It is what the
packages state about themselves, and no legal advice. Some wheels carry more than their own code: PyAV's holds FFmpeg with codecs under the GPL,
so a product that ships that wheel has to follow the GPL. OpenCV's, Pillow's and NumPy's list what they hold in their own licence files.

## What the project names

| package | for | licence |
|---|---|---|
"""
BETWEEN = """

## What those bring in turn

| package | licence |
|---|---|
"""


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
