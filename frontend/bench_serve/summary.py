"""From samples to numbers: rates, percentiles, goodput. It does not print."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec

from frontend.bench_serve.messages import Sample

PERCENTILES = (50, 90, 99)
_MS = 1000.0


class Percentiles(msgspec.Struct, frozen=True):
    """Of one latency, in milliseconds. None: nothing was measured."""

    p50: float | None
    p90: float | None
    p99: float | None


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """One repetition as it is reported.

    Latencies count from the moment a request was due, waiting in the client included. `itl_ms` is between events, which
    is between tokens unless the server sends several in one.
    """

    num_requests: int
    num_failed: int
    first_error: str | None
    duration_s: float
    prompt_tokens: int
    output_tokens: int
    requests_per_s: float
    output_tokens_per_s: float
    total_tokens_per_s: float
    ttft_ms: Percentiles
    tpot_ms: Percentiles
    itl_ms: Percentiles
    e2e_ms: Percentiles
    goodput_requests_per_s: float | None  # None: no limits were given
    client_busy: float  # of one core, by the busiest load process


@dataclass(frozen=True, slots=True)
class Limit:
    """One goodput condition on a served request."""

    metric: str
    max_ms: float


def _ttft_ms(sample: Sample) -> float:
    return (sample.first_s - sample.due_s) * _MS


def _e2e_ms(sample: Sample) -> float:
    return (sample.end_s - sample.due_s) * _MS


def _tpot_ms(sample: Sample) -> float | None:
    """Mean time of a token after the first; an answer of one token has none."""
    if sample.output_tokens < 2:
        return None
    return (sample.last_s - sample.first_s) / (sample.output_tokens - 1) * _MS


_METRICS: dict[str, Callable[[Sample], float | None]] = {"ttft": _ttft_ms, "tpot": _tpot_ms, "e2e": _e2e_ms}


def parse_limit(text: str) -> Limit:
    """`ttft:200` (milliseconds). Raises ValueError."""
    metric, _, number = text.partition(":")
    try:
        limit = Limit(metric, float(number))
    except ValueError:
        limit = Limit(metric, math.nan)
    if metric not in _METRICS or not limit.max_ms > 0:
        raise ValueError(f"{text} is no limit; write {', '.join(_METRICS)} with milliseconds, such as ttft:200")
    return limit


def summarize(samples: list[Sample], limits: list[Limit], *, client_busy: float) -> Summary:
    """`samples` holds at least one."""
    served = [sample for sample in samples if sample.error is None]
    duration_s = max(sample.end_s for sample in samples) - min(sample.due_s for sample in samples)
    prompt_tokens = sum(sample.prompt_tokens for sample in served)
    output_tokens = sum(sample.output_tokens for sample in served)
    return Summary(
        num_requests=len(samples),
        num_failed=len(samples) - len(served),
        first_error=next((sample.error for sample in samples if sample.error is not None), None),
        duration_s=duration_s,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        requests_per_s=len(served) / duration_s,
        output_tokens_per_s=output_tokens / duration_s,
        total_tokens_per_s=(prompt_tokens + output_tokens) / duration_s,
        ttft_ms=_percentiles(map(_ttft_ms, served)),
        tpot_ms=_percentiles(tpot for sample in served if (tpot := _tpot_ms(sample)) is not None),
        itl_ms=_percentiles(gap * _MS for sample in served for gap in sample.gaps_s),
        e2e_ms=_percentiles(map(_e2e_ms, served)),
        goodput_requests_per_s=_num_good(served, limits) / duration_s if limits else None,
        client_busy=client_busy,
    )


def _num_good(served: list[Sample], limits: list[Limit]) -> int:
    return sum(all(_keeps(sample, limit) for limit in limits) for sample in served)


def _keeps(sample: Sample, limit: Limit) -> bool:
    value = _METRICS[limit.metric](sample)
    return value is None or value <= limit.max_ms


def _percentiles(values: Iterable[float]) -> Percentiles:
    ordered = sorted(values)
    return Percentiles(*(_percentile(ordered, percent) for percent in PERCENTILES))


def _percentile(ordered: list[float], percent: int) -> float | None:
    """The smallest value that at least `percent` of 100 do not exceed (nearest rank)."""
    return ordered[math.ceil(len(ordered) * percent / 100) - 1] if ordered else None
