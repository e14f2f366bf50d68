"""An engine core with a fake runner of each depth, and one greeted peer."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.core_bench import Engine, Peer


@pytest.fixture(params=[0, 1], ids=["depth0", "depth1"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    running = Engine(tmp_path, depth=request.param)
    yield running
    running.close()


@pytest.fixture
def peer(engine: Engine) -> Iterator[Peer]:
    greeted = Peer(engine).greet()
    yield greeted
    greeted.close()
