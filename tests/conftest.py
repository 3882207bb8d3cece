"""Fixtures that many tests share. The reference data lies beside the checkout; tests that need it skip by name where it is missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def shared_dir() -> Path:
    return Path(os.environ.get("RTFORMER_DEPLOY_SHARED", ROOT.parent / "shared"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skips tests that need services from elsewhere, by name, unless they are asked for."""
    if "services" in config.option.markexpr:
        return
    skip = pytest.mark.skip(reason="talks to programs from elsewhere: make test-services")
    for item in items:
        if item.get_closest_marker("services") is not None:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data: golden outputs, CamVid, odd images, the TensorRT API lists."""
    folder = shared_dir()
    if not folder.is_dir():
        pytest.skip("needs the reference data folder ../shared")
    return folder


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT
