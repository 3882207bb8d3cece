"""docs/licences.md has a row for every package that users get, and says what the installed ones say."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from docs_pages import ROOT
from helpers import load_file


@pytest.fixture(scope="module")
def licences() -> ModuleType:
    return load_file(ROOT / "docs" / "_site" / "licences.py")


def test_every_package_has_its_row_and_its_extras(licences: ModuleType) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = licences.PAGE.read_text()
    missing = [entry.name for entry in licences.direct(project).values() if f"| {entry.name} | {licences.extras(entry)} | " not in text]
    assert missing == [], "make licences writes the table"


def test_the_rows_say_what_the_installed_packages_say(licences: ModuleType) -> None:
    packages = licences.installed(sys.executable)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = licences.PAGE.read_text()
    rows = licences.rows_of(text)
    needed = set(licences.direct(project)) | licences.brought(project, packages)
    assert {name: licences.licence_of(name, packages, {}) for name in needed if name in packages} == {
        name: rows.get(name) for name in needed if name in packages
    }, "make licences writes the table"
    assert licences.page(project, packages, text) == text
    assert licences.NOT_STATED not in rows.values()


def test_a_licence_is_read_from_wherever_a_package_names_it(licences: ModuleType) -> None:
    def licence(expression: str = "", text: str = "", classifier: str = "") -> str:
        fields = {"License-Expression": expression, "License": text, "Classifier": classifier}
        return str(licences.licence({key: [value] if value else [] for key, value in fields.items()}))

    assert licence("BSD-3-Clause AND MIT", text="something else") == "BSD-3-Clause AND MIT"
    assert licence(text="Apache 2.0") == "Apache-2.0"
    assert licence(classifier="License :: OSI Approved :: MIT License") == "MIT"
    assert licence(text="BSD", classifier="License :: OSI Approved :: BSD License") == "BSD"
    assert licence(text="Proprietary", classifier="License :: Other/Proprietary License") == "proprietary"
    assert licence(text="MIT License\n\nPermission is hereby granted, free of charge ...") == "MIT"
    assert licence(classifier="Programming Language :: Python") == licences.NOT_STATED


def test_a_package_that_is_nowhere_is_an_error_or_keeps_its_row(licences: ModuleType, tmp_path: Path) -> None:
    project = {"dependencies": ["nowhere>=1"], "optional-dependencies": {"some": ["nowhere", "pycuda"], "dev": ["pytest"]}}
    with pytest.raises(SystemExit, match="nowhere is not installed"):
        licences.page(project, {}, "")
    made = licences.page(project, {}, "| nowhere | every install | MIT |\n")
    assert "| nowhere | every install, `some` | MIT |" in made
    assert "| pycuda | `some` | MIT (as its project states) |" in made
    assert "pytest" not in made
