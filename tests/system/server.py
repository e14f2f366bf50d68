"""The product's own server on the demo model, and what /metrics and /load say of it.

It knows the command line and HTTP; of the product's code it imports nothing.
"""

import contextlib
import signal
import time
from collections.abc import Iterator

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.helpers.server_process import ServerProcess, all_gone

_PREFIX = "headrace_"
_CACHE_BYTES = 512 * 1024**2
_FLAGS = ("--dtype", "float32", "--disable-uvicorn-access-log")
_TIMEOUT_S = 30.0
_METRICS_AGE_S = 1.0  # the text is rendered at most once a second


@contextlib.contextmanager
def serving(
    *flags: str, api_server_count: int = 1, kv_cache_memory_bytes: int = _CACHE_BYTES
) -> Iterator[ServerProcess]:
    """A ready server in float32. On the way out it must drain, exit with 0 and leave no process behind."""
    count, size = str(api_server_count), str(kv_cache_memory_bytes)
    asked = ("--api-server-count", count, "--kv-cache-memory-bytes", size, *_FLAGS, *flags)
    with ServerProcess(*asked, engine=None) as server:
        server.wait_ready()
        assert httpx.get(f"{server.url}/readyz", timeout=_TIMEOUT_S).status_code == httpx.codes.OK
        yield server
        children = server.children()
        server.signal(signal.SIGTERM)
        assert server.wait() == 0, "an idle server must end with 0"
        assert all_gone(children), "a child outlived its server"


def metric(url: str, name: str) -> float:
    """The sum over all its samples; `name` comes without prefix."""
    return sum(value for _, value in _samples(url, name))


def metric_by(url: str, name: str, label: str) -> dict[str, float]:
    """One number for each value of `label`."""
    found: dict[str, float] = {}
    for labels, value in _samples(url, name):
        found[labels[label]] = found.get(labels[label], 0.0) + value
    return found


def _samples(url: str, name: str) -> list[tuple[dict[str, str], float]]:
    time.sleep(_METRICS_AGE_S)  # what was rendered before this question is too old for an answer now
    text = httpx.get(f"{url}/metrics", timeout=_TIMEOUT_S).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    found = [(sample.labels, sample.value) for sample in samples if sample.name == _PREFIX + name]
    assert found, f"/metrics has no {_PREFIX}{name}"
    return found


def server_load(url: str) -> int:
    """What GET /load says."""
    return int(httpx.get(f"{url}/load", timeout=_TIMEOUT_S).json()["server_load"])
