"""The scoreboard as Prometheus text. Names, labels and units are those that vLLM's dashboards expect, by prefix."""

import asyncio
import time
from collections.abc import Callable, Iterator

from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector, CollectorRegistry

from protocol.scoreboard import BUCKETS_S, Row, Scoreboard

CONTENT_TYPE = CONTENT_TYPE_LATEST
MAX_AGE_S = 1.0
_MICRO = 1e-6

# What API servers count, summed over all of them: name, cell, help.
_SUMS = (
    ("prompt_tokens", "prompt_tokens", "Prompt tokens of requests whose prompt was computed."),
    ("generation_tokens", "generation_tokens", "Tokens generated for clients."),
    ("prompt_tokens_cached", "cached_tokens", "Prompt tokens that the prefix cache spared."),
)
_OUTCOMES = ("stop", "length", "abort", "error")
_HISTOGRAMS = (
    ("time_to_first_token_seconds", "ttft", "Seconds from a request's start to a choice's first token."),
    ("inter_token_latency_seconds", "itl", "Seconds between one token of a choice and the next."),
    ("e2e_request_latency_seconds", "e2e", "Seconds from a request's start to its end."),
)
# What each engine core says of itself.
_ENGINE_GAUGES = (
    ("num_requests_running", "running", "Rows that run."),
    ("num_requests_waiting", "waiting", "Rows that wait for their first step."),
)
_ENGINE_COUNTERS = (
    ("prefix_cache_queries", "prefix_queries", "Prompt tokens looked up in the prefix cache."),
    ("prefix_cache_hits", "prefix_hits", "Prompt tokens found there."),
    ("num_preemptions", "preemptions", "Rows that gave their blocks back to be computed again."),
    ("engine_steps", "steps", "Steps of the engine core."),
    ("engine_peers_ended", "peers_ended", "API server connections that the engine core ended."),
)
_API_GAUGES = (
    ("api_server_in_flight", "in_flight", 1.0, "HTTP requests in flight."),
    ("api_server_unsent_connections", "unsent_connections", 1.0, "Connections without a request yet."),
    ("api_server_event_loop_lag_seconds", "loop_lag_us", _MICRO, "How late the event loop runs its timers."),
)


def render_metrics(board: Scoreboard, *, prefix: str, model_name: str) -> bytes:
    """Everything, as of now. Gauges of a process that is gone or hangs are left out; its counters stay."""
    registry = CollectorRegistry()
    registry.register(_Board(board, prefix, model_name))
    return generate_latest(registry)


class MetricsText:
    """The text, rendered in a thread and at most once a second: scrapers must not hold up streams."""

    def __init__(self, render: Callable[[], bytes]) -> None:
        self._render = render
        self._text: asyncio.Future[bytes] | None = None
        self._began = 0.0

    async def get(self) -> bytes:
        """At most `MAX_AGE_S` old. Questions that come while it is rendered wait for the same text."""
        now = time.monotonic()
        if self._text is None or now - self._began >= MAX_AGE_S:
            self._began = now
            self._text = asyncio.ensure_future(asyncio.to_thread(self._render))
        return await asyncio.shield(self._text)


class _Board(Collector):
    def __init__(self, board: Scoreboard, prefix: str, model_name: str) -> None:
        self._board = board
        self._prefix = prefix
        self._model_name = model_name

    def describe(self) -> list[Metric]:
        """Nothing ahead of time: the registry would read everything twice otherwise."""
        return []

    def collect(self) -> Iterator[Metric]:
        """One family after the other."""
        yield from self._requests()
        yield from self._engines()
        yield from self._api_servers()

    # --- what requests were like, over all API servers ---------------------------------------------------------------

    def _requests(self) -> Iterator[Metric]:
        labels = [self._model_name, "0"]
        for name, cell, text in _SUMS:
            counter = self._counter(name, text, ["model_name", "engine"])
            counter.add_metric(labels, self._sum(cell))
            yield counter
        success = self._counter(
            "request_success", "Choices that ended, by reason.", ["model_name", "engine", "finished_reason"]
        )
        for outcome in _OUTCOMES:
            success.add_metric([*labels, outcome], self._sum(f"requests_{outcome}"))
        yield success
        for name, cell, text in _HISTOGRAMS:
            histogram = HistogramMetricFamily(self._prefix + name, text, labels=["model_name", "engine"])
            histogram.add_metric(labels, self._buckets(cell), self._sum(f"{cell}_sum_us") * _MICRO)
            yield histogram

    def _buckets(self, histogram: str) -> list[tuple[str, float]]:
        bounds = [*map(str, BUCKETS_S), "+Inf"]
        buckets, total = [], 0
        for index, bound in enumerate(bounds):
            total += self._sum(f"{histogram}_le_{index}")
            buckets.append((bound, float(total)))
        return buckets

    def _sum(self, cell: str) -> int:
        return sum(row.get(cell) for _, row in self._board.api_rows())

    # --- each process by itself --------------------------------------------------------------------------------------

    def _engines(self) -> Iterator[Metric]:
        for name, cell, text in _ENGINE_GAUGES:
            gauge = self._gauge(name, text, ["model_name", "engine"])
            for rank, row in self._live(self._board.engine_rows()):
                gauge.add_metric([self._model_name, str(rank)], row.get(cell))
            yield gauge
        usage = self._gauge("kv_cache_usage_perc", "Share of KV blocks in use, 0 to 1.", ["model_name", "engine"])
        for rank, row in self._live(self._board.engine_rows()):
            usage.add_metric([self._model_name, str(rank)], row.get("blocks_used") / max(1, row.get("blocks_total")))
        yield usage
        for name, cell, text in _ENGINE_COUNTERS:
            counter = self._counter(name, text, ["model_name", "engine"])
            for rank, row in self._board.engine_rows():
                counter.add_metric([self._model_name, str(rank)], row.get(cell))
            yield counter

    def _api_servers(self) -> Iterator[Metric]:
        for name, cell, scale, text in _API_GAUGES:
            gauge = self._gauge(name, text, ["api_server"])
            for place, row in self._live(self._board.api_rows()):
                gauge.add_metric([str(place)], row.get(cell) * scale)
            yield gauge
        restarts = self._counter("child_restarts", "Child processes that were replaced.", [])
        restarts.add_metric([], self._board.restarts)
        yield restarts

    def _live(self, rows: Iterator[tuple[int, Row]]) -> Iterator[tuple[int, Row]]:
        return ((place, row) for place, row in rows if self._board.is_live(row))

    def _counter(self, name: str, text: str, labels: list[str]) -> CounterMetricFamily:
        return CounterMetricFamily(self._prefix + name, text, labels=labels)

    def _gauge(self, name: str, text: str, labels: list[str]) -> GaugeMetricFamily:
        return GaugeMetricFamily(self._prefix + name, text, labels=labels)
