"""What the processes of a ready server weigh, and what they have loaded: only the engine core holds torch."""

from pathlib import Path

import psutil

from tests.helpers.server_process import ServerProcess

MEGABYTE = 1_000_000


def has_torch(process: psutil.Process) -> bool:
    """A module that was imported once stays mapped."""
    return "libtorch" in Path(f"/proc/{process.pid}/maps").read_text()


def test_api_servers_are_light(served: ServerProcess) -> None:
    for place in (0, 1):
        process = served.api_server(place)
        memory = process.memory_full_info()
        assert memory.rss <= 120 * MEGABYTE
        assert memory.pss <= 100 * MEGABYTE
        assert not has_torch(process)


def test_the_supervisor_is_light(served: ServerProcess) -> None:
    process = psutil.Process(served.pid)
    assert process.memory_info().rss <= 70 * MEGABYTE
    assert not has_torch(process)


def test_the_engine_core_is_where_torch_is(served: ServerProcess) -> None:
    assert has_torch(served.engine())
