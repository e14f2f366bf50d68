"""Clients that read streams, each in its own thread, and remember what they got."""

import contextlib
import json
import threading
from collections.abc import Iterator

import httpx

DEADLINE_S = 30.0


class StreamReader:
    """One client in its own thread; `events` are the data events that it got."""

    def __init__(self, url: str, *, max_tokens: int) -> None:
        self.events: list[str] = []
        self.error: Exception | None = None
        self.has_begun = threading.Event()
        self._url = url
        self._body = {"model": "demo", "prompt": "Once", "max_tokens": max_tokens, "ignore_eos": True, "stream": True}
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            with httpx.stream("POST", f"{self._url}/v1/completions", json=self._body, timeout=DEADLINE_S) as response:
                assert response.status_code == 200
                for line in response.iter_lines():
                    self._take(line)
        except httpx.HTTPError as error:
            self.error = error
        self.has_begun.set()

    def _take(self, line: str) -> None:
        if line.startswith("data: "):
            self.events.append(line.removeprefix("data: "))
            self.has_begun.set()

    def join(self) -> None:
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()

    @property
    def is_open(self) -> bool:
        """Whether more may come."""
        return self._thread.is_alive()

    @property
    def ended_normally(self) -> bool:
        """With every token that was asked for, and the last event."""
        return self.error is None and self.events[-1] == "[DONE]" and self.finish_reason == "length"

    @property
    def finish_reason(self) -> str | None:
        """Of the last chunk with a choice."""
        chunks = [json.loads(event) for event in self.events if event != "[DONE]"]
        reasons = [choice["finish_reason"] for chunk in chunks for choice in chunk.get("choices", ())]
        return str(reasons[-1]) if reasons and reasons[-1] else None


@contextlib.contextmanager
def streaming(url: str, count: int, *, max_tokens: int) -> Iterator[list[StreamReader]]:
    readers = [StreamReader(url, max_tokens=max_tokens) for _ in range(count)]
    for reader in readers:
        assert reader.has_begun.wait(DEADLINE_S)
    yield readers
    for reader in readers:
        reader.join()
