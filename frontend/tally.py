"""What this API server counts, into its scoreboard row. Per-token counts are gathered and written once a step."""

from bisect import bisect_left

from frontend.request import FinishReason
from protocol.scoreboard import BUCKETS_S, Row


class Tally:
    """The only writer of the row's request counters and histograms."""

    def __init__(self, row: Row) -> None:
        self._row = row
        self._num_tokens = 0
        self._gaps = [0] * (len(BUCKETS_S) + 1)
        self._gaps_s = 0.0

    def request_started(self, num_choices: int) -> None:
        self._row.add("requests", num_choices)

    def prompt_computed(self, *, num_tokens: int, num_cached: int) -> None:
        self._row.add("prompt_tokens", num_tokens)
        self._row.add("cached_tokens", num_cached)

    def first_token(self, seconds: float) -> None:
        self._num_tokens += 1
        self._row.observe("ttft", seconds)

    def next_token(self, seconds: float) -> None:
        """Once for each token of each stream: nothing is written before `flush`."""
        self._num_tokens += 1
        self._gaps[bisect_left(BUCKETS_S, seconds)] += 1
        self._gaps_s += seconds

    def choice_ended(self, reason: FinishReason | None) -> None:
        """None: it failed."""
        self._row.add(f"requests_{reason or 'error'}")

    def request_ended(self, seconds: float) -> None:
        self._row.observe("e2e", seconds)

    def flush(self) -> None:
        """Write what was gathered since the last time."""
        if self._num_tokens == 0:
            return
        self._row.add("generation_tokens", self._num_tokens)
        self._row.add("itl_sum_us", int(self._gaps_s * 1e6))
        for bucket, count in enumerate(self._gaps):
            if count:
                self._row.add(f"itl_le_{bucket}", count)
        self._num_tokens = 0
        self._gaps = [0] * len(self._gaps)
        self._gaps_s = 0.0
