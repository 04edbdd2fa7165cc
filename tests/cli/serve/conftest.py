"""One server with the built-in model for all tests of its APIs."""

from collections.abc import Iterator

import pytest
from serve_process import ServeProcess, serving


@pytest.fixture(scope="session")
def server() -> Iterator[ServeProcess]:
    with serving() as server:
        yield server
