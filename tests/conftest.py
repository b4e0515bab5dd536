from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden numbers and real data beside the project."""
    if not (SHARED / "golden").is_dir():
        pytest.skip(f"needs the golden numbers and real data in {SHARED}")
    return SHARED
