"""What tests of several folders need."""

import pytest


@pytest.fixture(scope="session")
def fonts() -> None:
    """The two font families that nano's pictures are drawn with; a machine may lack them."""
    from phi3v.errors import MissingDependencyError
    from phi3v.export.nano.fonts import FACES, Font

    try:
        for face in FACES:
            Font(face, 20).width("a")
    except MissingDependencyError as exc:
        pytest.skip(str(exc))
