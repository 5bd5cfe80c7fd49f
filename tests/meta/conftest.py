"""Fixtures of the meta tests: they read files and leave no garbage whose collection could warn."""

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Skip the collection after each test: thousands of them would take longer than the tests."""
    yield
