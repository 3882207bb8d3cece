"""What several tests of networks need."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def peers(shared: Path) -> Path:
    """The reference data of DDRNet and STDC-Seg."""
    folder = shared / "golden" / "peers"
    if not folder.is_dir():
        pytest.skip("needs the reference data folder ../shared/golden/peers")
    return folder
