"""A server that several tests only read, and the reference that they are compared with."""

from collections.abc import Iterator

import pytest

from protocol.launch import ModelFiles
from tests.helpers.server_process import ServerProcess
from tests.system.reference import Greedy, compute_references
from tests.system.server import serving


@pytest.fixture(scope="session")
def served(demo_files: ModelFiles) -> Iterator[ServerProcess]:
    """The demo model in float32 behind two API servers. `demo_files` makes sure that the model is on this machine."""
    with serving(api_server_count=2) as server:
        yield server


@pytest.fixture(scope="session")
def references(demo_files: ModelFiles) -> dict[str, Greedy]:
    """What transformers makes of each prompt, by the prompt's name."""
    return compute_references(demo_files)
