"""These tests draw text."""

import pytest


@pytest.fixture(autouse=True, scope="session")
def drawing(fonts: None) -> None:
    """Every test here needs the fonts."""
