"""The native code and what NumPy does without it, for the tests of pictures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from rtformer_deploy.image import native


@pytest.fixture(params=["native", "numpy"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which of the two the test runs on."""
    if request.param == "native" and not native.available():
        pytest.skip("the native code is not compiled here")
    if request.param == "numpy":
        monkeypatch.setattr(native, "_module", None)
    return str(request.param)


@pytest.fixture
def module() -> Iterator[Any]:
    """The compiled module; a limit of its instruction set that a test sets ends with it."""
    if native._module is None:
        pytest.skip(native.description())
    yield native._module
    native._module.limit_instruction_set(0)
