"""Fixtures that many tests share. The reference data lies beside the checkout; tests that need it skip by name where it is missing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

pytest.register_assert_rewrite("gpu_frames")  # tests that others import


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


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What runs find out about models is kept for this session alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def trials_in_this_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Models from elsewhere are tried in this process, which saves a second each; a test marked `own_process` has the real thing.

    Tests for a GPU try none, and a machine that runs them may lack the packages that it takes.
    """
    if request.node.get_closest_marker("own_process") is None and request.node.get_closest_marker("gpu") is None:
        from rtformer_deploy.foreign import attempt, trial

        monkeypatch.setattr(trial, "_run", lambda path, external, builder: attempt.attempt(path, external))


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT
