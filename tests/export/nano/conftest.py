"""These tests draw text, so they need the two font families."""

import pytest

from phi3v.errors import MissingDependencyError
from phi3v.export.nano.fonts import FACES, Font


@pytest.fixture(autouse=True, scope="session")
def fonts() -> None:
    try:
        for face in FACES:
            Font(face, 20).width("a")
    except MissingDependencyError as exc:
        pytest.skip(str(exc))
