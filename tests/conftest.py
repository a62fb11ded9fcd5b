"""What every test may ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images beside the checkout; skips where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("the real images of ../shared/data are not beside this checkout")
    return SHARED
