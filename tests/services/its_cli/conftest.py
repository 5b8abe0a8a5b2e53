"""A guest service's routes over ITSs that stand still, on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.services.guest_driver.test_its_routes import Mesh

TOKEN = "a token"


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    made = Mesh(TOKEN)
    await made.admin.start("127.0.0.1", 0)
    yield made
    await made.admin.close()
