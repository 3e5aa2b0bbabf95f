"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with real drives and published parity numbers; the test skips where it is absent."""
    path = Path(os.environ.get("DASHCAST_SHARED", ROOT.parent / "shared"))
    if not (path / "parity").is_dir():
        pytest.skip(f"{path} holds no shared data; set DASHCAST_SHARED")
    return path.resolve()
