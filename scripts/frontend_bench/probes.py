"""Asks the health routes while others load the server, and takes the time of each answer."""

import http.client
import statistics
import time

PATHS = ("/livez", "/readyz", "/metrics", "/load")


class Prober:
    """One connection for each question, as probes and scrapers have."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._times: dict[str, list[float]] = {path: [] for path in PATHS}

    def ask(self) -> None:
        """Each route once."""
        for path in PATHS:
            began = time.monotonic()
            connection = http.client.HTTPConnection(self._host, self._port, timeout=60)
            connection.request("GET", path)
            connection.getresponse().read()
            connection.close()
            self._times[path].append(1000 * (time.monotonic() - began))

    def figures(self) -> dict[str, dict[str, float]]:
        """Milliseconds: median and 99th percentile."""
        return {
            path: {"p50_ms": round(statistics.median(times), 2), "p99_ms": round(_p99(times), 2)}
            for path, times in self._times.items()
            if times
        }


def _p99(times: list[float]) -> float:
    return sorted(times)[min(len(times) - 1, int(0.99 * len(times)))]
